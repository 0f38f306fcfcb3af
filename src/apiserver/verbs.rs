//! The verbs, one file each. A verb decodes, admits, hooks, validates, and writes or reads the store.

mod apply;
pub(crate) mod binding;
mod components;
pub(crate) mod create;
pub(crate) mod delete;
mod deletecollection;
mod eviction;
mod get;
mod list;
mod patch;
mod review;
mod scale;
pub(crate) mod update;
mod usage;
mod watch;

pub(crate) use patch::APPLY;

use crate::Call;
use crate::body::Body;
use crate::decode::Warnings;
use crate::negotiate;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use mini_api::{FieldError, Reason, Status};
use mini_resources::Resource;

/// Carries out what was asked.
pub(crate) async fn dispatch(call: Call, body: Bytes) -> Result<Response<Body>, Status> {
    let Some(custom) = call.resource.custom.clone() else { return carry_out(&call, body).await };
    // Where nothing is, nothing needs converting: a namespace can be found empty. What is there is refused when it is read.
    if custom.unconvertible && !matches!(call.info.verb.as_str(), "list" | "deletecollection") {
        let (kind, version) = (&call.resource.kind, &call.resource.version);
        return Err(Status::internal(format!(
            "conversion webhooks are not called: {kind} is served in the version it is stored in, not in {version}"
        )));
    }
    let mut response = carry_out(&call, body).await?;
    warn(&mut response, &custom.warning.iter().cloned().collect());
    Ok(response)
}

async fn carry_out(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let verb = call.info.verb.clone();
    let subresource = call.info.subresource.clone();
    // A custom kind that is going offers less than it still does.
    let going = call.resource.custom.as_ref().is_some_and(|kind| kind.terminating);
    if subresource.is_empty() {
        if !call.resource.has_verb(&verb) && !going {
            return Err(method_not_allowed());
        }
    } else {
        let known = call.resource.subresource(&subresource).ok_or_else(crate::handler::no_such_path)?;
        if !known.verbs.contains(&verb.as_str()) {
            return Err(method_not_allowed());
        }
    }
    if call.resource.namespaced && call.info.namespace.is_empty() && !matches!(verb.as_str(), "list" | "watch") {
        return Err(method_not_allowed());
    }
    let answer = match (verb.as_str(), subresource.as_str()) {
        ("get", "scale") => scale::get(call),
        ("update", "scale") => scale::update(call, body).await,
        ("patch", "scale") => scale::patch(call, body).await,
        ("get" | "list", "") if call.resource.kind == "ComponentStatus" => components::run(call),
        ("get" | "list", "") if !call.resource.stored() => usage::run(call).await,
        ("get", _) => get::run(call).await,
        ("list", "") => list::run(call).await,
        ("watch", "") => watch::run(call).await,
        ("create", "") if call.resource.kind == "Binding" && call.resource.group.is_empty() => {
            binding::run(call, body).await
        }
        ("create", "binding") => binding::run(call, body).await,
        ("create", "eviction") => eviction::run(call, body).await,
        ("create", "token") => review::token(call, body).await,
        ("create", "") if !call.resource.stored() => review::run(call, body).await,
        ("create", "") => create::run(call, body).await,
        ("update", _) => update::run(call, body).await,
        ("patch", _) => patch::run(call, body).await,
        ("delete", "") => delete::run(call, body).await,
        ("deletecollection", "") => deletecollection::run(call, body).await,
        _ => Err(method_not_allowed()),
    };
    let notices = call.notices.take();
    if notices.is_empty() {
        return answer;
    }
    let failure = |status| negotiate::failure(call.headers.get(header::ACCEPT).cloned(), &status);
    let mut response = answer.unwrap_or_else(failure);
    warn(&mut response, &notices);
    Ok(response)
}

/// 422 about an object. Upstream's events of both groups are of one kind, of the core group.
pub(crate) fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Status {
    let group = if resource.group == "events.k8s.io" { "" } else { &resource.group };
    Status::invalid(group, &resource.kind, name, errors)
}

/// 405 in upstream's words.
pub(crate) fn method_not_allowed() -> Status {
    Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// Adds `Warning` headers as RFC 7234 writes them.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &Warnings) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
