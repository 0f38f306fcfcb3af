//! Lease.

use crate::check::At;
use crate::columns::{self, AGE, Column, NAME};
use crate::resource::Hooks;
use mini_api::{Meta, names};

pub(crate) const HOOKS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        let duration = spec.get("leaseDurationSeconds");
        if duration.int().is_some_and(|n| n <= 0) {
            errors.push(duration.invalid("must be greater than 0"));
        }
        spec.get("leaseTransitions").non_negative(errors);
    },
    columns: &[NAME, Column::text("Holder", "Who holds the lease."), AGE],
    cells: |v, now| vec![columns::name(v), v.text(&["spec", "holderIdentity"]).into(), columns::age(v, now)],
    ..Hooks::NONE
};
