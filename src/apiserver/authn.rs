//! Who is it? Client certificates, bearer tokens, and who they ask to be taken for.
//!
//! Knows headers and certificates, the store for whether an account is still there, and nothing of what users may do,
//! except in [`impersonation`]. No credential ever reaches a log.

mod bootstrap_token;
pub mod impersonation;
mod service_account;
pub mod token_file;
mod x509;

use crate::tokens::Keys;
use crate::{Config, Error, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use mini_api::Status;
use mini_store::Store;
use rustls::pki_types::CertificateDer;
use service_account::ServiceAccountTokens;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use x509::X509;

/// Browsers cannot set headers on a WebSocket: the token comes as one of its subprotocols.
pub(crate) const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Turns credentials into a user.
pub struct Authenticator {
    certificates: X509,
    /// By digest, so that comparing takes the same time whatever was sent.
    static_tokens: HashMap<[u8; 32], UserInfo>,
    accounts: ServiceAccountTokens,
    keys: Arc<Keys>,
    store: Store,
}

/// Who a token belongs to.
pub struct TokenUser {
    pub user: UserInfo,
    /// Those of the asked audiences that the token is for; empty if it is bound to none.
    pub audiences: Vec<String>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config, store: &Store) -> Result<Self, Error> {
        let keys = Arc::new(Keys::load(&config.service_account)?);
        let digest = |token: &String| Sha256::digest(token.as_bytes()).into();
        Ok(Self {
            certificates: X509::new(&config.client_ca)?,
            static_tokens: config.static_tokens.iter().map(|(token, user)| (digest(token), user.clone())).collect(),
            accounts: ServiceAccountTokens::new(keys.clone(), store.clone()),
            keys,
            store: store.clone(),
        })
    }

    /// The keys that sign service account tokens.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// None: the request brought no credentials.
    ///
    /// # Errors
    /// 401: it brought wrong ones.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer_certs: Option<&[CertificateDer<'static>]>,
    ) -> Result<Option<UserInfo>, Status> {
        let mut wrong = None;
        if let Some(chain) = peer_certs
            && !chain.is_empty()
        {
            match self.certificates.user(chain) {
                Ok(user) => return Ok(Some(user)),
                Err(why) => wrong = Some(why),
            }
        }
        if let Some(token) = bearer(headers) {
            match self.token(&token, &[]) {
                Ok(found) => return Ok(Some(found.user)),
                Err(why) => wrong = Some(why),
            }
        }
        match wrong {
            None => Ok(None),
            Some(why) => {
                tracing::debug!(%why, "credentials refused");
                Err(Status::unauthorized())
            }
        }
    }

    /// Who a bearer token belongs to. It must be for one of `audiences`, or for this API where none are asked for.
    ///
    /// # Errors
    /// Why it is no good, without a word of the token itself.
    pub fn token(&self, token: &str, audiences: &[String]) -> Result<TokenUser, String> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.static_tokens.get(&digest) {
            // Such a token says nothing of who it is for: it is the API's own.
            let own = self.keys().issuer();
            return match audiences {
                [] => Ok(TokenUser { user: user.clone(), audiences: Vec::new() }),
                asked if asked.iter().any(|audience| audience == own) => {
                    Ok(TokenUser { user: user.clone(), audiences: vec![own.to_owned()] })
                }
                _ => Err(format!("token audiences [{own:?}] is invalid for the target audiences {audiences:?}")),
            };
        }
        if let Some(parts) = bootstrap_token::parts(token) {
            let user = bootstrap_token::user(parts, &self.store.snapshot())?;
            return Ok(TokenUser { user, audiences: Vec::new() });
        }
        self.accounts.user(token, digest, audiences)
    }
}

/// The bearer token, if there is one. Other schemes are no credentials to us, as to upstream.
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut protocols = protocols.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    let encoded = protocols.find_map(|p| p.strip_prefix(WEBSOCKET_TOKEN))?;
    let token = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(token).ok().filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: header::HeaderName, value: &str) -> Option<String> {
        bearer(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn tokens_are_found() {
        assert_eq!(header(header::AUTHORIZATION, "Bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(header(header::AUTHORIZATION, "bearer abc").as_deref(), Some("abc"));
        assert_eq!(header(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(header(header::AUTHORIZATION, "Bearer "), None);
        let protocols = format!("v4.channel.k8s.io, {WEBSOCKET_TOKEN}YWJj");
        assert_eq!(header(header::SEC_WEBSOCKET_PROTOCOL, &protocols).as_deref(), Some("abc"));
    }
}
