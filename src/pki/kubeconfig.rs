//! The text of a kubeconfig.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one cluster, user and context; `server` is a URL.
pub(crate) fn text(server: &str, user: &str, ca: &str, cert: &str, key: &str) -> String {
    let [ca, cert, key] = [ca, cert, key].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: mini\n  cluster:\n    certificate-authority-data: {ca}\n    \
         server: {server}\ncontexts:\n- name: mini\n  context:\n    cluster: mini\n    user: {user}\n\
         current-context: mini\npreferences: {{}}\nusers:\n- name: {user}\n  user:\n    \
         client-certificate-data: {cert}\n    client-key-data: {key}\n"
    )
}
