//! TLS on both sides: what clients are shown, and endpoints that are taken as they are.

use super::certificates::Resolver;
use super::table::Live;
use mini_pki::AnyCertificate;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;

/// What clients meet: HTTP/2 and HTTP/1.1, the certificate of the table in force.
///
/// # Errors
/// When the machine has no randomness.
pub(super) fn server_config(live: Arc<Live>) -> anyhow::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(live)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

/// For endpoints that speak TLS, and one of `protocols` if any are named: they are known by their addresses, as nginx does
/// it, and show any certificate.
///
/// # Errors
/// When the protocol versions do not fit the cryptography, which they do.
pub(super) fn client_config(protocols: &[&str]) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
