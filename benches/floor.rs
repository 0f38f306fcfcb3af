//! The floor of what an API server does on this machine: hyper, rustls and SQLite with `synchronous=FULL` and group commit,
//! and nothing else. What is posted is kept, durably; a GET of `/1000` is answered with a thousand bytes.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

#[derive(clap::Args)]
pub(crate) struct Floor {
    /// A directory on the disk that is measured; `ca.crt` is put there for clients
    #[arg(long)]
    directory: PathBuf,
    #[arg(long, default_value_t = 0)]
    port: u16,
}

type Write = (Bytes, oneshot::Sender<()>);

/// The longest answer of a GET.
const LONGEST: usize = 32 << 20;
static CONTENT: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; LONGEST].into());

impl Floor {
    /// Runs until it is killed; prints the address first.
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        std::fs::create_dir_all(&self.directory)?;
        let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        std::fs::write(self.directory.join("ca.crt"), issued.cert.pem())?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (writes, queue) = channel();
        let database = self.directory.join("floor.db");
        std::thread::spawn(move || {
            if let Err(error) = commit_groups(&database, &queue) {
                eprintln!("floor: {error:#}");
            }
        });
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let (acceptor, writes) = (acceptor.clone(), writes.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = service_fn(move |request| answer(request, writes.clone()));
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

async fn answer(request: Request<Incoming>, writes: Sender<Write>) -> anyhow::Result<Response<Full<Bytes>>> {
    if *request.method() == Method::GET {
        let length: usize = request.uri().path().trim_start_matches('/').parse()?;
        return Ok(Response::new(Full::new(CONTENT.slice(..length.min(LONGEST)))));
    }
    let body = request.into_body().collect().await?.to_bytes();
    let (done, committed) = oneshot::channel();
    writes.send((body.clone(), done))?;
    committed.await?;
    Ok(Response::builder().status(StatusCode::CREATED).body(Full::new(body))?)
}

/// Everything that waits goes into one transaction.
fn commit_groups(path: &Path, queue: &Receiver<Write>) -> anyhow::Result<()> {
    let mut connection = rusqlite::Connection::open(path).context("cannot open the floor's database")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")?;
    while let Ok(first) = queue.recv() {
        let group: Vec<Write> = std::iter::once(first).chain(queue.try_iter()).collect();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO kept (value) VALUES (?)")?;
            for (body, _) in &group {
                insert.execute([&**body])?;
            }
        }
        transaction.commit()?;
        for (_, done) in group {
            let _ = done.send(());
        }
    }
    Ok(())
}
