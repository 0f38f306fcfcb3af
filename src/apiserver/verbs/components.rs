//! `get` and `list` of ComponentStatus: how the parts of the control plane are, asked when somebody asks.

use super::{get, list, warn};
use crate::Call;
use crate::body::Body;
use crate::health::{self, Component};
use crate::negotiate::Output;
use crate::options::Filter;
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{Status, Value};
use serde_json::json;

pub(super) fn run(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let objects = health::components(&call.server).into_iter().map(object);
    let mut response = if call.info.verb == "list" {
        let filter = Filter::parse(call)?;
        let items = objects.filter(|object| filter.matches(object)).map(|object| Bytes::from(object.to_string()));
        list::answer(call, output, "", None, None, items.collect())?
    } else {
        let wanted = call.info.name.as_str();
        let found = objects.into_iter().find(|object| object["metadata"]["name"] == *wanted);
        let found = found.ok_or_else(|| call.not_found())?;
        get::answer(call, output, StatusCode::OK, &Bytes::from(found.to_string()))?
    };
    warn(&mut response, &["v1 ComponentStatus is deprecated in v1.19+".to_owned()].into_iter().collect());
    Ok(response)
}

fn object((name, failure): Component) -> Value {
    let mut condition = json!({"type": "Healthy", "status": if failure.is_none() { "True" } else { "False" }});
    condition["message"] = failure.unwrap_or_else(|| "ok".to_owned()).into();
    json!({"apiVersion": "v1", "kind": "ComponentStatus",
        "metadata": {"name": name, "creationTimestamp": null}, "conditions": [condition]})
}
