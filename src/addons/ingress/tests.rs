//! The proxy through real sockets, with backends in this process.

mod exchanges;
mod hostile;
mod secure;
mod streams;

use super::certificates;
use super::listen::{Doors, Workers};
use super::settings::Settings;
use super::table::{Backend, Live, Matcher, Route, Table};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mini_client::CancellationToken;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy.
struct Proxy {
    live: Arc<Live>,
    workers: Workers,
    cancel: CancellationToken,
}

impl Proxy {
    fn start(table: Table) -> Self {
        let live = Arc::new(Live::new(table));
        let cancel = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let doors = Doors { http: any, https: any, http_port: 80, https_port: 8443, workers: 1 };
        let workers = Workers::spawn(doors, &live, &cancel).unwrap();
        Self { live, workers, cancel }
    }

    /// A proxy that sends everything to one backend.
    fn to(backend: SocketAddr) -> Self {
        Self::start(one(backend))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.workers.http).await.unwrap()
    }

    /// Sends raw bytes; what came back until the connection was closed.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("no end of {:?}", String::from_utf8_lossy(&answer))).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A request of one connection.
    async fn get(&self, host: &str, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn route(endpoints: &[SocketAddr], settings: Settings) -> Arc<Route> {
    let backend = Arc::new(Backend::new(endpoints.to_vec()));
    Arc::new(Route { backend, settings: Arc::new(settings), secure: false })
}

/// A table of paths of hosts.
fn table(paths: Vec<(&str, Matcher, Arc<Route>)>) -> Table {
    let mut table = Table::default();
    for (host, matcher, route) in paths {
        table.add(host, matcher, route);
    }
    table.certificates.add("", &certificates::self_signed().unwrap());
    table.arrange();
    table
}

fn one(backend: SocketAddr) -> Table {
    table(vec![("", Matcher::prefix("/"), route(&[backend], Settings::default()))])
}

/// A backend, and how many connections it got.
#[derive(Clone)]
struct Served {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Served {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A backend that treats each connection as `on` says; `on` is told its number.
async fn raw_backend<F: Future<Output = ()> + Send + 'static>(
    on: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served { address: socket.local_addr().unwrap(), connections: Arc::default() };
    let connections = served.connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(on(stream, number));
        }
    });
    served
}

/// A backend that answers HTTP.
async fn backend<B, F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Served
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future<Output = Response<B>> + Send + 'static,
{
    raw_backend(move |stream, _| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// A backend that answers with the head of each request.
async fn head_echo() -> Served {
    backend(|request| async move {
        let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
        let mut lines: Vec<String> =
            request.headers().iter().map(|(k, v)| format!("{k}: {}\n", v.to_str().unwrap_or("?"))).collect();
        lines.sort();
        text.extend(lines);
        Response::new(Full::new(Bytes::from(text)))
    })
    .await
}

/// A backend that answers with a word.
async fn word(word: &'static str) -> Served {
    backend(move |_| async move { Response::new(Full::new(Bytes::from_static(word.as_bytes()))) }).await
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Reads until the bytes read end with `end`.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let work = async {
        while !text.ends_with(end.as_bytes()) {
            text.push(stream.read_u8().await.unwrap());
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), work).await;
    assert!(done.is_ok(), "no {end:?} in {:?}", String::from_utf8_lossy(&text));
    String::from_utf8(text).unwrap()
}
