//! What the command and the server say to each other on the admin socket: HTTP/1.1 with JSON bodies.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | – | `Status` |
//! | `POST /stop` | `Stop` | 202 `Reply`; the socket goes away when the server has stopped |
//! | `GET /kubeconfig` | – | the administrator's kubeconfig, YAML |
//! | `POST /images` | a tar | `Vec<String>`: the references that were imported |
//! | `GET /images` | – | `Vec<Image>` |
//! | `DELETE /images?ref=…` | – | `Vec<String>`: what was removed |
//! | `GET /addons` | – | `Addons`; 503 while the API is not up |
//! | `POST /addons/enable` | `Enable` | `Step`s as they are done, one a line |
//! | `POST /addons/disable` | `Disable` | the same |
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

/// All addons, and why some of a folder's are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addons {
    pub addons: Vec<Addon>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    pub name: String,
    /// `core` for those of the executable.
    pub repository: String,
    pub description: String,
    /// What is enabled, else what would be.
    pub version: String,
    pub enabled: bool,
    /// What is not well with an enabled one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Argument>,
}

/// What an addon can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    pub name: String,
    pub description: String,
    /// Such as `addresses` or `port`.
    pub kind: String,
    /// None: it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enable {
    /// Each `NAME[:ARGUMENTS]`.
    pub addons: Vec<String>,
    /// How long to wait for each to work, in seconds; 0 is for ever.
    #[serde(default)]
    pub timeout: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disable {
    pub addons: Vec<String>,
}

/// One step of enabling or disabling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Empty: of none in particular.
    pub addon: String,
    pub outcome: Outcome,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Step,
    Warning,
    /// The addon's last step.
    Done,
    Failed,
}
