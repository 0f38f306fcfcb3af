//! Who is it? Client certificates and bearer tokens.

use crate::pending::Store;
use crate::{Config, Error, UserInfo};
use http::{HeaderMap, header};
use mini_api::Status;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;

/// Turns credentials into a user.
pub struct Authenticator {
    tokens: BTreeMap<String, UserInfo>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config, _store: &Store) -> Result<Self, Error> {
        Ok(Self { tokens: config.static_tokens.clone() })
    }

    /// None: the request brought no credentials.
    ///
    /// # Errors
    /// 401: it brought wrong ones.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        _peer_certs: Option<&[CertificateDer<'static>]>,
    ) -> Result<Option<UserInfo>, Status> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token = value.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        self.tokens.get(token.trim()).cloned().map(Some).ok_or_else(Status::unauthorized)
    }
}
