//! ServiceAccount.

use crate::columns::{self, AGE, Column, NAME, list};
use crate::resource::Hooks;
use mini_api::names;

pub(crate) const HOOKS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    columns: &[NAME, Column::text("Secrets", "Secrets that pods of this account may use."), AGE],
    cells: |v, now| vec![columns::name(v), list(v, &["secrets"]).len().into(), columns::age(v, now)],
    ..Hooks::NONE
};
