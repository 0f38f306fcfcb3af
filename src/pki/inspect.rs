//! Reading certificates that exist, to decide whether they still serve.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, Pem, X509Certificate};
use x509_parser::x509::X509Name;

/// The parts of a certificate that decide about re-issuing.
pub(crate) struct Leaf {
    der: Vec<u8>,
    pub(crate) common_name: String,
    /// Empty when there is none.
    pub(crate) organization: String,
    /// Sorted, addresses in their canonical text.
    pub(crate) sans: Vec<String>,
    pub(crate) not_after: SystemTime,
    /// The subject's public key, as SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
}

impl Leaf {
    /// `None` when this is not a PEM certificate.
    pub(crate) fn read(pem: &str) -> Option<Self> {
        let (pem, _) = Pem::read(std::io::Cursor::new(pem)).ok()?;
        let (_, cert) = X509Certificate::from_der(&pem.contents).ok()?;
        let mut sans = Vec::new();
        for extension in cert.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                sans.extend(names.general_names.iter().filter_map(text));
            }
        }
        sans.sort();
        let not_after = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
        Some(Self {
            common_name: first(cert.subject().iter_common_name().next()),
            organization: first(cert.subject().iter_organization().next()),
            sans,
            not_after: UNIX_EPOCH + Duration::from_secs(not_after),
            public_key: cert.public_key().raw.to_vec(),
            der: pem.contents.clone(),
        })
    }

    /// Whether `authority` signed it.
    pub(crate) fn is_signed_by(&self, authority: &Leaf) -> bool {
        let (Ok((_, own)), Ok((_, issuer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        same_name(own.issuer(), issuer.subject()) && own.verify_signature(Some(issuer.public_key())).is_ok()
    }

    pub(crate) fn is_authority(&self) -> bool {
        X509Certificate::from_der(&self.der).is_ok_and(|(_, cert)| cert.is_ca())
    }
}

fn same_name(a: &X509Name<'_>, b: &X509Name<'_>) -> bool {
    a.as_raw() == b.as_raw()
}

fn first(attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>) -> String {
    attribute.and_then(|a| a.as_str().ok()).unwrap_or_default().to_owned()
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let ip: IpAddr = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok()?.into(),
                16 => <[u8; 16]>::try_from(*bytes).ok()?.into(),
                _ => return None,
            };
            Some(ip.to_string())
        }
        _ => None,
    }
}
