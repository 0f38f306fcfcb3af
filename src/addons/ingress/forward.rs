//! Headers: what a backend is told of the client, and what stays between two neighbours.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that are only about one connection (RFC 9110, 7.6.1).
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The far end of a connection, as backends are told of it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) tls: bool,
    address: HeaderValue,
    port: HeaderValue,
}

impl Client {
    /// `port` is the one that clients know this side by.
    pub(super) fn new(peer: SocketAddr, tls: bool, port: u16) -> Self {
        let ip: IpAddr = peer.ip().to_canonical();
        let value = |text: String| HeaderValue::from_maybe_shared(bytes::Bytes::from(text));
        let unknown = HeaderValue::from_static("unknown");
        Self { tls, address: value(ip.to_string()).unwrap_or(unknown), port: port.into() }
    }

    fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls { "https" } else { "http" })
    }
}

/// Takes away what is not for the other side, also what the message itself names in `Connection`.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            // What makes the message whole is not the client's to remove.
            .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// The words of a list of tokens, over all of its lines.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// Makes a client's headers those of our request. What it says of itself is replaced by what we see, because anyone can
/// write such headers.
pub(super) fn outgoing(headers: &mut HeaderMap, client: &Client, host: &HeaderValue) {
    drop_hop_by_hop(headers);
    // We have answered that already.
    headers.remove(header::EXPECT);
    headers.remove(header::FORWARDED);
    // Programs that put headers into variables cannot tell these from ours.
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| {
            let plain = name.as_str().replace('_', "-");
            plain.starts_with("x-forwarded-") || plain == "x-real-ip"
        })
        .cloned()
        .collect();
    for alias in aliases {
        headers.remove(alias);
    }
    // HTTP/2 clients send each cookie by itself.
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
    headers.insert(header::HOST, host.clone());
    headers.insert(FORWARDED_FOR, client.address.clone());
    headers.insert(REAL_IP, client.address.clone());
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED_PORT, client.port.clone());
    headers.insert(FORWARDED_PROTO, client.scheme());
    headers.insert(FORWARDED_SCHEME, client.scheme());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sorted(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<String> = headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_of_one_connection_stays() {
        let mut message = headers(&[
            ("connection", "close, x-secret ,Host"),
            ("connection", "keep-alive"),
            ("keep-alive", "5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("host", "a"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
        ]);
        drop_hop_by_hop(&mut message);
        assert_eq!(sorted(&message), ["accept: */*", "host: a", "trailer: x"]);
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let client = Client::new("[::ffff:192.0.2.7]:1234".parse().unwrap(), true, 443);
        let mut message = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_real-ip", "10.0.0.1"),
            ("my_header", "kept"),
            ("forwarded", "for=10.0.0.1"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ]);
        outgoing(&mut message, &client, &HeaderValue::from_static("a.b:8443"));
        assert_eq!(
            sorted(&message),
            [
                "cookie: a=1; b=2",
                "host: a.b:8443",
                "my_header: kept",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a.b:8443",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-forwarded-scheme: https",
                "x-real-ip: 192.0.2.7",
            ]
        );
    }
}
