//! What the command and the server say to each other on the admin socket: HTTP/1.1 with JSON bodies.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | – | `Status` |
//! | `POST /stop` | `Stop` | 202 `Reply`; the socket goes away when the server has stopped |
//! | `POST /images` | a tar | `Vec<String>`: the references that were imported |
//! | `GET /images` | – | `Vec<Image>` |
//! | `DELETE /images?ref=…` | – | `Vec<String>`: what was removed |
//!
//! An error is any other code than 2xx with a `Reply`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub running: bool,
    pub ready: bool,
    /// Of mini.
    pub version: String,
    /// Of the API that is served, such as `v1.37.1`.
    #[serde(default)]
    pub kubernetes: String,
    /// The node's name.
    pub node: String,
    #[serde(default)]
    pub node_ip: String,
    #[serde(default)]
    pub api: String,
    #[serde(default)]
    pub pid: i32,
    pub components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    pub name: String,
    pub state: State,
    /// What a waiting one waits for, or why one failed and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ready,
    Waiting,
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Leave pods and containerd running for the next start to adopt.
    #[serde(default)]
    pub keep_pods: bool,
}

/// One image of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Tags and digests.
    pub references: Vec<String>,
    /// In bytes.
    pub size: u64,
}

/// Success without more to say, or why not: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    pub message: String,
}
