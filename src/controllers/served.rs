//! Which kinds the server serves, asked by discovery, so that new rows and custom kinds just work.

use std::collections::HashSet;

use kube::Client;
use kube::core::ApiResource;

/// One served kind, in its group's preferred version where that has it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// All kinds, and what went wrong with groups that could not be asked.
pub(crate) async fn discover(client: &Client) -> Result<(Vec<Served>, Vec<String>), kube::Error> {
    let core = async { ("v1".to_owned(), client.list_core_api_resources("v1").await) };
    let groups = client.list_api_groups().await?;
    let versions = groups.groups.iter().flat_map(|group| {
        let (first, rest): (Vec<_>, Vec<_>) =
            group.versions.iter().partition(|version| Some(*version) == group.preferred_version.as_ref());
        first.into_iter().chain(rest).map(|version| version.group_version.clone())
    });
    let others = versions.map(|version| async {
        let list = client.list_api_group_resources(&version).await;
        (version, list)
    });
    let (core, others) = tokio::join!(core, futures::future::join_all(others));
    let (mut served, mut failures) = (Vec::<Served>::new(), Vec::new());
    let mut seen = HashSet::new();
    for (version, list) in std::iter::once(core).chain(others) {
        let list = match list {
            Ok(list) => list,
            Err(error) => {
                failures.push(format!("{version}: {}", crate::driver::message(&error)));
                continue;
            }
        };
        let (group, number) = version.split_once('/').unwrap_or(("", &version));
        for row in list.resources.into_iter().filter(|row| !row.name.contains('/')) {
            if !seen.insert((group.to_owned(), row.name.clone())) {
                continue;
            }
            served.push(Served {
                resource: ApiResource {
                    group: group.to_owned(),
                    version: number.to_owned(),
                    api_version: version.clone(),
                    kind: row.kind,
                    plural: row.name,
                },
                namespaced: row.namespaced,
                verbs: row.verbs,
            });
        }
    }
    Ok((served, failures))
}
