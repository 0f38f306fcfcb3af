//! Signing what others ask for: certificate requests (PKCS#10) that somebody approved.

use crate::{Error, Pair, Pki, file};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SigningKey};
use std::time::{Duration, SystemTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedCriAttribute, ParsedExtension, Pem, X509Certificate};
use yasna::models::{ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag};

/// Clocks of those who check may be behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
const EXTENSIONS: u64 = 3;
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALT_NAME: &[u64] = &[2, 5, 29, 17];
const CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_USAGE: &[u64] = &[2, 5, 29, 37];

/// Bits of a key usage, by their names in a CertificateSigningRequest.
const KEY_USAGES: [(&str, usize); 10] = [
    ("digital signature", 0),
    ("signing", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Extended usages: the last arc below `id-kp`.
const EXTENDED_USAGES: [(&str, u64); 9] = [
    ("server auth", 1),
    ("client auth", 2),
    ("code signing", 3),
    ("email protection", 4),
    ("s/mime", 4),
    ("ipsec end system", 5),
    ("ipsec tunnel", 6),
    ("ipsec user", 7),
    ("timestamping", 8),
];

/// What a certificate request says, its signature checked.
#[derive(Debug)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    /// The extension's value as it was asked for.
    alt_names: Option<Vec<u8>>,
}

impl Request {
    /// Reads a request from PEM.
    ///
    /// # Errors
    /// Why it is none, or not signed with its own key.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let (pem, _) = Pem::read(std::io::Cursor::new(pem)).map_err(|e| e.to_string())?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| e.to_string())?;
        request.verify_signature().map_err(|_| "the request is not signed with its own key".to_owned())?;
        let info = &request.certification_request_info;
        // What is signed is the subject as it came: who checks it and who reads the certificate must see the same names.
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            let why = "a common name or organization of the subject is in an encoding that is not signed";
            attribute.as_str().map(str::to_owned).map_err(|_| why.to_owned())
        };
        let mut names = info.subject.iter_common_name().map(text).collect::<Result<Vec<_>, _>>()?;
        let common_name = names.pop().unwrap_or_default();
        if !names.is_empty() {
            return Err("the subject has more than one common name".to_owned());
        }
        let mut read = Self {
            common_name,
            organizations: info.subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            dns_names: 0,
            addresses: 0,
            emails: 0,
            uris: 0,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alt_names: None,
        };
        let asked = info.iter_attributes().filter_map(|a| match a.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => Some(&asked.extensions),
            _ => None,
        });
        for extension in asked.flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => read.dns_names += 1,
                    GeneralName::IPAddress(_) => read.addresses += 1,
                    GeneralName::RFC822Name(_) => read.emails += 1,
                    GeneralName::URI(_) => read.uris += 1,
                    _ => return Err("a subject alternative name is of a kind that is not signed".to_owned()),
                }
            }
            read.alt_names = Some(extension.value.to_vec());
        }
        Ok(read)
    }
}

/// The cluster's authority, ready to sign.
pub struct Signer {
    key: KeyPair,
    algorithm: Vec<u8>,
    issuer: Vec<u8>,
    key_id: Option<Vec<u8>>,
    not_after: SystemTime,
}

impl Signer {
    /// Loads the cluster's authority.
    ///
    /// # Errors
    /// Its files cannot be read, or its key is of a kind that is not supported.
    pub fn load(pki: &Pki) -> Result<Self, Error> {
        let damaged = |why: &str| Error::Authority { path: pki.ca.clone(), why: why.to_owned() };
        let pair = Pair { cert: pki.ca.clone(), key: pki.ca_key.clone() };
        let (cert, key) = (file::read(&pair.cert)?, file::read(&pair.key)?);
        let key = KeyPair::from_pem(&key).map_err(|e| damaged(&format!("key: {e}")))?;
        let algorithm = algorithm(&key).ok_or_else(|| damaged("its key is of a kind that cannot sign requests"))?;
        let (pem, _) = Pem::read(std::io::Cursor::new(&cert)).map_err(|e| damaged(&e.to_string()))?;
        let (_, cert) = X509Certificate::from_der(&pem.contents).map_err(|e| damaged(&e.to_string()))?;
        let key_id = cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let end = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            key,
            algorithm,
            issuer: cert.subject().as_raw().to_vec(),
            key_id,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
        })
    }

    /// The certificate for `request`, as PEM, for `usages` in the words of a CertificateSigningRequest.
    ///
    /// # Errors
    /// A usage is unknown, or the key does not sign.
    pub fn sign(&self, request: &Request, usages: &[&str], life: Duration) -> Result<String, String> {
        let (mut bits, mut extended) = (Vec::new(), Vec::new());
        for usage in usages {
            if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
                bits.push(*bit);
            } else if let Some((_, arc)) = EXTENDED_USAGES.iter().find(|(name, _)| name == usage) {
                extended.push(*arc);
            } else {
                return Err(format!("the usage {usage:?} is not signed"));
            }
        }
        let now = SystemTime::now();
        let (start, end) = (now - BACKDATE, (now + life).min(self.not_after));
        let mut serial = [0_u8; 16];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut serial)
            .map_err(|_| "there is no randomness".to_owned())?;
        // Positive, and of one length.
        serial[0] = serial[0] & 0x7f | 0x40;
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                writer.next().write_der(&self.algorithm);
                writer.next().write_der(&self.issuer);
                writer.next().write_sequence(|writer| {
                    time(writer.next(), start);
                    time(writer.next(), end);
                });
                writer.next().write_der(&request.subject);
                writer.next().write_der(&request.public_key);
                writer.next().write_tagged(Tag::context(EXTENSIONS), |writer| {
                    writer.write_sequence(|writer| {
                        if !bits.is_empty() {
                            extension(writer.next(), KEY_USAGE, true, &key_usage(&bits));
                        }
                        if !extended.is_empty() {
                            extension(writer.next(), EXTENDED_USAGE, false, &extended_usage(&extended));
                        }
                        let leaf = yasna::construct_der(|writer| writer.write_sequence(|_| {}));
                        extension(writer.next(), CONSTRAINTS, true, &leaf);
                        if let Some(id) = &self.key_id {
                            let id = yasna::construct_der(|writer| {
                                writer.write_sequence(|writer| {
                                    writer.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(id));
                                });
                            });
                            extension(writer.next(), AUTHORITY_KEY, false, &id);
                        }
                        if let Some(names) = &request.alt_names {
                            extension(writer.next(), ALT_NAME, false, names);
                        }
                    });
                });
            });
        });
        let signature = self.key.sign(&body).map_err(|e| e.to_string())?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&self.algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&der))
    }
}

fn algorithm(key: &KeyPair) -> Option<Vec<u8>> {
    let own = rcgen::PublicKeyData::algorithm(key);
    let (id, null): (&[u64], bool) = if own == &PKCS_ECDSA_P256_SHA256 {
        (&[1, 2, 840, 10045, 4, 3, 2], false)
    } else if own == &PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10045, 4, 3, 3], false)
    } else if own == &PKCS_ED25519 {
        (&[1, 3, 101, 112], false)
    } else if own == &PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113_549, 1, 1, 11], true)
    } else {
        return None;
    };
    Some(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(id));
            if null {
                writer.next().write_null();
            }
        });
    }))
}

/// Authorities last ten years; the two digits of a UTCTime do until 2049.
fn time(writer: DERWriter<'_>, at: SystemTime) {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    writer.write_utctime(&UTCTime::from_datetime(whole.into()));
}

fn extension(writer: DERWriter<'_>, id: &[u64], critical: bool, value: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(id));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(value);
    });
}

/// Named bits, the first the highest of the first byte, without zeros at the end.
fn key_usage(bits: &[usize]) -> Vec<u8> {
    let length = bits.iter().max().map_or(0, |last| last + 1);
    let mut bytes = vec![0_u8; length.div_ceil(8)];
    for bit in bits {
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte |= 0x80 >> (bit % 8);
        }
    }
    yasna::construct_der(|writer| writer.write_bitvec_bytes(&bytes, length))
}

fn extended_usage(arcs: &[u64]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for arc in arcs {
                writer.next().write_oid(&ObjectIdentifier::from_slice(&[1, 3, 6, 1, 5, 5, 7, 3, *arc]));
            }
        });
    })
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: any cut is at a character.
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType};

    fn pki(dir: &std::path::Path) -> Pki {
        let subjects = crate::Subjects {
            node_name: "n".into(),
            host_name: "h".into(),
            cluster_domain: "cluster.local".into(),
            service_ip: [10, 152, 183, 1].into(),
            node_ips: vec![],
            extra_sans: vec![],
        };
        Pki::ensure(dir, &subjects).unwrap()
    }

    fn request(names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:n");
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_becomes_a_certificate_of_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let pki = pki(dir.path());
        let read = Request::read(request(&["a.example.com", "192.0.2.1"]).as_bytes()).unwrap();
        assert_eq!(
            (read.common_name.as_str(), read.organizations.as_slice()),
            ("system:node:n", &["system:nodes".to_owned()][..])
        );
        assert_eq!((read.dns_names, read.addresses, read.emails, read.uris), (1, 1, 0, 0));
        let signer = Signer::load(&pki).unwrap();
        let usages = ["digital signature", "key encipherment", "server auth"];
        let pem = signer.sign(&read, &usages, Duration::from_secs(3600)).unwrap();
        let (parsed, _) = Pem::read(std::io::Cursor::new(&pem)).unwrap();
        let (rest, cert) = X509Certificate::from_der(&parsed.contents).unwrap();
        assert!(rest.is_empty());
        let ca = file::read(&pki.ca).unwrap();
        let (ca, _) = Pem::read(std::io::Cursor::new(&ca)).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
        cert.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(cert.issuer().as_raw(), ca.subject().as_raw());
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        assert!(cert.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(!cert.is_ca());
        assert_eq!(cert.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
        let life = cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp();
        assert_eq!(life, 3600 + 300);
        assert!(signer.sign(&read, &["flying"], Duration::from_secs(3600)).is_err());
    }

    #[test]
    fn a_subject_that_can_be_read_in_two_ways_is_refused() {
        let read = |kind: DnType, value: rcgen::DnValue| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "system:node:n");
            params.distinguished_name.push(kind, value);
            let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
            Request::read(pem.as_bytes()).map(|read| read.common_name)
        };
        let other = || DnType::CustomDnType(vec![2, 5, 4, 11]);
        assert_eq!(read(other(), "unit".into()).unwrap(), "system:node:n");
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        assert_eq!(read(second, "system:admin".into()).unwrap_err(), "the subject has more than one common name");
        let wide = || rcgen::DnValue::BmpString("system:masters".try_into().unwrap());
        for kind in [DnType::OrganizationName, DnType::CommonName] {
            assert!(read(kind, wide()).unwrap_err().contains("encoding"));
        }
    }

    #[test]
    fn a_request_with_another_key_is_refused() {
        let (one, other) = (request(&["a.example.com"]), request(&["b.example.com"]));
        let der = |pem: &str| Pem::read(std::io::Cursor::new(pem)).unwrap().0.contents;
        let (mut forged, donor) = (der(&one), der(&other));
        // The signature is what stands at the end.
        let cut = forged.len() - 16;
        let end = donor.len() - 16;
        forged[cut..].copy_from_slice(&donor[end..]);
        let pem = super::pem(&forged).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(Request::read(pem.as_bytes()).is_err());
        assert!(Request::read(b"rubbish").is_err());
    }
}
