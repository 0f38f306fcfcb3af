//! Asks an addon's server what its users would ask: a name, a page.

use super::{Cluster, address};
use http::{Request, Uri};
use kube::client::Body;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// A packet lost while rules are being laid is asked again soon.
const DNS_PATIENCE: Duration = Duration::from_millis(400);
const HTTP_PATIENCE: Duration = Duration::from_secs(5);

/// The address that answered.
pub(super) async fn dns(cluster: &Cluster, server: &str, name: &str) -> Result<SocketAddr, String> {
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
        }
        _ => (server, 53),
    };
    let server = SocketAddr::new(address(cluster, host).await?, port);
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let told = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind(local).await.map_err(told)?;
    socket.connect(server).await.map_err(told)?;
    let query = query(name)?;
    socket.send(&query).await.map_err(told)?;
    let mut answer = [0; 1500];
    let length = match timeout(DNS_PATIENCE, socket.recv(&mut answer)).await {
        Ok(received) => received.map_err(told)?,
        Err(_) => return Err("silence".to_owned()),
    };
    judge(&query, answer.get(..length).unwrap_or_default()).map(|()| server)
}

/// An A query (RFC 1035, 4.1).
fn query(name: &str) -> Result<Vec<u8>, String> {
    // The socket is connected and lives for one query, so the id guards nothing.
    let mut message = vec![0x6d, 0x69, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        message.push(length.ok_or_else(|| format!("{name:?} is no DNS name"))?);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}

fn judge(query: &[u8], answer: &[u8]) -> Result<(), String> {
    let (Some(head), true) = (answer.get(..12), answer.get(..2) == query.get(..2)) else {
        return Err("not a DNS answer".to_owned());
    };
    match (head[2] & 0x80, head[3] & 0x0f, u16::from_be_bytes([head[6], head[7]])) {
        (0, ..) => Err("not a DNS answer".to_owned()),
        (_, 0, 0) => Err("the name has no address".to_owned()),
        (_, 0, _) => Ok(()),
        (_, 2, _) => Err("SERVFAIL".to_owned()),
        (_, 3, _) => Err("NXDOMAIN".to_owned()),
        (_, 5, _) => Err("REFUSED".to_owned()),
        (_, code, _) => Err(format!("response code {code}")),
    }
}

/// The status of a GET.
pub(super) async fn http(cluster: &Cluster, url: &str, wanted: Option<u16>) -> Result<u16, String> {
    let url: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let (scheme, host) = (url.scheme_str().unwrap_or("http"), url.host().unwrap_or_default());
    let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let server = SocketAddr::new(address(cluster, host).await?, port);
    let base: Uri = format!("{scheme}://{server}/").parse().map_err(|_| format!("{server} is no address"))?;
    let mut config = kube::Config::new(base);
    // What is served under this address is the addon's own, signed by itself. No roots: the machine may have none.
    config.accept_invalid_certs = true;
    config.root_cert = Some(Vec::new());
    config.default_retry = false;
    // A page that is not up yet is no error of ours, and a certificate that nobody checks no warning.
    let client = tracing::subscriber::with_default(NoSubscriber::default(), || kube::Client::try_from(config));
    let client = client.map_err(|error| error.to_string())?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = client.send(request).with_subscriber(NoSubscriber::default());
    let answer = match timeout(HTTP_PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| cause(&error))?,
        Err(_) => return Err("silence".to_owned()),
    };
    let status = answer.status().as_u16();
    match wanted {
        Some(wanted) if wanted != status => Err(format!("status {status}, not {wanted}")),
        None if status >= 400 => Err(format!("status {status}")),
        _ => Ok(status),
    }
}

/// The innermost error says it best: connection refused.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_answers() {
        let query = query("kubernetes.default.").unwrap();
        assert_eq!(&query[12..], b"\x0akubernetes\x07default\0\0\x01\0\x01");
        assert!(super::query("a..b").is_err());
        let answer =
            |flags: u8, code: u8, count: u8| judge(&query, &[0x6d, 0x69, flags, code, 0, 1, 0, count, 0, 0, 0, 0]);
        assert_eq!(answer(0x81, 0x80, 1), Ok(()));
        assert_eq!(answer(0x81, 0x83, 0), Err("NXDOMAIN".into()));
        assert_eq!(answer(0x81, 0x80, 0), Err("the name has no address".into()));
        assert_eq!(answer(0x01, 0, 1), Err("not a DNS answer".into()));
        assert!(judge(&query, &[0x6d, 0x69]).is_err());
    }
}
