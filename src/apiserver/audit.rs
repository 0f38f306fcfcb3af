//! The audit log: who asked for what, and what they were told, as a policy file says. Off unless there is one.
//!
//! A request that is recorded carries a [`Record`] along. It writes an event at each stage; the last one is written when
//! the record goes, whatever became of the request. Invariant: an event is handed over before the answer goes out.

mod log;
mod policy;

use crate::body::{self, Body};
use crate::metrics::{Kind, Text};
use crate::negotiate::{self, Media};
use crate::reviews::user_value;
use crate::{ApiServer, Error, RequestInfo, UserInfo};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
pub use log::LogFile;
use log::Sink;
use mini_api::{Meta, Value};
use policy::{Level, Policy, Scope, Stage};
use serde_json::{Map, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longer ones are cut, as upstream does.
const MAX_USER_AGENT: usize = 1024;

/// What to record, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: PathBuf,
    pub log: LogFile,
}

/// The log of one server.
pub(crate) struct Audit {
    policy: Policy,
    sink: Sink,
    events: AtomicU64,
}

impl Audit {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let policy = Policy::load(&settings.policy)?;
        let path = &settings.log.path;
        let sink = Sink::open(settings.log.clone()).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(Self { policy, sink, events: AtomicU64::new(0) })
    }

    /// Returns once everything recorded is in the file.
    pub(crate) async fn flush(&self) {
        self.sink.flush().await;
    }

    pub(crate) fn write_metrics(&self, out: &mut Text) {
        out.family("apiserver_audit_event_total", Kind::Counter, "Events of the audit log.");
        out.sample(&[], self.events.load(Ordering::Relaxed));
        out.family("apiserver_audit_error_total", Kind::Counter, "Events that could not be written.");
        out.sample(&[("plugin", "log")], self.sink.lost.load(Ordering::Relaxed));
    }
}

/// One request on its way.
pub(crate) struct Record {
    server: Arc<ApiServer>,
    scope: Scope,
    received: Timestamp,
    /// What is the same at every stage, and what was added since.
    event: Map<String, Value>,
    ended: bool,
}

impl Record {
    /// Begins a record, if the policy wants one. `user` is who is asking, before any impersonation; nobody is known by an
    /// empty name.
    pub(crate) fn begin(
        server: &Arc<ApiServer>,
        request: &Request<Body>,
        info: &RequestInfo,
        user: &UserInfo,
        id: &HeaderValue,
        peer: IpAddr,
    ) -> Option<Self> {
        let scope = server.audit.as_ref()?.policy.scope(user, info)?;
        let uri = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut event = Map::new();
        let mut set = |field: &str, value: Value| drop(event.insert(field.to_owned(), value));
        set("kind", "Event".into());
        set("apiVersion", "audit.k8s.io/v1".into());
        set("level", json!(scope.level));
        set("auditID", String::from_utf8_lossy(id.as_bytes()).into());
        set("stage", Value::Null);
        set("requestURI", uri.into());
        set("verb", info.verb.as_str().into());
        set("user", if user.name.is_empty() { json!({}) } else { user_value(user) });
        set("sourceIPs", sources(request.headers(), peer).into());
        if let Some(agent) = user_agent(request.headers()) {
            set("userAgent", agent.into());
        }
        if info.resource_request {
            set("objectRef", object_ref(info));
        }
        Some(Self { server: server.clone(), scope, received: Timestamp::now(), event, ended: false })
    }

    /// The request is here.
    pub(crate) async fn received(&mut self) {
        self.stage(Stage::RequestReceived).await;
    }

    /// Credentials were refused: of whoever it was, nothing but that is known.
    pub(crate) async fn refused(mut self, headers: &HeaderMap, certificate: bool) {
        let scheme = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let bearer = scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let attempted: Vec<_> = [(bearer, "bearer"), (certificate, "x509")]
            .into_iter()
            .filter_map(|(tried, name)| tried.then_some(name))
            .collect();
        let message = match attempted.as_slice() {
            [] => "Authentication failed, no credentials provided".to_owned(),
            some => format!("Authentication failed, attempted: {}", some.join(", ")),
        };
        self.status(json!({"metadata": {}, "message": message, "code": 401}));
        self.stage(Stage::ResponseStarted).await;
        self.ended = true;
    }

    /// The user is taken for another.
    pub(crate) fn impersonated(&mut self, user: &UserInfo) {
        self.event.insert("impersonatedUser".to_owned(), user_value(user));
    }

    pub(crate) fn authorized(&mut self, allowed: bool, reason: String) {
        let decision = if allowed { "allow" } else { "forbid" };
        let annotations = json!({"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason});
        self.event.insert("annotations".to_owned(), annotations);
    }

    /// Whether the answer's body will be looked into: it must not come compressed then.
    pub(crate) fn wants_plain_answer(&self) -> bool {
        self.scope.level == Level::RequestResponse
    }

    /// What the client sent. Patches say nothing of the object's name and version.
    pub(crate) fn request_body(&mut self, headers: &HeaderMap, info: &RequestInfo, bytes: &[u8]) {
        let whole = matches!(info.verb.as_str(), "create" | "update");
        if bytes.is_empty() || !whole && self.scope.level < Level::Request {
            return;
        }
        let media = match negotiate::content_type(headers) {
            crate::verbs::APPLY => Media::Yaml,
            kind if kind.ends_with("patch+json") => Media::Json,
            _ => match negotiate::media(headers) {
                Ok(media) => media,
                Err(_) => return,
            },
        };
        let Ok(mut object) = negotiate::parse(media, bytes) else { return };
        if whole && let Some(reference) = self.event.get_mut("objectRef").and_then(Value::as_object_mut) {
            for field in ["namespace", "name", "uid", "resourceVersion"] {
                let text = object.text(&["metadata", field]);
                if !text.is_empty() {
                    reference.entry(field).or_insert_with(|| text.into());
                }
            }
        }
        if self.scope.level >= Level::Request {
            self.without_managed_fields(&mut object);
            self.event.insert("requestObject".to_owned(), object);
        }
    }

    /// The answer, which goes on with the record if it may last.
    pub(crate) async fn answer(mut self, response: Response<Body>, long_running: bool) -> Response<Body> {
        let code = response.status().as_u16();
        let mut status = json!({"metadata": {}, "code": code});
        if long_running && code < 400 {
            self.status(status);
            self.stage(Stage::ResponseStarted).await;
            return response.map(|body| body::holding(body, self));
        }
        let whole = http_body::Body::size_hint(response.body()).exact().is_some();
        let (parts, mut body) = response.into_parts();
        let mut object = None;
        let wanted = !long_running && self.scope.level == Level::RequestResponse;
        if wanted || whole && code >= 400 {
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            object = parsed(&parts.headers, &bytes);
            body = body::full(bytes);
        }
        if let Some(said) = object.as_ref().filter(|object| object.text(&["kind"]) == "Status") {
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = said.get(field) {
                    status[field] = value.clone();
                }
            }
        }
        self.status(status);
        if let Some(mut object) = object.filter(|_| self.scope.level == Level::RequestResponse) {
            self.without_managed_fields(&mut object);
            self.event.insert("responseObject".to_owned(), object);
        }
        if long_running {
            self.stage(Stage::ResponseStarted).await;
        }
        self.stage(Stage::ResponseComplete).await;
        self.ended = true;
        Response::from_parts(parts, body)
    }

    fn status(&mut self, status: Value) {
        self.event.insert("responseStatus".to_owned(), status);
    }

    fn without_managed_fields(&self, object: &mut Value) {
        if !self.scope.omit_managed_fields {
            return;
        }
        let strip = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        strip(object);
        if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().for_each(strip);
        }
        if let Some(rows) = object.get_mut("rows").and_then(Value::as_array_mut) {
            rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(strip);
        }
    }

    async fn stage(&mut self, stage: Stage) {
        if let (Some(line), Some(audit)) = (self.line(stage), &self.server.audit) {
            audit.sink.send(line).await;
        }
    }

    fn line(&mut self, stage: Stage) -> Option<Vec<u8>> {
        let audit = self.server.audit.as_ref().filter(|_| self.scope.wants(stage))?;
        audit.events.fetch_add(1, Ordering::Relaxed);
        let at = if stage == Stage::RequestReceived { self.received } else { Timestamp::now() };
        self.event.insert("stage".to_owned(), json!(stage));
        self.event.insert("requestReceivedTimestamp".to_owned(), mini_api::time::micro(self.received).into());
        self.event.insert("stageTimestamp".to_owned(), mini_api::time::micro(at).into());
        let mut line = serde_json::to_vec(&self.event).ok()?;
        line.push(b'\n');
        Some(line)
    }
}

impl Drop for Record {
    /// The end of a stream, of a request whose client went away, or of one that panicked.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let stage = if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete };
        if stage == Stage::Panic {
            let message = "APIServer panic'd";
            self.status(json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}));
        } else if !self.event.contains_key("responseStatus") {
            let message = "Connection closed early";
            self.status(json!({"metadata": {}, "status": "Success", "message": message, "code": 200}));
        }
        if let (Some(line), Some(audit)) = (self.line(stage), &self.server.audit) {
            audit.sink.try_send(line);
        }
    }
}

fn object_ref(info: &RequestInfo) -> Value {
    let fields = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    fields
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(field, text)| (field.to_owned(), Value::from(text.as_str())))
        .collect::<Map<_, _>>()
        .into()
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok().filter(|agent| !agent.is_empty())?;
    Some(match agent.get(..MAX_USER_AGENT) {
        Some(start) if agent.len() > MAX_USER_AGENT => format!("{start}...TRUNCATED"),
        _ => agent.to_owned(),
    })
}

/// Whom proxies say they speak for, and last the peer, which nobody can make up.
fn sources(headers: &HeaderMap, peer: IpAddr) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut found: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    found.extend(text("x-real-ip").parse().ok().filter(|address| !found.contains(address)));
    let peer = peer.to_canonical();
    if found.last() != Some(&peer) {
        found.push(peer);
    }
    found.iter().map(IpAddr::to_string).collect()
}

/// The object in an answer.
fn parsed(headers: &HeaderMap, bytes: &Bytes) -> Option<Value> {
    match negotiate::content_type(headers) {
        "application/json" => serde_json::from_slice(bytes).ok(),
        mini_resources::protobuf::MEDIA_TYPE => mini_resources::protobuf::decode(bytes).ok(),
        "application/yaml" => negotiate::yaml(bytes).ok(),
        _ => None,
    }
}
