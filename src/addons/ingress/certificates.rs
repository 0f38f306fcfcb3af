//! Which certificate a client is shown: by the name it asks for, else a self-signed one.

use super::table::Live;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// The certificates of one route table.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    hosts: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*.`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    /// For every other name; of an Ingress that names no host, else self-signed.
    fallback: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds the certificate of a host, of `*.` and a host's children, or (empty) of all others; the first one counts.
    pub(super) fn add(&mut self, host: &str, key: &Arc<CertifiedKey>) {
        let host = host.to_ascii_lowercase();
        match (host.as_str(), host.strip_prefix("*.")) {
            ("", _) => drop(self.fallback.get_or_insert_with(|| key.clone())),
            (_, Some(parent)) => drop(self.wildcards.entry(parent.to_owned()).or_insert_with(|| key.clone())),
            _ => drop(self.hosts.entry(host).or_insert_with(|| key.clone())),
        }
    }

    /// The certificate for a client that asks for `host`, or names none.
    pub(super) fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let of_host = host.and_then(|host| {
            let host = host.to_ascii_lowercase();
            let wildcard = || self.wildcards.get(host.split_once('.')?.1);
            self.hosts.get(&host).or_else(wildcard)
        });
        of_host.or(self.fallback.as_ref()).cloned()
    }
}

/// What rustls asks at each handshake.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Live>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.find(hello.server_name())
    }
}

/// A certificate that nobody trusts, for clients that ask for a name without one.
///
/// # Errors
/// When the machine has no randomness.
pub(super) fn self_signed() -> anyhow::Result<Arc<CertifiedKey>> {
    let pair = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["ingress.local".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "mini ingress, self-signed");
    let certificate = params.self_signed(&pair)?;
    let key = PrivateKeyDer::try_from(pair.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?)))
}

/// What one reading of a Secret gave: its revision, and the key or what is wrong with it.
type Reading = (Option<String>, Result<Arc<CertifiedKey>, String>);

/// The keys of Secrets, read once for each revision.
#[derive(Debug, Default)]
pub(super) struct Keys {
    read: HashMap<(String, String), Reading>,
}

impl Keys {
    /// The certificate and key that a Secret holds.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(super) fn of(&mut self, secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
        let meta = &secret.metadata;
        let name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        match self.read.get(&name) {
            Some((revision, reading)) if *revision == meta.resource_version => reading.clone(),
            _ => {
                let reading = read(secret);
                self.read.insert(name, (meta.resource_version.clone(), reading.clone()));
                reading
            }
        }
    }

    /// Forgets Secrets that are gone.
    pub(super) fn retain(&mut self, present: impl Fn(&str, &str) -> bool) {
        self.read.retain(|(namespace, name), _| present(namespace, name));
    }
}

fn read(secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
    let part = |name: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| format!("has no {name}"))
    };
    let chain = CertificateDer::pem_slice_iter(part("tls.crt")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("has a tls.crt that cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("has no certificate in its tls.crt".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(part("tls.key")?)
        .map_err(|error| format!("has a tls.key that cannot be read: {error}"))?;
    let key = any_supported_type(&key).map_err(|error| format!("has a tls.key that cannot be used: {error}"))?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        // A key whose public half cannot be told is taken at its word.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(key)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("holds a certificate and a key that do not belong together".to_owned())
        }
        Err(error) => Err(format!("has a tls.crt that cannot be used: {error}")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use std::collections::BTreeMap;

    /// A certificate for these names and its key, as PEM.
    pub(in crate::ingress) fn pair(names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn secret(revision: &str, certificate: &str, key: &str) -> Secret {
        let data = [("tls.crt", certificate), ("tls.key", key)];
        let data: BTreeMap<_, _> =
            data.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.into()))).collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.resource_version = Some(revision.to_owned());
        secret
    }

    #[test]
    fn names_choose_certificates() {
        let (own, wild, other) = (self_signed().unwrap(), self_signed().unwrap(), self_signed().unwrap());
        let mut all = Certificates::default();
        assert!(all.find(Some("a.b.c")).is_none());
        for (host, key) in [("A.b.c", &own), ("*.b.c", &wild), ("a.b.c", &other), ("", &other), ("", &own)] {
            all.add(host, key);
        }
        for (host, wanted) in [
            (Some("a.B.c"), &own),
            (Some("x.b.c"), &wild),
            (Some("y.x.b.c"), &other),
            (Some("b.c"), &other),
            (None, &other),
        ] {
            assert!(Arc::ptr_eq(&all.find(host).unwrap(), wanted), "{host:?}");
        }
    }

    #[test]
    fn secrets_are_read_once_and_what_is_wrong_is_said() {
        let (certificate, key) = pair(&["a.b"]);
        let mut keys = Keys::default();
        let first = keys.of(&secret("1", &certificate, &key)).unwrap();
        assert!(Arc::ptr_eq(&first, &keys.of(&secret("1", "", "")).unwrap()));
        let wrong = |keys: &mut Keys, revision: &str, certificate: &str, key: &str| {
            keys.of(&secret(revision, certificate, key)).unwrap_err()
        };
        assert_eq!(wrong(&mut keys, "2", "", &key), "has no tls.crt");
        assert_eq!(wrong(&mut keys, "3", "x", &key), "has no certificate in its tls.crt");
        assert!(wrong(&mut keys, "4", &certificate, "x").starts_with("has a tls.key that cannot be read"));
        let other = pair(&["a.b"]).1;
        assert!(wrong(&mut keys, "5", &certificate, &other).contains("do not belong together"));
        keys.retain(|_, _| false);
        assert!(keys.read.is_empty());
    }
}
