//! The admin socket: status, stop, images and addons, for the command line on this machine.
//!
//! Owns the socket file; the protocol is `mini_config::admin`. Who may open the file may do everything, so it is 0660 and
//! belongs to group `mini` where there is one.

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mini_addons::engine::Engine;
use mini_client::CancellationToken;
use mini_config::admin::{Component, Disable, Enable, Image, Reply, State, Status, Step, Stop};
use mini_kubelet::images::Images;
use mini_telemetry::Health;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

/// What the socket can reach.
pub(crate) struct Admin {
    /// Everything of the status but what changes.
    pub(crate) about: Status,
    pub(crate) health: Health,
    /// Set once containerd answers.
    pub(crate) images: OnceLock<Images>,
    /// What all pods, and those of addons, run on. Set with `images`.
    pub(crate) own_image: OnceLock<String>,
    /// Set once the API answers.
    pub(crate) addons: OnceLock<Engine>,
    pub(crate) kubeconfig: PathBuf,
    /// Where an image that is being received is kept.
    pub(crate) spool: PathBuf,
    /// The stop that was asked for.
    pub(crate) stop: watch::Sender<Option<Stop>>,
}

type Body = BoxBody<Bytes, Infallible>;
type Answer = Result<Response<Body>, Refusal>;

/// An error with its code and the sentence for the user.
struct Refusal(StatusCode, String);

impl Refusal {
    fn internal(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// Binds `path` and serves until `cancel`.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn spawn(path: &Path, admin: Arc<Admin>, cancel: CancellationToken) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    restrict(path)?;
    let path = path.to_owned();
    tokio::spawn(async move {
        while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let admin = admin.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(admin.clone(), request));
                if let Err(error) =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                {
                    tracing::debug!(%error, "admin connection ended");
                }
            });
        }
        // The file going away is how `mini stop` knows that everything is down.
        let _ = std::fs::remove_file(&path);
    });
    Ok(())
}

/// Root, and the group `mini` if the machine has one.
fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some("mini")).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    match gid {
        // Whoever is not root serves nobody else.
        Some(gid) if mini_sys::is_root() => chown(path, None, Some(gid)),
        _ => Ok(()),
    }
}

async fn answer(admin: Arc<Admin>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => json(StatusCode::OK, &admin.status()),
        (&Method::POST, "/stop") => admin.stop(request).await,
        (&Method::GET, "/kubeconfig") => admin.kubeconfig(),
        (&Method::GET, "/images") => admin.list().await,
        (&Method::POST, "/images") => admin.import(request).await,
        (&Method::DELETE, "/images") => admin.remove(&request).await,
        (&Method::GET, "/addons") => admin.addons().await,
        (&Method::POST, "/addons/enable") => admin.enable(request).await,
        (&Method::POST, "/addons/disable") => admin.disable(request).await,
        (method, path) => Err(Refusal(StatusCode::NOT_FOUND, format!("there is no {method} {path} here"))),
    };
    Ok(answer.unwrap_or_else(|Refusal(code, message)| {
        json(code, &Reply { message }).unwrap_or_else(|_| Response::new(Full::default().boxed()))
    }))
}

fn json(code: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(Refusal::internal)?;
    Response::builder()
        .status(code)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(body).boxed())
        .map_err(Refusal::internal)
}

/// A body of JSON; an empty one is the default.
async fn read<T: DeserializeOwned + Default>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = request.into_body().collect().await.map_err(Refusal::internal)?.to_bytes();
    let value = if body.is_empty() { Ok(T::default()) } else { serde_json::from_slice(&body) };
    value.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Steps as they come, one line of JSON each.
fn streamed(steps: mpsc::UnboundedReceiver<Step>) -> Answer {
    let lines = stream::unfold(steps, |mut steps| async move {
        let step = steps.recv().await?;
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), steps))
    });
    Response::builder()
        .header(http::header::CONTENT_TYPE, "application/jsonl")
        .body(BodyExt::boxed(StreamBody::new(lines)))
        .map_err(Refusal::internal)
}

impl Admin {
    fn status(&self) -> Status {
        let components = self
            .health
            .snapshot()
            .into_iter()
            .map(|line| {
                let (state, message) = match line.state {
                    mini_telemetry::State::Ready => (State::Ready, String::new()),
                    mini_telemetry::State::Waiting(what) => (State::Waiting, what),
                    mini_telemetry::State::Failed(why) => (State::Failed, why),
                };
                Component { name: line.name.to_owned(), state, message }
            })
            .collect();
        Status { running: true, ready: self.health.is_ready(), components, ..self.about.clone() }
    }

    fn kubeconfig(&self) -> Answer {
        let text = std::fs::read(&self.kubeconfig).map_err(Refusal::internal)?;
        Ok(Response::new(Full::from(text).boxed()))
    }

    async fn stop(&self, request: Request<Incoming>) -> Answer {
        self.stop.send_replace(Some(read::<Stop>(request).await?));
        json(StatusCode::ACCEPTED, &Reply { message: "stopping".to_owned() })
    }

    fn engine(&self) -> Result<&Engine, Refusal> {
        let waiting = || "the API is not up yet; see mini status".to_owned();
        self.addons.get().ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, waiting()))
    }

    async fn addons(&self) -> Answer {
        json(StatusCode::OK, &self.engine()?.list().await.map_err(Refusal::internal)?)
    }

    async fn enable(&self, request: Request<Incoming>) -> Answer {
        let Enable { addons, timeout } = read(request).await?;
        let limit = (timeout > 0).then(|| Duration::from_secs(timeout));
        streamed(self.engine()?.enable(addons, limit))
    }

    async fn disable(&self, request: Request<Incoming>) -> Answer {
        streamed(self.engine()?.disable(read::<Disable>(request).await?.addons))
    }

    fn images(&self) -> Result<&Images, Refusal> {
        let waiting = || "containerd does not answer yet; see mini status".to_owned();
        self.images.get().ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, waiting()))
    }

    async fn list(&self) -> Answer {
        let images = self.images()?.list().await.map_err(Refusal::internal)?;
        let images: Vec<Image> = images
            .into_iter()
            .map(|image| Image {
                id: image.id,
                references: image.tags.into_iter().chain(image.digests).collect(),
                size: image.size,
            })
            .collect();
        json(StatusCode::OK, &images)
    }

    /// The archive goes through a file, because reading it takes two passes.
    async fn import(&self, request: Request<Incoming>) -> Answer {
        let images = self.images()?;
        tokio::fs::create_dir_all(&self.spool).await.map_err(Refusal::internal)?;
        let file = tempfile::Builder::new()
            .prefix("image-")
            .suffix(".tar")
            .tempfile_in(&self.spool)
            .map_err(Refusal::internal)?;
        let mut out = tokio::fs::File::from_std(file.reopen().map_err(Refusal::internal)?);
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(Refusal::internal)?.into_data() {
                out.write_all(&data).await.map_err(Refusal::internal)?;
            }
        }
        out.flush().await.map_err(Refusal::internal)?;
        let imported =
            images.import(file.path()).await.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
        json(StatusCode::OK, &imported)
    }

    async fn remove(&self, request: &Request<Incoming>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let reference = form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == "ref")
            .map(|(_, value)| value.into_owned())
            .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "name the image with ?ref=".to_owned()))?;
        let images = self.images()?;
        let named = images.list().await.map_err(Refusal::internal)?.into_iter().find(|image| {
            image.tags.contains(&reference) || image.digests.contains(&reference) || image.id == reference
        });
        if let Some(own) = self.own_image.get()
            && named.is_some_and(|image| image.tags.contains(own))
        {
            let why = format!("{own} is mini's own image: every pod needs it, so it stays");
            return Err(Refusal(StatusCode::CONFLICT, why));
        }
        images.remove(&reference).await.map_err(|error| Refusal(StatusCode::NOT_FOUND, error.to_string()))?;
        json(StatusCode::OK, &[reference])
    }
}
