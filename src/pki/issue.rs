//! Making keys and certificates.

use crate::inspect::Leaf;
use crate::{Error, Pair, file};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
const LEAF_LIFE: Duration = Duration::from_secs(2 * 365 * DAY.as_secs());
/// A certificate with less life left is re-issued at start. Certificates are only looked at then, so this is how long one run may last.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// Clocks of clients may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
}

/// What a certificate is wanted for.
pub(crate) struct Profile {
    common_name: String,
    organization: Option<&'static str>,
    /// Sorted, without repeats.
    sans: Vec<String>,
    usage: Usage,
}

impl Profile {
    pub(crate) fn new(common_name: &str, organization: Option<&'static str>, sans: Vec<String>, usage: Usage) -> Self {
        Self { common_name: common_name.to_owned(), organization, sans, usage }
    }
}

/// The cluster's CA, ready to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Leaf,
}

impl Authority {
    /// Loads the CA, or makes it where there is none at all.
    pub(crate) fn ensure(pair: &Pair) -> Result<Self, Error> {
        let (cert, key) = match (file::read_if_present(&pair.cert)?, file::read_if_present(&pair.key)?) {
            (Some(cert), Some(key)) => (cert, key),
            // A key without a certificate is the trace of a first start that was cut off: nothing was signed yet.
            (None, _) => Self::create(pair)?,
            (Some(_), None) => return Err(damaged(pair, "its key is missing")),
        };
        let key = KeyPair::from_pem(&key).map_err(|e| damaged(pair, &format!("key: {e}")))?;
        let certificate = Leaf::read(&cert).ok_or_else(|| damaged(pair, "not a PEM certificate"))?;
        if !certificate.is_authority() {
            return Err(damaged(pair, "the certificate is not one of a CA"));
        }
        if certificate.public_key != key.subject_public_key_info() {
            return Err(damaged(pair, "certificate and key do not belong together"));
        }
        if certificate.not_after <= SystemTime::now() {
            return Err(damaged(pair, "it has expired, or the clock is wrong"));
        }
        let issuer = Issuer::from_ca_cert_pem(&cert, key).map_err(|e| damaged(pair, &e.to_string()))?;
        Ok(Self { issuer, certificate })
    }

    fn create(pair: &Pair) -> Result<(String, String), Error> {
        let failed = |source| Error::Issue { subject: "the certificate authority".to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        // The name carries a part of the key's digest: two clusters' CAs in one trust store stay apart.
        let digest = params.key_identifier(&key);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("mini-ca-{}", hex::encode(digest.get(..4).unwrap_or_default())));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + AUTHORITY_LIFE).into());
        let cert = params.self_signed(&key).map_err(failed)?;
        let (cert, key) = (cert.pem(), key.serialize_pem());
        file::write_private(&pair.key, &key)?;
        file::write_public(&pair.cert, &cert)?;
        Ok((cert, key))
    }

    /// Issues `pair` anew unless it fits `profile`, belongs together, is ours and lives long enough.
    pub(crate) fn ensure_leaf(&self, pair: &Pair, profile: &Profile) -> Result<(), Error> {
        let (cert, key) = (file::read_if_present(&pair.cert)?, file::read_if_present(&pair.key)?);
        if let (Some(cert), Some(key)) = (cert, key)
            && self.serves(&cert, &key, profile)
        {
            return Ok(());
        }
        let (cert, key) = self.issue(profile)?;
        file::write_private(&pair.key, &key)?;
        file::write_public(&pair.cert, &cert)
    }

    fn serves(&self, cert: &str, key: &str, wanted: &Profile) -> bool {
        let (Some(leaf), Ok(key)) = (Leaf::read(cert), KeyPair::from_pem(key)) else { return false };
        leaf.public_key == key.subject_public_key_info()
            && leaf.common_name == wanted.common_name
            && leaf.organization == wanted.organization.unwrap_or_default()
            && leaf.sans == wanted.sans
            && leaf.not_after > SystemTime::now() + RENEW_BEFORE
            && leaf.is_signed_by(&self.certificate)
    }

    fn issue(&self, profile: &Profile) -> Result<(String, String), Error> {
        let failed = |source| Error::Issue { subject: profile.common_name.clone(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(profile.sans.clone()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, profile.common_name.as_str());
        if let Some(organization) = profile.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match profile.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        let end = (now + LEAF_LIFE).min(self.certificate.not_after);
        (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), end.into());
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

/// A certificate of nobody's authority, and its key, as PEM text: for servers that no client verifies.
pub(crate) fn self_signed(common_name: &str, sans: &[&str]) -> Result<(String, String), Error> {
    let failed = |source| Error::Issue { subject: common_name.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let sans: Vec<String> = sans.iter().copied().map(str::to_owned).collect();
    let mut params = CertificateParams::new(sans).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + LEAF_LIFE).into());
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// The key that signs service account tokens. An unreadable one is an error: replacing it would void every token.
pub(crate) fn ensure_signing_key(pair: &Pair) -> Result<(), Error> {
    let failed = |source| Error::Issue { subject: "the service account key".to_owned(), source };
    let key = match file::read_if_present(&pair.key)? {
        Some(text) => KeyPair::from_pem(&text).map_err(failed)?,
        None => {
            let key = KeyPair::generate().map_err(failed)?;
            file::write_private(&pair.key, &key.serialize_pem())?;
            key
        }
    };
    let public = key.public_key_pem();
    if file::read_if_present(&pair.cert)?.as_deref() != Some(public.as_str()) {
        file::write_public(&pair.cert, &public)?;
    }
    Ok(())
}

fn damaged(pair: &Pair, why: &str) -> Error {
    Error::Authority { path: pair.cert.clone(), why: why.to_owned() }
}
