//! The cluster's own certificate authority and everything it signs.
//!
//! Owns the files below one directory: CA, serving and client certificates, the service account key, the admin
//! kubeconfig's text. Knows no Kubernetes API and no network. Invariant: [`Pki::ensure`] may run any number of times and be killed at any
//! moment; what it leaves is either the old pair or the new one, and a pair that does not fit together is issued anew.

mod file;
mod inspect;
mod issue;
mod kubeconfig;
mod sign;
mod trust;

pub use sign::{Request, Signer};
pub use trust::AnyCertificate;

use issue::{Authority, Profile, Usage};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Why the certificates could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot make the certificate of {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("{} is not a certificate authority that works ({why}); restore it, or remove the directory to make a new cluster identity", path.display())]
    Authority { path: PathBuf, why: String },
}

/// Who the certificates are for. Change any of it and the next [`Pki::ensure`] re-issues what names it.
#[derive(Clone, Debug)]
pub struct Subjects {
    pub node_name: String,
    pub host_name: String,
    /// `cluster.local`
    pub cluster_domain: String,
    /// The address of the Service `default/kubernetes`.
    pub service_ip: IpAddr,
    pub node_ips: Vec<IpAddr>,
    /// Further names or addresses the API server answers to.
    pub extra_sans: Vec<String>,
}

impl Subjects {
    fn apiserver_sans(&self) -> Vec<String> {
        let mut sans: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
        sans.push(format!("kubernetes.default.svc.{}", self.cluster_domain));
        sans.push(self.service_ip.to_string());
        sans.extend(self.extra_sans.iter().cloned());
        self.with_host(sans)
    }

    fn with_host(&self, mut sans: Vec<String>) -> Vec<String> {
        sans.extend(["localhost".to_owned(), self.host_name.clone(), self.node_name.clone()]);
        sans.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|ip| ip.to_string()));
        sans.extend(self.node_ips.iter().map(ToString::to_string));
        sans.retain(|san| !san.is_empty());
        sans.sort();
        sans.dedup();
        sans
    }
}

/// When the first certificate of a PEM text ends; `None` when it holds none.
#[must_use]
pub fn not_after(pem: &str) -> Option<std::time::SystemTime> {
    inspect::Leaf::read(pem).map(|leaf| leaf.not_after)
}

/// A certificate (or public key) and its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    fn in_dir(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    /// Certificate and key as PEM text.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> Result<(String, String), Error> {
        Ok((file::read(&self.cert)?, file::read(&self.key)?))
    }
}

/// A certificate and key for two years that no authority signed, as PEM text.
///
/// # Errors
/// When a name is none.
pub fn self_signed(common_name: &str, sans: &[&str]) -> Result<(String, String), Error> {
    issue::self_signed(common_name, sans)
}

/// Where everything is, once [`Pki::ensure`] has run.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The CA's certificate: what clients and servers of the cluster trust.
    pub ca: PathBuf,
    pub ca_key: PathBuf,
    /// Serving certificate of the API server.
    pub apiserver: Pair,
    /// Client certificate of `kubernetes-admin`, group `system:masters`.
    pub admin: Pair,
    /// Client certificate of `system:node:<name>`, group `system:nodes`.
    pub kubelet_client: Pair,
    pub kubelet_server: Pair,
    /// What the API server shows to kubelets.
    pub apiserver_kubelet: Pair,
    /// `key` signs service account tokens (ES256, PKCS#8); `cert` is its public key.
    pub service_account: Pair,
}

impl Pki {
    /// Makes every file that is missing, unreadable, about to expire or made for other subjects.
    ///
    /// # Errors
    /// When a file cannot be read or written, or an existing CA is damaged: that one is never replaced silently.
    pub fn ensure(dir: &Path, subjects: &Subjects) -> Result<Self, Error> {
        file::directory(dir)?;
        let ca = Pair::in_dir(dir, "ca");
        let authority = Authority::ensure(&ca)?;
        let pki = Self {
            ca: ca.cert,
            ca_key: ca.key,
            apiserver: Pair::in_dir(dir, "apiserver"),
            admin: Pair::in_dir(dir, "admin"),
            kubelet_client: Pair::in_dir(dir, "kubelet-client"),
            kubelet_server: Pair::in_dir(dir, "kubelet-server"),
            apiserver_kubelet: Pair::in_dir(dir, "apiserver-kubelet-client"),
            service_account: Pair { cert: dir.join("service-account.pub"), key: dir.join("service-account.key") },
        };
        let node = format!("system:node:{}", subjects.node_name);
        let client = |name: &str, group: &'static str| Profile::new(name, Some(group), Vec::new(), Usage::Client);
        for (pair, profile) in [
            (&pki.apiserver, Profile::new("kube-apiserver", None, subjects.apiserver_sans(), Usage::Server)),
            (&pki.admin, client("kubernetes-admin", "system:masters")),
            (&pki.kubelet_client, client(&node, "system:nodes")),
            (
                &pki.kubelet_server,
                Profile::new(&node, Some("system:nodes"), subjects.with_host(Vec::new()), Usage::Server),
            ),
            // Kubelets know it by its name. It has no rights at the API: a proxied request that comes back must not be root's.
            (&pki.apiserver_kubelet, Profile::new("kube-apiserver-kubelet-client", None, Vec::new(), Usage::Client)),
        ] {
            authority.ensure_leaf(pair, &profile)?;
        }
        issue::ensure_signing_key(&pki.service_account)?;
        Ok(pki)
    }

    /// The admin's kubeconfig for a server such as `https://127.0.0.1:16443`, everything it needs inside it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn admin_kubeconfig(&self, server: &str) -> Result<String, Error> {
        let (cert, key) = self.admin.read()?;
        Ok(kubeconfig::text(server, "admin", &file::read(&self.ca)?, &cert, &key))
    }

    /// The kubelet's kubeconfig, for a kubelet that talks HTTPS.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn kubelet_kubeconfig(&self, server: &str) -> Result<String, Error> {
        let (cert, key) = self.kubelet_client.read()?;
        Ok(kubeconfig::text(server, "kubelet", &file::read(&self.ca)?, &cert, &key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn subjects(ip: &str) -> Subjects {
        Subjects {
            node_name: "n1".into(),
            host_name: "host-1".into(),
            cluster_domain: "cluster.local".into(),
            service_ip: IpAddr::from([10, 152, 183, 1]),
            node_ips: vec![ip.parse().unwrap()],
            extra_sans: vec![],
        }
    }

    fn contents(dir: &Path) -> std::collections::BTreeMap<String, String> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path()).unwrap()))
            .collect()
    }

    #[test]
    fn a_second_run_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        let first = contents(dir.path());
        Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        assert_eq!(first, contents(dir.path()));
        assert_eq!(first.len(), 14, "{:?}", first.keys());
    }

    #[test]
    fn private_keys_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let private = entry.path().extension().is_some_and(|e| e == "key");
            assert_eq!(mode, if private { 0o600 } else { 0o644 }, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_new_address_re_issues_only_what_names_it() {
        let dir = tempfile::tempdir().unwrap();
        Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        let first = contents(dir.path());
        let pki = Pki::ensure(dir.path(), &subjects("192.0.2.8")).unwrap();
        let second = contents(dir.path());
        let changed: Vec<_> =
            first.iter().filter(|(k, v)| second.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
        assert_eq!(changed, ["apiserver.crt", "apiserver.key", "kubelet-server.crt", "kubelet-server.key"]);
        let leaf = inspect::Leaf::read(&std::fs::read_to_string(&pki.apiserver.cert).unwrap()).unwrap();
        for san in ["192.0.2.8", "::1", "10.152.183.1", "host-1", "kubernetes.default.svc.cluster.local"] {
            assert!(leaf.sans.iter().any(|s| s == san), "{san} is not among {:?}", leaf.sans);
        }
    }

    #[test]
    fn a_torn_pair_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        std::fs::copy(&pki.admin.key, &pki.kubelet_client.key).unwrap();
        std::fs::write(&pki.admin.cert, "rubbish").unwrap();
        let before = std::fs::read_to_string(&pki.kubelet_client.cert).unwrap();
        Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        assert_ne!(before, std::fs::read_to_string(&pki.kubelet_client.cert).unwrap());
        let admin = inspect::Leaf::read(&std::fs::read_to_string(&pki.admin.cert).unwrap()).unwrap();
        assert_eq!((admin.common_name.as_str(), admin.organization.as_str()), ("kubernetes-admin", "system:masters"));
    }

    #[test]
    fn a_damaged_authority_is_an_error_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        std::fs::write(&pki.ca_key, "rubbish").unwrap();
        let error = Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap_err();
        assert!(matches!(error, Error::Authority { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&pki.ca_key).unwrap(), "rubbish");
    }

    #[test]
    fn leaves_of_another_authority_are_replaced() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = Pki::ensure(one.path(), &subjects("192.0.2.7")).unwrap();
        let other = Pki::ensure(two.path(), &subjects("192.0.2.7")).unwrap();
        std::fs::copy(&other.ca, &pki.ca).unwrap();
        std::fs::copy(&other.ca_key, &pki.ca_key).unwrap();
        let before = std::fs::read_to_string(&pki.admin.cert).unwrap();
        Pki::ensure(one.path(), &subjects("192.0.2.7")).unwrap();
        assert_ne!(before, std::fs::read_to_string(&pki.admin.cert).unwrap());
    }

    #[test]
    fn kubeconfig_holds_everything() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(dir.path(), &subjects("192.0.2.7")).unwrap();
        let text = pki.admin_kubeconfig("https://127.0.0.1:16443").unwrap();
        for part in ["server: https://127.0.0.1:16443", "certificate-authority-data: LS0t", "client-key-data: LS0t"] {
            assert!(text.contains(part), "{part} is missing");
        }
    }
}
