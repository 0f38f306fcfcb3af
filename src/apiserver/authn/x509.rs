//! Client certificates: CN is the user (of several the last, as Go reads them), every O a group.

use crate::{Error, UserInfo};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verified certificates kept, so that a connection's second request costs a hash and no signature.
const KEPT: usize = 1024;

pub(super) struct X509 {
    verifier: Arc<dyn ClientCertVerifier>,
    /// By digest of the leaf, with the second in which it ends.
    verified: Mutex<HashMap<[u8; 32], (UserInfo, i64)>>,
}

impl X509 {
    pub(super) fn new(ca: &Path) -> Result<Self, Error> {
        let damaged = |why: String| Error::Material { path: ca.to_owned(), what: "client CA", why };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| damaged(e.to_string()))? {
            let certificate = certificate.map_err(|e| damaged(e.to_string()))?;
            roots.add(certificate).map_err(|e| damaged(e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| damaged(e.to_string()))?;
        Ok(Self { verifier, verified: Mutex::default() })
    }

    pub(super) fn user(&self, chain: &[CertificateDer<'static>]) -> Result<UserInfo, String> {
        let [leaf, intermediates @ ..] = chain else { return Err("no certificate".to_owned()) };
        let digest: [u8; 32] = Sha256::digest(leaf).into();
        let now = UnixTime::now();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if let Some((user, end)) = self.verified.lock().get(&digest)
            && *end >= seconds
        {
            return Ok(user.clone());
        }
        self.verifier.verify_client_cert(leaf, intermediates, now).map_err(|e| e.to_string())?;
        let (user, end) = read(leaf, &digest)?;
        let mut verified = self.verified.lock();
        if verified.len() >= KEPT {
            verified.clear();
        }
        verified.insert(digest, (user.clone(), end));
        Ok(user)
    }
}

fn read(leaf: &[u8], digest: &[u8; 32]) -> Result<(UserInfo, i64), String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    let subject = certificate.subject();
    // A name that cannot be read is refused, not skipped: another one would speak for it.
    let unread = |_| "the certificate has a name in an encoding that is not supported".to_owned();
    let name = subject.iter_common_name().map(|cn| cn.as_str().map_err(unread)).last().unwrap_or(Ok(""))?;
    if name.is_empty() {
        return Err("the certificate has no common name".to_owned());
    }
    let groups = subject.iter_organization().map(|o| o.as_str().map_err(unread)).collect::<Result<Vec<_>, _>>()?;
    let mut user = UserInfo::new(name, &groups);
    let id = format!("X509SHA256={}", hex::encode(digest));
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![id]);
    Ok((user, certificate.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).unwrap().map(|c| c.unwrap()).collect()
    }

    #[test]
    fn certificates_of_our_authority_only() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let subjects = crate::tokens::tests::subjects();
        let pki = mini_pki::Pki::ensure(ours.path(), &subjects).unwrap();
        let other = mini_pki::Pki::ensure(theirs.path(), &subjects).unwrap();
        let x509 = X509::new(&pki.ca).unwrap();
        for _ in 0..2 {
            let user = x509.user(&chain(&pki.admin.cert)).unwrap();
            assert_eq!(user.name, "kubernetes-admin");
            assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        }
        assert_eq!(x509.user(&chain(&pki.kubelet_client.cert)).unwrap().name, "system:node:n1");
        assert!(x509.user(&chain(&other.admin.cert)).is_err());
        // A serving certificate is none for a client.
        assert!(x509.user(&chain(&pki.apiserver.cert)).is_err());
        assert!(x509.user(&[]).is_err());
    }

    #[test]
    fn the_last_common_name_counts() {
        use base64::Engine;
        // Of /CN=first/O=one/CN=last/O=two.
        let text = "MIIBzDCCAXOgAwIBAgIUZoeu8pLvYz1sISkuA/80XMGFRykwCgYIKoZIzj0EAwIwOzEOMAwGA1UEAwwFZmlyc3QxDDAKBgNVBAoM\
             A29uZTENMAsGA1UEAwwEbGFzdDEMMAoGA1UECgwDdHdvMCAXDTI2MTEyMjIyMTcyM1oYDzIxMjYxMDI5MjIxNzIzWjA7MQ4wDAYD\
             VQQDDAVmaXJzdDEMMAoGA1UECgwDb25lMQ0wCwYDVQQDDARsYXN0MQwwCgYDVQQKDAN0d28wWTATBgcqhkjOPQIBBggqhkjOPQMB\
             BwNCAAQ4TakxPMd8jd4dNROSnysh5NVaf0GWrbNrcvt5Tsev6mKkvLECAnATOd1Qdb4lLALwwENdlE5wNSd8CWuifEUfo1MwUTAd\
             BgNVHQ4EFgQUdqmbZ8EYJTN5uF/FtUfsz25OYD0wHwYDVR0jBBgwFoAUdqmbZ8EYJTN5uF/FtUfsz25OYD0wDwYDVR0TAQH/BAUw\
             AwEB/zAKBggqhkjOPQQDAgNHADBEAiBca7oLMlA+d5Hn43CreK2ABAw3hcuzvMBbbsIHhrbu3QIgLjOwgT5jUq57pwJKPuvjnc8R\
             Lq8Z5zc/0IzOuF+mDVA=";
        let der = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let (user, _) = read(&der, &[0; 32]).unwrap();
        assert_eq!((user.name.as_str(), &user.groups[..2]), ("last", ["one".to_owned(), "two".to_owned()].as_slice()));
        // The same with a name whose text is of a kind (T61) that is not read.
        for name in [b"\x0c\x04last".as_slice(), b"\x0c\x03two"] {
            let mut other = der.clone();
            let at = other.windows(name.len()).rposition(|bytes| bytes == name).unwrap();
            other[at] = 0x14;
            assert!(read(&other, &[0; 32]).is_err());
        }
    }
}
