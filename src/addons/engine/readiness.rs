//! Does an addon work? Its checks, asked again until they pass or there is no more hope.

mod ask;
mod pods;
mod rollout;

use super::apply::NAMESPACE;
use super::cluster::{Cluster, Id};
use super::{Error, Steps};
use rollout::Progress;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks: soon at first, when most becomes ready.
const SOON: Duration = Duration::from_millis(40);
const LATER: Duration = Duration::from_millis(250);
const SOON_FOR: Duration = Duration::from_secs(10);
/// A container that ends right after its start is ready for a moment, where nothing probes it.
const SETTLED_AFTER: Duration = Duration::from_millis(1500);
/// A pod that fails in the same way for this long will not mend itself.
const HOPELESS_AFTER: Duration = Duration::from_secs(15);

/// One check, as in `addon.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Check {
    Rollout(Workload),
    Dns(Dns),
    Http(Http),
    Exists(Exists),
    /// The same for what is made when it is asked for: not asked again by a look at the addon's status.
    Answers(Exists),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    kind: WorkloadKind,
    #[serde(default = "usual_namespace")]
    namespace: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum WorkloadKind {
    Deployment,
    DaemonSet,
    StatefulSet,
    Job,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    /// An address or a Service, with or without a port.
    server: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    url: String,
    /// None: any below 400.
    status: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exists {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
    condition: Option<String>,
}

fn usual_namespace() -> String {
    NAMESPACE.to_owned()
}

/// What one look at a check found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// With the sentence for the user.
    Passed(String),
    /// With what is missing.
    NotYet(String),
    /// It fails, and may not mend itself.
    Failing(String),
    /// It will never pass.
    Hopeless(String),
}

impl Workload {
    fn id(&self) -> Id {
        let (api_version, kind) = match self.kind {
            WorkloadKind::Deployment => ("apps/v1", "Deployment"),
            WorkloadKind::DaemonSet => ("apps/v1", "DaemonSet"),
            WorkloadKind::StatefulSet => ("apps/v1", "StatefulSet"),
            WorkloadKind::Job => ("batch/v1", "Job"),
        };
        Id::new(api_version, kind, Some(&self.namespace), &self.name)
    }

    async fn look(&self, cluster: &Cluster) -> Result<Look, Error> {
        let id = self.id();
        let Some(object) = cluster.get(&id).await? else {
            return Ok(Look::Hopeless(format!("{id} is not there; was the addon disabled meanwhile?")));
        };
        Ok(match rollout::progress(&object) {
            Progress::Done => match pods::flapping(cluster, &object).await? {
                Some(what) => Look::Failing(format!("{id}: {what}")),
                None => Look::Passed(format!("{id} is ready")),
            },
            Progress::Failed(why) => Look::Hopeless(format!("{id} failed: {why}")),
            Progress::Waiting(how_far) => {
                let told = format!("{id}: {how_far}");
                match pods::trouble(cluster, &object).await? {
                    Some(pods::Trouble { what, lasting: true }) => Look::Failing(format!("{told}: {what}")),
                    Some(pods::Trouble { what, lasting: false }) => Look::NotYet(format!("{told}: {what}")),
                    None => Look::NotYet(told),
                }
            }
        })
    }
}

impl Exists {
    async fn look(&self, cluster: &Cluster) -> Result<Look, Error> {
        let namespaced = cluster.served(&self.api_version, &self.kind).await?.is_some_and(|served| served.namespaced);
        let namespace = namespaced.then(|| self.namespace.as_deref().unwrap_or(NAMESPACE));
        let id = Id::new(&self.api_version, &self.kind, namespace, &self.name);
        let Some(object) = cluster.get(&id).await? else { return Ok(Look::NotYet(format!("{id} is not there yet"))) };
        let Some(wanted) = &self.condition else { return Ok(Look::Passed(format!("{id} is there"))) };
        Ok(match condition(&object, wanted) {
            Some(found) if found["status"] == "True" => Look::Passed(format!("{id} is {wanted}")),
            Some(found) => Look::NotYet(format!("{id} is not {wanted}: {}", said(found))),
            None => Look::NotYet(format!("{id} is not {wanted} yet")),
        })
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// A condition's reason and message.
fn said(condition: &Value) -> String {
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    match (text("reason"), text("message")) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

impl Check {
    async fn look(&self, cluster: &Cluster) -> Result<Look, Error> {
        match self {
            Self::Rollout(check) => check.look(cluster).await,
            Self::Exists(check) => check.look(cluster).await,
            Self::Answers(check) => {
                Ok(check.look(cluster).await.unwrap_or_else(|error| Look::NotYet(error.to_string())))
            }
            Self::Dns(check) => Ok(match ask::dns(cluster, &check.server, &check.name).await {
                Ok(server) => Look::Passed(format!("{server} answers for {}", check.name)),
                Err(why) => Look::NotYet(format!("no answer for {} from {}: {why}", check.name, check.server)),
            }),
            Self::Http(check) => Ok(match ask::http(cluster, &check.url, check.status).await {
                Ok(status) => Look::Passed(format!("{} answers {status}", check.url)),
                Err(why) => Look::NotYet(format!("{} does not answer as it should: {why}", check.url)),
            }),
        }
    }

    /// What is not well now, of checks that cost no more than a look at the API.
    pub(super) async fn complaint(&self, cluster: &Cluster) -> Option<String> {
        let look = match self {
            Self::Rollout(check) => check.look(cluster).await,
            Self::Exists(check) => check.look(cluster).await,
            Self::Dns(_) | Self::Http(_) | Self::Answers(_) => return None,
        };
        match look {
            Ok(Look::Passed(_)) => None,
            Ok(Look::NotYet(why) | Look::Failing(why) | Look::Hopeless(why)) => Some(why),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Waits until all `checks` pass, in order.
///
/// # Errors
/// With the cause that was seen last.
pub(super) async fn wait(
    cluster: &Cluster,
    checks: &[Check],
    limit: Option<Duration>,
    steps: &Steps,
) -> Result<(), Error> {
    let begun = Instant::now();
    if !checks.is_empty() && !node_is_ready(cluster).await? {
        steps.say("waits for the node to be ready".to_owned());
    }
    for check in checks {
        let how = until_passed(cluster, check, begun, limit).await?;
        steps.say(how);
    }
    let answered = checks.iter().any(|check| matches!(check, Check::Dns(_) | Check::Http(_) | Check::Answers(_)));
    if !answered && checks.iter().any(|check| matches!(check, Check::Rollout(_))) {
        sleep(SETTLED_AFTER).await;
        for check in checks {
            until_passed(cluster, check, begun, limit).await?;
        }
    }
    Ok(())
}

/// How it passed.
async fn until_passed(
    cluster: &Cluster,
    check: &Check,
    begun: Instant,
    limit: Option<Duration>,
) -> Result<String, Error> {
    let mut failing: Option<Instant> = None;
    loop {
        let why = match check.look(cluster).await? {
            Look::Passed(how) => return Ok(how),
            Look::Hopeless(why) => return Err(Error::NotWorking(why)),
            Look::Failing(why) => {
                if failing.get_or_insert_with(Instant::now).elapsed() > HOPELESS_AFTER {
                    return Err(Error::NotWorking(why));
                }
                why
            }
            Look::NotYet(why) => {
                failing = None;
                why
            }
        };
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            return Err(Error::NotWorking(format!("{why} (waited {} s)", begun.elapsed().as_secs())));
        }
        sleep(if begun.elapsed() < SOON_FOR { SOON } else { LATER }).await;
    }
}

async fn node_is_ready(cluster: &Cluster) -> Result<bool, Error> {
    let nodes = cluster.list("v1", "Node", None, "").await?;
    Ok(nodes.iter().any(|node| condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")))
}

/// The address that `host` means: itself, or a Service's by `<service>.<namespace>.svc`.
async fn address(cluster: &Cluster, host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(address);
    }
    let named = host.strip_suffix(".svc").and_then(|rest| rest.split_once('.'));
    let Some((service, namespace)) = named else {
        return Err(format!("{host:?} is neither an address nor <service>.<namespace>.svc"));
    };
    let id = Id::new("v1", "Service", Some(namespace), service);
    let found = cluster.get(&id).await.map_err(|error| error.to_string())?.ok_or(format!("{id} is not there"))?;
    let address = found["spec"]["clusterIP"].as_str().unwrap_or_default();
    address.parse().map_err(|_| format!("{id} has no address"))
}
