//! What probes and Prometheus ask: `/health`, `/ready` and `/metrics`.

use super::server::Server;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// A client has this long for a request's head.
const HEAD: Duration = Duration::from_secs(5);

/// How long an answer to `/ready` may wait for the first lists; a probe waits a second.
const LISTS: Duration = Duration::from_millis(900);

pub(super) struct Health {
    pub(super) server: Arc<Server>,
    /// Set once the end has begun.
    pub(super) leaving: AtomicBool,
}

impl Health {
    async fn answer(&self, path: &str) -> (StatusCode, String) {
        let leaving = self.leaving.load(Ordering::Relaxed);
        match path {
            "/health" | "/ready" if leaving => (StatusCode::SERVICE_UNAVAILABLE, "leaving".to_owned()),
            "/health" => (StatusCode::OK, "OK".to_owned()),
            // Says so at the moment it is, so that whoever starts it need not ask every moment.
            "/ready" => match timeout(LISTS, self.server.index.completed()).await {
                Ok(()) => (StatusCode::OK, "OK".to_owned()),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the API server's lists".to_owned()),
            },
            "/metrics" => (StatusCode::OK, self.server.metrics.text()),
            _ => (StatusCode::NOT_FOUND, "not found".to_owned()),
        }
    }
}

/// Answers for ever.
pub(super) async fn serve(health: Arc<Health>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let health = health.clone();
            async move {
                let (code, text) = health.answer(request.uri().path()).await;
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = code;
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            // One request for each connection: none is left open for nothing.
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
