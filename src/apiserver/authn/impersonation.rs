//! `Impersonate-User` and its companions: a user asks to be taken for another, and must be allowed to.

use crate::UserInfo;
use crate::authz::{Attributes, Authorizer};
use crate::call::percent_decode;
use http::HeaderMap;
use mini_api::{Status, names};
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Who the request is to be taken for; `None` if it does not ask.
///
/// # Errors
/// 403 if the user may not, 400 if the headers say groups but no user.
pub fn impersonate(authz: &Authorizer, user: &UserInfo, headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let Some(mut wanted) = requested(headers)? else { return Ok(None) };
    let may = |attributes: &Attributes<'_>| authz.require(attributes);
    let ask =
        |group, resource| Attributes { version: "v1", ..Attributes::resource(user, "impersonate", group, resource) };
    match service_account(&wanted.name) {
        Some((namespace, name)) => {
            may(&Attributes { namespace, name, ..ask("", "serviceaccounts") })?;
        }
        None => may(&Attributes { name: &wanted.name, ..ask("", "users") })?,
    }
    for name in &wanted.groups {
        may(&Attributes { name, ..ask("", "groups") })?;
    }
    if !wanted.uid.is_empty() {
        may(&Attributes { name: &wanted.uid, ..ask("authentication.k8s.io", "uids") })?;
    }
    for (key, values) in &wanted.extra {
        for name in values {
            may(&Attributes { subresource: key, name, ..ask("authentication.k8s.io", "userextras") })?;
        }
    }
    complete(&mut wanted);
    Ok(Some(wanted))
}

fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    // A value that cannot be read must not turn into no impersonation, which would be the caller's own rights.
    let text = |value: &http::HeaderValue| {
        String::from_utf8(value.as_bytes().to_vec())
            .map_err(|_| Status::bad_request("an impersonation header is not UTF-8"))
    };
    let name = headers.get(USER).map(text).transpose()?.unwrap_or_default();
    let groups: Vec<String> = headers.get_all(GROUP).iter().map(text).collect::<Result<_, _>>()?;
    let uid = headers.get(UID).map(text).transpose()?.unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(percent_decode(&key.to_lowercase(), false)).or_default().push(text(value)?);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request("impersonation headers ask for groups, a UID or extras without a user name"));
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// The groups that every user of its kind is in.
fn complete(user: &mut UserInfo) {
    let mut add = |group: String| {
        if !user.groups.contains(&group) {
            user.groups.push(group);
        }
    };
    if user.name == "system:anonymous" {
        add("system:unauthenticated".to_owned());
        return;
    }
    // An account's groups follow from its name, unless the request says which ones it means.
    if let Some((namespace, _)) = service_account(&user.name)
        && user.groups.is_empty()
    {
        user.groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    if !user.is_in("system:unauthenticated") && !user.is_in("system:authenticated") {
        user.groups.push("system:authenticated".to_owned());
    }
}

/// The parts of an account's name. What only begins like one is any user's.
fn service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::is_dns1123_label(namespace).is_empty() && names::is_dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn headers_are_read() {
        let all = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        let user = requested(&all).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane", ["a".to_owned(), "b".to_owned()].as_slice()));
        assert_eq!(user.extra.get("acme.com/project").unwrap(), &["x"]);
        assert_eq!(requested(&headers(&[("impersonate-group", "a")])).unwrap_err().code, 400);
        assert!(requested(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn groups_are_completed() {
        let groups = |name: &str, groups: &[&str]| {
            let groups = groups.iter().map(|g| (*g).to_owned()).collect();
            let mut user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
            complete(&mut user);
            user.groups
        };
        assert_eq!(groups("jane", &["a"]), ["a", "system:authenticated"]);
        assert_eq!(groups("system:anonymous", &[]), ["system:unauthenticated"]);
        assert_eq!(
            groups("system:serviceaccount:ns:sa", &[]),
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
        );
        assert_eq!(groups("system:serviceaccount:ns:sa", &["a"]), ["a", "system:authenticated"]);
        assert_eq!(groups("system:serviceaccount:ns:sa:more", &[]), ["system:authenticated"]);
    }
}
