//! Bootstrap tokens: `id.secret`, kept in Secrets of type `bootstrap.kubernetes.io/token` in kube-system, with which a
//! machine asks for its first certificate.

use crate::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mini_api::{Meta, Value};
use mini_store::Snapshot;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const MOST_OF_GROUP: usize = 256;

/// The parts of a token of this kind.
pub(super) fn parts(token: &str) -> Option<(&str, &str)> {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let (id, secret) = token.split_once('.')?;
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Who has the token.
pub(super) fn user((id, given): (&str, &str), snapshot: &Snapshot) -> Result<UserInfo, String> {
    let entry = snapshot.get(&format!("/registry/secrets/kube-system/bootstrap-token-{id}"));
    let entry = entry.ok_or("there is no bootstrap token of this id")?;
    judge((id, given), &serde_json::from_slice(&entry.bytes).unwrap_or_default(), Timestamp::now())
}

fn judge((id, given): (&str, &str), secret: &Value, now: Timestamp) -> Result<UserInfo, String> {
    let data = |field: &str| {
        let bytes = STANDARD.decode(secret.text(&["data", field])).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    if secret.is_deleting() || secret.text(&["type"]) != TYPE {
        return Err("its Secret is going, or of another type".to_owned());
    }
    // By digest, so that comparing takes the same time whatever was sent.
    if digest(&data("token-secret")) != digest(given) || data("token-id") != id {
        return Err("the bootstrap token's secret or id is another".to_owned());
    }
    let end = data("expiration");
    if !end.is_empty() && end.parse::<Timestamp>().ok().is_none_or(|end| end <= now) {
        return Err("the bootstrap token has expired".to_owned());
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".to_owned());
    }
    let extra = data("auth-extra-groups");
    let mut groups = BTreeSet::from([GROUP]);
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err(format!("the bootstrap token's group {group:?} does not begin with {GROUP}: as it must"));
        }
        groups.insert(group);
    }
    Ok(UserInfo::new(&format!("system:bootstrap:{id}"), &groups.into_iter().collect::<Vec<_>>()))
}

/// `system:bootstrappers:` and what may follow.
fn is_group(group: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b':';
    group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')).is_some_and(|rest| {
        let ends_well = rest.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric());
        rest.bytes().all(fits) && ends_well && rest.len() <= MOST_OF_GROUP
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(changes: &[(&str, &str)]) -> Value {
        let mut data =
            json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"});
        for (field, value) in changes {
            data[*field] = json!(value);
        }
        for value in data.as_object_mut().unwrap().values_mut() {
            *value = json!(STANDARD.encode(value.as_str().unwrap()));
        }
        json!({"type": TYPE, "data": data})
    }

    #[test]
    fn tokens_have_two_plain_parts() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for token in
            ["", "abcdef", "abcdef.0123456789ABCDEF", "abcde.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c"]
        {
            assert_eq!(parts(token), None, "{token}");
        }
    }

    #[test]
    fn what_its_secret_says_counts() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |changes: &[(&str, &str)]| judge(("abcdef", "0123456789abcdef"), &secret(changes), now);
        let user = of(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert!(user.groups.iter().any(|group| group == "system:bootstrappers"));
        assert!(user.groups.iter().any(|group| group == "system:bootstrappers:kubeadm:default-node-token"));
        assert!(of(&[("expiration", "2026-01-01T00:00:01Z")]).is_ok());
        for changes in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdeg"),
            ("usage-bootstrap-authentication", "yes"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:"),
        ] {
            assert!(of(&[changes]).is_err(), "{changes:?}");
        }
        let mut other = secret(&[]);
        other["type"] = json!("Opaque");
        assert!(judge(("abcdef", "0123456789abcdef"), &other, now).is_err());
        let mut going = secret(&[]);
        going["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(judge(("abcdef", "0123456789abcdef"), &going, now).is_err());
    }
}
