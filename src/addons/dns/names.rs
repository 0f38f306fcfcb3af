//! The names that one Service has, and what is behind each.
//!
//! Derived whole from the Service and its slices at each change of either, so that a query only looks up.

use super::facts::{Port, Service, Slice};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A target of an SRV record.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    /// The port's name; empty when unnamed.
    pub(super) port: String,
    pub(super) protocol: String,
    pub(super) number: u16,
    /// The endpoint's label; `None` stands for the Service itself.
    pub(super) host: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// Where an ExternalName Service points.
    pub(super) alias: Option<String>,
    /// Behind the Service's own name.
    pub(super) addresses: Vec<IpAddr>,
    /// Behind `<label>.<service>`.
    pub(super) hosts: BTreeMap<String, Vec<IpAddr>>,
    pub(super) targets: Vec<Target>,
    /// Addresses that lead back to these names; with the endpoint's label, or none for the Service itself.
    pub(super) reverse: Vec<(IpAddr, Option<String>)>,
}

impl Names {
    pub(super) fn of<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut names = Self { alias: service.external.clone(), ..Self::default() };
        if names.alias.is_some() {
            return names;
        }
        for slice in slices {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready || service.unready_too) {
                for address in &endpoint.addresses {
                    let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(*address));
                    if service.headless {
                        names.headless(slice, &label, *address);
                    }
                    add(names.hosts.entry(label).or_default(), *address);
                }
            }
        }
        if !service.headless {
            names.addresses.clone_from(&service.addresses);
            names.reverse = service.addresses.iter().map(|address| (*address, None)).collect();
            let target = |port: &Port| Target {
                port: port.name.clone(),
                protocol: port.protocol.clone(),
                number: port.number,
                host: None,
            };
            names.targets = service.ports.iter().map(target).collect();
        }
        names
    }

    /// An endpoint of a headless Service is behind the Service's own name too.
    fn headless(&mut self, slice: &Slice, label: &str, address: IpAddr) {
        add(&mut self.addresses, address);
        add(&mut self.reverse, (address, Some(label.to_owned())));
        for port in &slice.ports {
            let target = Target {
                port: port.name.clone(),
                protocol: port.protocol.clone(),
                number: port.number,
                host: Some(label.to_owned()),
            };
            // A host with two addresses is one target.
            add(&mut self.targets, target);
        }
    }

    /// True when the Service's own name resolves. A headless one without ready endpoints does not.
    pub(super) fn exist(&self) -> bool {
        self.alias.is_some() || !self.addresses.is_empty()
    }
}

fn add<T: PartialEq>(to: &mut Vec<T>, item: T) {
    if !to.contains(&item) {
        to.push(item);
    }
}

/// The label of an endpoint without a hostname: its address with dashes.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label of dashes stands for.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let separator = if label.split('-').count() == 4 && !label.contains("--") { "." } else { ":" };
    label.replace('-', separator).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_labels_and_back() {
        for (address, label) in
            [("10.1.2.3", "10-1-2-3"), ("fd00::1", "fd00--1"), ("1:2:3:4:5:6:7:8", "1-2-3-4-5-6-7-8")]
        {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(dashed(address), label);
            assert_eq!(undashed(label), Some(address));
        }
        for label in ["web", "10-1-2", "10-1-2-999", "1-2-3-4-5", ""] {
            assert_eq!(undashed(label), None, "{label}");
        }
    }
}
