//! What the client sends and wants: media types, the forms `Table` and `PartialObjectMetadata`, gzip, the size of a body.

use crate::body::{self, Body};
use crate::call::Query;
use crate::flow::bodies::Charge;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use mini_api::{FieldError, FieldPath, Meta, Reason, Status, Value, text};
use mini_resources::protobuf;
use std::io::Write;

/// The largest body of a request: upstream's 3 MiB.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Responses smaller than this are not worth compressing.
const MIN_GZIP: usize = 128 * 1024;

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// `PartialObjectMetadata`, which single objects and events have.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

/// What a row of a Table carries: `includeObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) shape: Shape,
    /// The version of a shape that is not the object's own: `meta.k8s.io/v1` or `meta.k8s.io/v1beta1`.
    pub(crate) version: &'static str,
    pub(crate) include: Include,
    pub(crate) yaml: bool,
    /// Kubernetes' protobuf, for kinds that have it.
    pub(crate) protobuf: bool,
    /// JSON is welcome too, where there is no protobuf.
    json: bool,
    gzip: bool,
    pretty: bool,
}

impl Output {
    /// Reads `Accept`, `Accept-Encoding` and the query.
    ///
    /// # Errors
    /// 406 if nothing that is accepted can be made, 400 if a Table's rows shall hold what they cannot.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::negotiated(headers, query, true)
    }

    /// As [`Output::negotiate`], of what has no columns: reviews, bindings, evictions.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn without_tables(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::negotiated(headers, query, false)
    }

    fn negotiated(headers: &HeaderMap, query: &Query, tables: bool) -> Result<Self, Status> {
        let gzip = headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(',').any(|e| e.trim().split(';').next() == Some("gzip")));
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut output = Self {
            shape: Shape::Object,
            version: V1,
            include: Include::Metadata,
            yaml: false,
            protobuf: false,
            json: true,
            gzip,
            pretty: query.flag("pretty"),
        };
        if accept.trim().is_empty() {
            return Ok(output);
        }
        let clauses = clauses(accept);
        let is_json = |media: &str| matches!(media, "application/json" | "*/*" | "application/*");
        output.json = clauses.iter().any(|clause| is_json(clause.media));
        for clause in clauses {
            (output.yaml, output.protobuf) = match clause.media {
                media if is_json(media) => (false, false),
                "application/yaml" | "application/x-yaml" | "text/yaml" => (true, false),
                // A Table has no such form.
                protobuf::MEDIA_TYPE if clause.parameter("as") != Some("Table") => (false, true),
                _ => continue,
            };
            if !matches!(clause.parameter("stream"), None | Some("" | "watch")) {
                continue;
            }
            let parameters = (clause.parameter("as"), clause.parameter("g"), clause.parameter("v"));
            let (Some(kind), group, version) = parameters else {
                output.shape = Shape::Object;
                return Ok(output);
            };
            output.version = match (group, version) {
                (Some("meta.k8s.io"), Some("v1")) => V1,
                (Some("meta.k8s.io"), Some("v1beta1")) => V1BETA1,
                _ => continue,
            };
            output.shape = match kind {
                "Table" if tables => Shape::Table,
                "PartialObjectMetadata" => Shape::Metadata,
                "PartialObjectMetadataList" => Shape::MetadataList,
                _ => continue,
            };
            if output.shape == Shape::Table {
                output.include = include(query)?;
            }
            return Ok(output);
        }
        Err(not_acceptable())
    }

    /// Whether an object goes out as protobuf.
    ///
    /// # Errors
    /// 406 if it has no such form, and the client takes nothing else.
    pub(crate) fn as_protobuf(&self, api_version: &str, kind: &str) -> Result<bool, Status> {
        match self.protobuf && protobuf::encodes(api_version, kind) {
            false if self.protobuf && !self.json => Err(not_acceptable()),
            encodes => Ok(encodes),
        }
    }

    /// Answers with bytes that are JSON.
    pub(crate) fn respond(&self, code: StatusCode, json: Bytes) -> Result<Response<Body>, Status> {
        let (content_type, bytes) = if self.protobuf {
            let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
            if self.as_protobuf(value.text(&["apiVersion"]), value.text(&["kind"]))? {
                (protobuf::MEDIA_TYPE, Bytes::from(protobuf::encode(&value).map_err(Status::internal)?))
            } else {
                ("application/json", json)
            }
        } else if self.yaml {
            let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
            ("application/yaml", Bytes::from(serde_saphyr::to_string(&value).map_err(Status::internal)?))
        } else if self.pretty {
            let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
            let mut text = serde_json::to_vec_pretty(&value).map_err(Status::internal)?;
            text.push(b'\n');
            ("application/json", Bytes::from(text))
        } else {
            ("application/json", json)
        };
        if self.gzip && bytes.len() >= MIN_GZIP {
            let mut response = body::response(code, content_type, gzip(&bytes)?);
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return Ok(response);
        }
        Ok(body::response(code, content_type, bytes))
    }

    /// True if bytes go out as they are.
    pub(crate) fn plain(&self, length: usize) -> bool {
        !(self.yaml || self.protobuf || self.pretty || self.gzip && length >= MIN_GZIP)
    }
}

const V1: &str = "meta.k8s.io/v1";
const V1BETA1: &str = "meta.k8s.io/v1beta1";

/// What the rows of a Table shall hold.
fn include(query: &Query) -> Result<Include, Status> {
    match query.text("includeObject") {
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        "" | "Metadata" => Ok(Include::Metadata),
        other => {
            let why = "must be 'Metadata', 'Object', 'None', or empty";
            let error = FieldError::invalid(&FieldPath::new("includeObject"), other, why);
            Err(Status::bad_request(format!("Unable to convert to Table as requested: {error}")))
        }
    }
}

/// 406 in upstream's words.
pub(crate) fn not_acceptable() -> Status {
    Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// 406 for a watch in YAML, which has no events.
pub(crate) fn not_streamable() -> Status {
    Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
    )
}

/// A failure in the form that the client asked its answer in.
pub(crate) fn failure(accept: Option<HeaderValue>, status: &Status) -> Response<Body> {
    let mut response = body::failure(status);
    let Some(accept) = accept.filter(|accept| accept.as_bytes().starts_with(protobuf::MEDIA_TYPE.as_bytes())) else {
        return response;
    };
    let headers: HeaderMap = [(header::ACCEPT, accept)].into_iter().collect();
    let wanted = Output::negotiate(&headers, &Query::default()).is_ok_and(|output| output.protobuf);
    if let (true, Ok(bytes)) = (wanted, protobuf::encode(&status.to_value())) {
        *response.body_mut() = body::full(bytes);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(protobuf::MEDIA_TYPE));
    }
    response
}

pub(crate) fn gzip(bytes: &[u8]) -> Result<Bytes, Status> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(4));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map(Bytes::from).map_err(Status::internal)
}

/// One clause of an `Accept` header.
pub(crate) struct Clause<'a> {
    pub(crate) media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}

/// The clauses of an `Accept` header, the most wanted first.
pub(crate) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters = parts.filter_map(|p| p.split_once('=')).map(|(n, v)| (n.trim(), v.trim())).collect();
            Clause { media, parameters }
        })
        .filter(|clause| !clause.media.is_empty())
        .collect();
    let weight = |c: &Clause<'_>| c.parameter("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
    clauses.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    clauses
}

/// Reads a whole body.
///
/// # Errors
/// 413 if it is over 3 MiB, 400 if it breaks off.
pub(crate) async fn read_body(mut body: Body, charge: &mut Charge) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("the body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + first.len() + data.len() > MAX_BODY {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            return Err(Status::new(Reason::RequestEntityTooLarge, message));
        }
        charge.grow(all.len() + first.len() + data.len())?;
        // Most bodies are one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    /// In which kubectl and client-go send built-in kinds.
    Protobuf,
}

/// Reads `Content-Type`; none is JSON.
///
/// # Errors
/// 415 for anything but JSON, YAML and Kubernetes' protobuf.
pub(crate) fn media(headers: &HeaderMap) -> Result<Media, Status> {
    match content_type(headers) {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Media::Yaml),
        protobuf::MEDIA_TYPE => Ok(Media::Protobuf),
        other => Err(unsupported(other, &["application/json", "application/yaml", protobuf::MEDIA_TYPE])),
    }
}

/// The media type of the body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(|v| v.split(';').next().unwrap_or_default().trim())
        .unwrap_or_default()
}

/// 415 in upstream's words.
pub(crate) fn unsupported(sent: &str, accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {} (it was sent as {sent:?})",
        accepted.join(", ")
    );
    Status::new(Reason::UnsupportedMediaType, message)
}

/// Parses a body.
///
/// # Errors
/// 400 if it is broken.
pub(crate) fn parse(media: Media, bytes: &[u8]) -> Result<Value, Status> {
    match media {
        Media::Json => text::read(bytes).map_err(|e| Status::bad_request(format!("json parse error: {e}"))),
        Media::Protobuf => {
            protobuf::decode(bytes).map_err(|e| Status::bad_request(format!("protobuf parse error: {e}")))
        }
        Media::Yaml => yaml(bytes).map_err(|e| Status::bad_request(format!("yaml parse error: {e}"))),
    }
}

/// YAML as users of Kubernetes write it, which is YAML 1.1.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    let options = serde_saphyr::options! { legacy_octal_numbers: true, duplicate_keys: duplicate_keys };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())
}

/// The first key that a map of a YAML text has twice, in the words of upstream's parser.
pub(crate) fn yaml_duplicate(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            Some(format!("line {}: key {:?} already set in map", location.line(), key.unwrap_or_default()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(accept: &str) -> Result<Output, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        Output::negotiate(&headers, &Query::default())
    }

    #[test]
    fn the_first_form_that_can_be_made_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(output(kubectl).unwrap().shape, Shape::Table);
        let old = output("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json").unwrap();
        assert_eq!((old.shape, old.version), (Shape::Table, "meta.k8s.io/v1beta1"));
        let unknown = "application/json;as=Table;v=v2;g=meta.k8s.io,application/json";
        assert_eq!(output(unknown).unwrap().shape, Shape::Object);
        assert_eq!(output("application/json;stream=watch").unwrap().shape, Shape::Object);
        assert_eq!(output("application/json;stream=other").unwrap_err().code, 406);
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert!(output(client_go).unwrap().as_protobuf("v1", "Pod").unwrap());
        assert!(!output(client_go).unwrap().as_protobuf("example.com/v1", "Widget").unwrap());
        assert!(output("application/yaml").unwrap().yaml);
        assert!(!output("application/yaml;q=0.1, */*;q=0.9").unwrap().yaml);
        let only_protobuf = output("application/vnd.kubernetes.protobuf").unwrap();
        assert_eq!(only_protobuf.as_protobuf("example.com/v1", "Widget").unwrap_err().code, 406);
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert!(!output(table).unwrap().protobuf);
        assert_eq!(output("application/json;as=Table;v=v1alpha1;g=meta.k8s.io").unwrap_err().code, 406);
    }

    #[test]
    fn yaml_is_read_as_1_1() {
        assert_eq!(yaml(b"mode: 0644\nname: \"0644\"\n").unwrap(), serde_json::json!({"mode": 420, "name": "0644"}));
    }

    #[test]
    fn the_last_of_two_keys_counts_and_is_told() {
        let text = b"\nspec:\n  foo: a\n  foo: b\n";
        assert_eq!(yaml(text).unwrap(), serde_json::json!({"spec": {"foo": "b"}}));
        assert_eq!(yaml_duplicate(text).unwrap(), "line 4: key \"foo\" already set in map");
        assert_eq!(yaml_duplicate(b"{\"a\": {\"b\": 1,\n\"b\": 2}}").unwrap(), "line 2: key \"b\" already set in map");
        assert_eq!(yaml_duplicate(b"a: [{b: 1}, {b: 1}]"), None);
    }
}
