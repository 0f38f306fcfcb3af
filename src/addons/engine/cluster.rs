//! Objects of any kind, as JSON, through the API.

use super::Error;
use http::{Method, Request};
use kube::core::Status;
use mini_client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Id {
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Id {
    pub(super) fn new(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), namespace, name: name.to_owned() }
    }

    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let namespace = meta["namespace"].as_str().filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace,
            name: text(&meta["name"]),
        }
    }
}

/// Where a kind is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    plural: String,
    pub(super) namespaced: bool,
}

type Kinds = HashMap<(String, String), Served>;

/// The API, with what it serves remembered: make one for an operation.
pub(super) struct Cluster {
    client: Client,
    kinds: Mutex<Kinds>,
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    /// How a kind is served; `None` when it is not.
    pub(super) async fn served(&self, api_version: &str, kind: &str) -> Result<Option<Served>, Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(list) = absent(self.call(Method::GET, &root(api_version), None).await)? else { return Ok(None) };
        let entry = list["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["kind"] == kind && entry["name"].as_str().is_some_and(|name| !name.contains('/')));
        let Some(entry) = entry else { return Ok(None) };
        let plural = entry["name"].as_str().unwrap_or_default().to_owned();
        let served = Served { plural, namespaced: entry["namespaced"] == true };
        self.kinds().insert(key, served.clone());
        Ok(Some(served))
    }

    fn kinds(&self) -> std::sync::MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn collection(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let Some(served) = self.served(api_version, kind).await? else { return Ok(None) };
        let within = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        Ok(Some(format!("{}{within}/{}", root(api_version), served.plural)))
    }

    async fn path(&self, id: &Id) -> Result<Option<String>, Error> {
        let collection = self.collection(&id.api_version, &id.kind, id.namespace.as_deref()).await?;
        Ok(collection.map(|collection| format!("{collection}/{}", id.name)))
    }

    /// `None` when it, or its kind, is not there.
    pub(super) async fn get(&self, id: &Id) -> Result<Option<Value>, Error> {
        match self.path(id).await? {
            Some(path) => absent(self.call(Method::GET, &path, None).await),
            None => Ok(None),
        }
    }

    pub(super) async fn create(&self, object: &Value) -> Result<Value, Error> {
        let id = Id::of(object);
        let path = self.collection(&id.api_version, &id.kind, id.namespace.as_deref()).await?;
        self.call(Method::POST, &path.ok_or_else(|| not_served(&id))?, Some(("application/json", object))).await
    }

    /// Merges; `patch` should carry the resource version it was made for.
    pub(super) async fn patch(&self, id: &Id, patch: &Value) -> Result<Value, Error> {
        let path = self.path(id).await?.ok_or_else(|| not_served(id))?;
        self.call(Method::PATCH, &path, Some(("application/merge-patch+json", patch))).await
    }

    /// Asks for its end; what it owns goes first where `foreground`.
    pub(super) async fn delete(&self, id: &Id, foreground: bool) -> Result<(), Error> {
        let Some(path) = self.path(id).await? else { return Ok(()) };
        let policy = if foreground { "Foreground" } else { "Background" };
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        absent(self.call(Method::DELETE, &path, Some(("application/json", &options))).await).map(drop)
    }

    /// The objects of a kind, in all namespaces or in one; `query` such as `labelSelector=a%3Db`.
    pub(super) async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        query: &str,
    ) -> Result<Vec<Value>, Error> {
        let Some(path) = self.collection(api_version, kind, namespace).await? else { return Ok(Vec::new()) };
        let mut list = self.call(Method::GET, &format!("{path}?{query}"), None).await?;
        let Value::Array(mut items) = list["items"].take() else { return Ok(Vec::new()) };
        for item in &mut items {
            // A list's items leave these to the list.
            item["apiVersion"] = api_version.into();
            item["kind"] = kind.into();
        }
        Ok(items)
    }

    /// An answer that is text.
    pub(super) async fn text(&self, path: &str) -> Result<String, Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        Ok(self.client.request_text(request).await?)
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, Error> {
        let mut request = Request::builder().method(method).uri(path).header("accept", "application/json");
        let mut bytes = Vec::new();
        if let Some((kind, value)) = body {
            request = request.header("content-type", kind);
            bytes = value.to_string().into_bytes();
        }
        Ok(self.client.request(request.body(bytes).map_err(kube::Error::HttpError)?).await?)
    }
}

fn root(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

fn not_served(id: &Id) -> Error {
    Error::NotServed { api_version: id.api_version.clone(), kind: id.kind.clone() }
}

/// Not found is an answer.
fn absent<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Error {
    /// What the API said, if it is that.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }
}
