//! One authorized request on its way through a verb.

use crate::{ApiServer, RequestInfo, UserInfo};
use http::HeaderMap;
use mini_api::{Status, Value};
use mini_resources::Resource;
use parking_lot::Mutex;
use std::sync::Arc;

/// What every verb is given.
pub struct Call {
    pub server: Arc<ApiServer>,
    pub user: Arc<UserInfo>,
    pub info: RequestInfo,
    pub resource: Arc<Resource>,
    pub query: Query,
    pub headers: HeaderMap,
    /// A component of this process makes it.
    pub inside: bool,
    pub(crate) notices: Notices,
}

impl Call {
    /// A call of the server's own, about no object yet.
    #[must_use]
    pub(crate) fn internal(server: &Arc<ApiServer>, resource: Arc<Resource>) -> Self {
        let info = RequestInfo {
            resource_request: true,
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            ..RequestInfo::default()
        };
        let user = Arc::new(UserInfo::new("system:apiserver", &["system:masters"]));
        Self {
            server: server.clone(),
            user,
            info,
            resource,
            query: Query::default(),
            headers: HeaderMap::new(),
            inside: true,
            notices: Notices::default(),
        }
    }

    /// 404 for the object that the path names.
    #[must_use]
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, &self.info.name)
    }

    /// The key of the object `name` in the path's namespace.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        object_key(&self.resource, &self.info.namespace, name)
    }
}

/// What the client is warned of, whatever comes of its request.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<Vec<String>>);

impl Notices {
    /// Once, however often a write is tried.
    pub(crate) fn add(&self, notice: String) {
        let mut notices = self.0.lock();
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Where an object is stored.
#[must_use]
pub fn object_key(resource: &Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced {
        format!("/registry/{}/{namespace}/{name}", resource.storage)
    } else {
        format!("/registry/{}/{name}", resource.storage)
    }
}

/// The prefix of all objects of a resource, of one namespace if it is not empty.
#[must_use]
pub fn list_prefix(resource: &Resource, namespace: &str) -> String {
    if resource.namespaced && !namespace.is_empty() {
        format!("/registry/{}/{namespace}/", resource.storage)
    } else {
        format!("/registry/{}/", resource.storage)
    }
}

/// The query string, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(name, true), percent_decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of `name`; an absent one is empty.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Upstream's reading of a boolean: present and neither `0` nor `false`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
                let out_of_range = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                let why = if out_of_range { "value out of range" } else { "invalid syntax" };
                Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", Value::from(text)))
            }),
        }
    }
}

/// Decodes `%41`, and `+` as a space in query strings. What is no escape stays as it is.
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> String {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (b'+', _) if plus => out.push(b' '),
            (other, _) => out.push(*other),
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn hex_digit(b: u8) -> Option<u8> {
    (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let q = Query::parse("labelSelector=a%3Db%2Cc+in+(d)&watch=true&x=100%&x=2");
        assert_eq!(q.text("labelSelector"), "a=b,c in (d)");
        assert!(q.flag("watch") && !q.flag("dryRun"));
        assert_eq!(q.all("x").collect::<Vec<_>>(), ["100%", "2"]);
        assert!(q.number("watch").is_err());
    }
}
