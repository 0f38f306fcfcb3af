//! Certificate requests that were approved, signed by the cluster's authority for upstream's signers; and requests that
//! have served, or that nobody looks at, removed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use mini_client::{Cache, Caches, Client};

use crate::Config;
use crate::driver::{Key, Outcome, Source, Writes, optional};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Upstream's `--cluster-signing-duration`: nothing is signed for longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);
/// How long requests are kept after they were decided, and how long undecided ones.
const DECIDED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// What is to be signed: the request as it was sent (PEM), for what, and for how long.
#[derive(Clone, Debug)]
pub struct Signing {
    pub request: Vec<u8>,
    pub usages: Vec<String>,
    pub life: Duration,
}

/// What a request asks for, of which the signers of kubelets have rules.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

/// The authority.
pub trait Authority: Send + Sync {
    /// # Errors
    /// Why it is no request.
    fn subject(&self, request: &[u8]) -> Result<Subject, String>;
    /// The certificate, PEM.
    ///
    /// # Errors
    /// Why it cannot be signed.
    fn sign(&self, signing: &Signing) -> Result<String, String>;
}

/// An authority that has no key.
impl Authority for () {
    fn subject(&self, _: &[u8]) -> Result<Subject, String> {
        Err("nothing is signed here".to_owned())
    }

    fn sign(&self, _: &Signing) -> Result<String, String> {
        Err("nothing is signed here".to_owned())
    }
}

pub(crate) struct Controller {
    client: Client,
    requests: Cache<CertificateSigningRequest>,
    config: Arc<Config>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, config: &Arc<Config>) -> Self {
        Self { client: client.clone(), requests: caches.of(), config: config.clone() }
    }

    fn signed(&self, request: &CertificateSigningRequest) -> Result<String, String> {
        let spec = &request.spec;
        let usages = spec.usages.clone().unwrap_or_default();
        let subject = self.config.authority.subject(&spec.request.0)?;
        allowed(&spec.signer_name, &subject, &usages)?;
        let wished = spec.expiration_seconds.and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs);
        let life = wished.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
        self.config.authority.sign(&Signing { request: spec.request.0.clone(), usages, life })
    }
}

/// The rules of a signer, in upstream's words.
fn allowed(signer: &str, subject: &Subject, usages: &[String]) -> Result<(), String> {
    if signer == CLIENT {
        for usage in usages {
            if !matches!(usage.as_str(), "digital signature" | "key encipherment" | "client auth") {
                return Err(format!("invalid usage for client certificate: {usage}"));
            }
        }
        let has = usages.iter().any(|usage| usage == "client auth");
        return if has { Ok(()) } else { Err("missing required usage for client certificate: client auth".to_owned()) };
    }
    let refused = |why: &str| Err(why.to_owned());
    if subject.organizations != ["system:nodes"] {
        return refused("subject organization is not system:nodes");
    }
    if !subject.common_name.starts_with("system:node:") {
        return refused("subject common name does not begin with system:node:");
    }
    if subject.emails > 0 {
        return refused("email subjectAltNames are not allowed");
    }
    if subject.uris > 0 {
        return refused("URI subjectAltNames are not allowed");
    }
    let purpose = if signer == KUBELET_SERVING { "server auth" } else { "client auth" };
    if signer == KUBELET_SERVING {
        if subject.dns_names + subject.addresses == 0 {
            return refused("at least one DNS or IP subjectAltName is required");
        }
    } else if subject.addresses > 0 {
        return refused("IP subjectAltNames are not allowed");
    } else if subject.dns_names > 0 {
        return refused("DNS subjectAltNames are not allowed");
    }
    let required = ["digital signature", purpose];
    let known = |usage: &String| usage == "key encipherment" || required.contains(&usage.as_str());
    if usages.iter().all(known) && required.iter().all(|usage| usages.iter().any(|u| u == usage)) {
        Ok(())
    } else {
        Err(format!(
            "usages did not match [digital signature {purpose}] or [digital signature key encipherment {purpose}]"
        ))
    }
}

/// What stands in the way of a request, or has become of it.
struct Standing {
    approved: bool,
    decided: bool,
    issued: bool,
    /// Since when.
    since: jiff::Timestamp,
}

fn standing(request: &CertificateSigningRequest) -> Standing {
    let status = request.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let has = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    let created = request.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let changed = conditions.iter().filter_map(|c| c.last_update_time.as_ref()).map(|t| t.0).max();
    Standing {
        approved: has("Approved") && !has("Denied"),
        decided: has("Denied") || has("Failed"),
        issued: status.certificate.is_some_and(|c| !c.0.is_empty()),
        since: changed.or(created).unwrap_or_else(jiff::Timestamp::now),
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "certificate-signing"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.requests)]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(None) };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let now = standing(&request);
        let ours = matches!(request.spec.signer_name.as_str(), CLIENT | KUBELET_CLIENT | KUBELET_SERVING);
        if ours && now.approved && !now.decided && !now.issued {
            let mut decided = request.as_ref().clone();
            let status = decided.status.get_or_insert_default();
            match self.signed(&request) {
                Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
                Err(why) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                    type_: "Failed".to_owned(),
                    status: "True".to_owned(),
                    reason: Some("SignerValidationFailure".to_owned()),
                    message: Some(why),
                    ..CertificateSigningRequestCondition::default()
                }),
            }
            let written = api.replace_status(&key.name, &PostParams::default(), &decided).await;
            if let Some(written) = optional(written)? {
                writes.wrote(&self.requests, &written);
            }
            return Ok(None);
        }
        // As upstream, which leaves what waits for its signer.
        if now.approved && !now.decided && !now.issued {
            return Ok(None);
        }
        let keep = if now.decided || now.issued { DECIDED } else { PENDING };
        let age = jiff::Timestamp::now().as_second() - now.since.as_second();
        let left = keep.saturating_sub(Duration::from_secs(u64::try_from(age).unwrap_or(0)));
        if !left.is_zero() {
            return Ok(Some(left));
        }
        let preconditions = Preconditions {
            uid: request.metadata.uid.clone(),
            resource_version: request.metadata.resource_version.clone(),
        };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        optional(api.delete(&key.name, &params).await)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Running, condition};
    use serde_json::{Value, json};

    struct Stamp;

    impl Authority for Stamp {
        fn subject(&self, request: &[u8]) -> Result<Subject, String> {
            Ok(Subject {
                common_name: String::from_utf8_lossy(request).into_owned(),
                organizations: vec!["system:nodes".to_owned()],
                ..Subject::default()
            })
        }

        fn sign(&self, signing: &Signing) -> Result<String, String> {
            Ok(format!("{} for {}", String::from_utf8_lossy(&signing.request), signing.life.as_secs()))
        }
    }

    fn request(name: &str, approved: bool) -> Value {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(name);
        let conditions = if approved { json!([{"type": "Approved", "status": "True"}]) } else { json!([]) };
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name.replace(':', "."), "creationTimestamp": jiff::Timestamp::now().to_string()},
            "spec": {"request": text, "signerName": KUBELET_CLIENT, "expirationSeconds": 700,
                "usages": ["digital signature", "client auth"]},
            "status": {"conditions": conditions}})
    }

    #[tokio::test]
    async fn what_is_approved_is_signed_and_what_breaks_a_rule_fails() {
        let running =
            Running::new(&[request("system:node:a", true), request("somebody", true), request("system:node:b", false)]);
        let config = crate::Config {
            cluster_ca: String::new(),
            sign_legacy_token: Arc::new(|_| Err("none".to_owned())),
            authority: Arc::new(Stamp),
            finished_pods: 1,
            simulated: None,
            node: crate::fake::node(),
        };
        running.start(Controller::new(&running.client, &running.caches, &Arc::new(config)));
        let done = |all: &[Value]| {
            let of = |name: &str| crate::fake::named(all, name).clone();
            of("system.node.a")["status"]["certificate"].is_string()
                && condition(&of("somebody"), "Failed")["message"]
                    == "subject common name does not begin with system:node:"
                && of("system.node.b")["status"]["certificate"].is_null()
        };
        running.api.until("certificatesigningrequests", done).await;
    }

    #[test]
    fn rules_of_the_signers() {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let none = Subject::default();
        assert!(allowed(CLIENT, &none, &words(&["client auth"])).is_ok());
        let said = allowed(CLIENT, &none, &words(&["server auth"])).unwrap_err();
        assert_eq!(said, "invalid usage for client certificate: server auth");
        let node = Subject {
            common_name: "system:node:n".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: 1,
            ..Subject::default()
        };
        let serving = words(&["digital signature", "key encipherment", "server auth"]);
        assert!(allowed(KUBELET_SERVING, &node, &serving).is_ok());
        assert_eq!(allowed(KUBELET_CLIENT, &node, &serving).unwrap_err(), "DNS subjectAltNames are not allowed");
        let nameless = Subject { dns_names: 0, ..node };
        assert_eq!(
            allowed(KUBELET_SERVING, &nameless, &serving).unwrap_err(),
            "at least one DNS or IP subjectAltName is required"
        );
    }
}
