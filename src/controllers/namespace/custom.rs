//! Custom kinds are swept in the version they are stored in: nothing needs converting that is to be deleted.

use kube::core::{ApiResource, Request};
use mini_client::Client;
use serde::Deserialize;

use crate::served::Served;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[derive(Deserialize)]
struct Definitions {
    items: Vec<Definition>,
}

/// As much of a definition as a sweep must know.
#[derive(Deserialize)]
struct Definition {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Names {
    plural: String,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    served: bool,
    storage: bool,
}

/// Turns the rows of custom kinds to the versions in which their objects are stored, where those are served.
pub(super) async fn as_stored(client: &Client, served: &mut [Served]) -> Result<(), kube::Error> {
    let request =
        Request::new(DEFINITIONS).list(&kube::api::ListParams::default()).map_err(kube::Error::BuildRequest)?;
    let definitions = client.request::<Definitions>(request).await?;
    turn(&definitions, served);
    Ok(())
}

fn turn(definitions: &Definitions, served: &mut [Served]) {
    for Definition { spec } in &definitions.items {
        let Some(stored) = spec.versions.iter().find(|version| version.storage && version.served) else { continue };
        let of = |row: &&mut ApiResource| row.group == spec.group && row.plural == spec.names.plural;
        for row in served.iter_mut().map(|row| &mut row.resource).filter(of) {
            row.version.clone_from(&stored.name);
            row.api_version = format!("{}/{}", spec.group, stored.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn custom_kinds_are_asked_in_the_version_they_are_stored_in() {
        let row = |group: &str, plural: &str| Served {
            resource: ApiResource {
                group: group.to_owned(),
                version: "v2".to_owned(),
                api_version: format!("{group}/v2"),
                kind: String::new(),
                plural: plural.to_owned(),
            },
            namespaced: true,
            verbs: Vec::new(),
        };
        let definition = |plural: &str, served: bool| {
            json!({"spec": {"group": "a.b", "names": {"plural": plural}, "versions": [
                {"name": "v2", "served": true, "storage": false}, {"name": "v1", "served": served, "storage": true}]}})
        };
        let definitions = json!({"items": [definition("foos", true), definition("bars", false)]});
        let mut served = [row("a.b", "foos"), row("a.b", "bars"), row("c.d", "foos")];
        turn(&serde_json::from_value(definitions).unwrap(), &mut served);
        let asked: Vec<_> = served.iter().map(|row| row.resource.api_version.as_str()).collect();
        assert_eq!(asked, ["a.b/v1", "a.b/v2", "c.d/v2"]);
    }
}
