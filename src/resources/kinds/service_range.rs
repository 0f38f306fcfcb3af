//! ServiceCIDR and IPAddress: the ranges that Services get their addresses from, and who has which.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, list};
use crate::defaults::Default;
use crate::resource::Hooks;
use ipnet::IpNet;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::net::IpAddr;

pub(crate) const ADDRESS: Hooks = Hooks {
    name: |name| match name.parse::<IpAddr>() {
        Err(_) => vec![format!("ParseAddr({name:?}): unable to parse IP")],
        Ok(ip) if ip.to_string() != name => vec!["must be a canonical format IP address".to_owned()],
        Ok(_) => Vec::new(),
    },
    validate: |v, errors| {
        let parent = At::root(v).get("spec").get("parentRef");
        if !parent.is_set() {
            errors.push(parent.required(""));
            return;
        }
        let group = parent.get("group");
        if !group.is_empty() {
            group.messages(names::is_dns1123_subdomain(group.text()), errors);
        }
        for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
            let at = parent.get(field);
            if required {
                at.must_be_set(errors);
            }
            at.messages(names::is_path_segment(at.text()), errors);
        }
    },
    validate_update: |new, old, _, errors| {
        let of = |v| At::root(v).get("spec").get("parentRef");
        of(new).immutable(&of(old), errors);
    },
    columns: &[NAME, Column::text("ParentRef", "Who has the address.")],
    cells: |v, _| {
        let parent = match v.pointer("/spec/parentRef").filter(|p| p.is_object()) {
            None => NONE.to_owned(),
            Some(parent) => {
                let kind = match parent.text(&["group"]) {
                    "" => parent.text(&["resource"]).to_owned(),
                    group => format!("{}.{group}", parent.text(&["resource"])),
                };
                let rest = ["namespace", "name"].map(|f| parent.text(&[f]));
                let rest: Vec<&str> = rest.into_iter().filter(|part| !part.is_empty()).collect();
                format!("{kind}/{}", rest.join("/"))
            }
        };
        vec![columns::name(v), parent.into()]
    },
    ..Hooks::NONE
};

pub(crate) const RANGE: Hooks = Hooks {
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| ranges(&At::root(v).get("spec").get("cidrs"), errors),
    validate_update: |new, old, _, errors| {
        let of = |v| At::root(v).get("spec").get("cidrs");
        of(new).immutable(&of(old), errors);
    },
    columns: &[NAME, Column::text("CIDRs", "Addresses of the range."), AGE],
    cells: |v, now| {
        let cidrs: Vec<&str> = list(v, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![columns::name(v), cidrs.join(",").into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

fn ranges(at: &At<'_>, errors: &mut Errors) {
    let items = at.items();
    if items.is_empty() {
        errors.push(at.required("at least one CIDR required"));
        return;
    }
    if items.len() > 2 {
        errors.push(FieldError::invalid(&at.path, at.value.clone(), "may only hold up to 2 values"));
        return;
    }
    let nets: Vec<Option<IpNet>> = items.iter().map(|item| item.text().parse().ok()).collect();
    if let [Some(one), Some(other)] = nets.as_slice()
        && one.addr().is_ipv4() == other.addr().is_ipv4()
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
        errors.push(at.invalid(detail));
    }
    for (item, net) in items.iter().zip(nets) {
        match net {
            None => errors.push(item.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
            Some(net) if net.trunc() != net => {
                let detail = "must not have bits set beyond the prefix length";
                errors.push(item.invalid(detail));
            }
            Some(net) if net.to_string() != item.text() => {
                errors.push(item.invalid(format!("must be in canonical form ({:?})", net.to_string())));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_addresses() {
        assert!((ADDRESS.name)("10.0.0.1").is_empty() && (ADDRESS.name)("2001:db8::1").is_empty());
        assert_eq!((ADDRESS.name)("2001:db8:0::1"), ["must be a canonical format IP address"]);
        assert_eq!((ADDRESS.name)("a").len(), 1);
    }

    #[test]
    fn one_range_of_each_family() {
        let said = |cidrs: Value| {
            let mut errors = Errors::new();
            ranges(&At { value: &cidrs, path: mini_api::FieldPath::new("c") }, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(said(json!(["10.0.0.0/24", "2001:db8::/64"])).is_empty());
        assert_eq!(said(json!([])), ["c: Required value: at least one CIDR required"]);
        assert_eq!(said(json!(["10.0.0.0/24", "10.1.0.0/24"])).len(), 1);
        assert!(said(json!(["10.0.0.1/24"]))[0].ends_with("must not have bits set beyond the prefix length"));
    }
}
