//! A web server that does next to nothing, and clients that ask it, directly or through a reverse proxy.
//!
//! Both speak just enough HTTP/1.1 to measure what stands between them, not themselves.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(clap::Args)]
pub(crate) struct WebServe {
    /// Where to listen
    #[arg(long)]
    address: SocketAddr,
    /// Size of the page
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
}

#[derive(clap::Args)]
pub(crate) struct WebGet {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    host: String,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl WebServe {
    /// Runs until it is killed; prints the address first.
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let socket = TcpListener::bind(self.address).await?;
        println!("{}", socket.local_addr()?);
        let page = "x".repeat(self.bytes);
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{page}", self.bytes);
        let answer: Arc<[u8]> = answer.into_bytes().into();
        loop {
            let (mut stream, _) = socket.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 << 10];
                let mut filled = 0;
                while let Ok(read @ 1..) = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await {
                    filled += read;
                    // Requests have no body, and come one at a time.
                    if buffer.get(..filled).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
                        filled = 0;
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }
}

impl WebGet {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let request: Arc<[u8]> =
            format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", self.host)
                .into_bytes()
                .into();
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let failures = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let clients: Vec<_> = (0..self.connections)
            .map(|_| {
                let (request, failures, address) = (request.clone(), failures.clone(), self.address);
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    if let Err(error) = client(address, &request, end, &mut times).await {
                        failures.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{error:#}");
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await?);
        }
        let seconds = begun.elapsed().as_secs_f64();
        if failures.load(Ordering::Relaxed) > 0 || times.is_empty() {
            bail!("{} of {} clients failed", failures.load(Ordering::Relaxed), self.connections);
        }
        #[allow(clippy::cast_precision_loss)]
        let rate = (times.len() as f64 / seconds).round();
        let mut result = crate::percentiles(times);
        result["per_second"] = json!(rate);
        Ok(result)
    }
}

async fn client(address: SocketAddr, request: &[u8], end: Instant, times: &mut Vec<f64>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    while Instant::now() < end {
        let begun = Instant::now();
        stream.write_all(request).await?;
        buffer.clear();
        let whole = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                bail!("the connection was closed");
            }
            match length(&buffer)? {
                Some(whole) if buffer.len() >= whole => break whole,
                _ => {}
            }
        };
        if buffer.len() > whole {
            bail!("more came than was asked for");
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// Length of the whole answer, once its head is there. It must be a 200 with a length.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(answer.get(..head).unwrap_or_default())?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("answered {:?}", text.lines().next().unwrap_or_default());
    }
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let body = lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body: usize = body.context("no Content-Length")?.1.trim().parse()?;
    Ok(Some(head + 4 + body))
}
