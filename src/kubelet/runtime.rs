//! containerd's gRPC doors: the CRI services and, for images and events, containerd's own.
//!
//! A thin layer: one method for each call the kubelet makes, with its deadline. Knows no pod.

use crate::metrics::operations::Operations;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{
    content_client::ContentClient, diff_client::DiffClient, events_client::EventsClient, images_client::ImagesClient,
    leases_client::LeasesClient,
};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse, Image, ImageSpec, ImageStatusRequest,
    ListContainersRequest, ListImagesRequest, ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStatus, PodSandboxStatusRequest, PortForwardRequest, PullImageRequest, RemoveContainerRequest,
    RemoveImageRequest, RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest,
    StartContainerRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest, VersionResponse,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

/// containerd's namespace for what CRI made.
pub(crate) const NAMESPACE: &str = "k8s.io";
/// Deadline of an ordinary call.
const CALL: Duration = Duration::from_secs(120);
/// Deadline of a sandbox, whose network plugin may be slow.
const SANDBOX: Duration = Duration::from_secs(240);
/// Lists of hundreds of containers are larger than tonic's default.
const MESSAGE: usize = 64 << 20;

type Result<T> = std::result::Result<T, Status>;

/// Clones share one connection, which is made at the first call and again after a loss.
#[derive(Clone)]
pub struct Runtime {
    channel: Channel,
    cri: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    operations: Arc<Operations>,
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

impl Runtime {
    /// A client of the containerd that listens (or will) on `socket`.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let channel =
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            }));
        Self {
            cri: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE),
            channel,
            operations: Arc::default(),
        }
    }

    /// What was asked of containerd's CRI so far.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    async fn call<T>(&self, operation: &'static str, call: impl Future<Output = Result<Response<T>>>) -> Result<T> {
        let begun = Instant::now();
        let answer = call.await;
        self.operations.count(operation, begun.elapsed(), answer.is_err());
        answer.map(Response::into_inner)
    }

    pub(crate) async fn version(&self) -> Result<VersionResponse> {
        let request = timed(VersionRequest { version: "v1".into() }, Duration::from_secs(5));
        self.call("version", self.cri.clone().version(request)).await
    }

    /// `Err` text of each runtime condition that does not hold (`NetworkReady` before the CNI configuration exists).
    pub(crate) async fn conditions(&self) -> Result<Vec<(String, bool, String)>> {
        let request = timed(StatusRequest::default(), Duration::from_secs(10));
        let status = self.call("status", self.cri.clone().status(request)).await?.status.unwrap_or_default();
        Ok(status.conditions.into_iter().map(|c| (c.r#type, c.status, c.message)).collect())
    }

    pub(crate) async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let request = timed(RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }, SANDBOX);
        Ok(self.call("run_podsandbox", self.cri.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = timed(StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }, SANDBOX);
        absent_is_fine(self.call("stop_podsandbox", self.cri.clone().stop_pod_sandbox(request)).await.map(drop))
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = timed(RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }, CALL);
        absent_is_fine(self.call("remove_podsandbox", self.cri.clone().remove_pod_sandbox(request)).await.map(drop))
    }

    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let request = timed(PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false }, CALL);
        Ok(self
            .call("podsandbox_status", self.cri.clone().pod_sandbox_status(request))
            .await?
            .status
            .unwrap_or_default())
    }

    /// Sandboxes whose labels include `labels`.
    pub(crate) async fn sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<PodSandbox>> {
        let filter = PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = timed(ListPodSandboxRequest { filter: Some(filter) }, CALL);
        Ok(self.call("list_podsandbox", self.cri.clone().list_pod_sandbox(request)).await?.items)
    }

    /// Containers whose labels include `labels`.
    pub(crate) async fn containers(&self, labels: HashMap<String, String>) -> Result<Vec<Container>> {
        let filter = ContainerFilter { label_selector: labels, ..Default::default() };
        let request = timed(ListContainersRequest { filter: Some(filter) }, CALL);
        Ok(self.call("list_containers", self.cri.clone().list_containers(request)).await?.containers)
    }

    pub(crate) async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let message = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.call("create_container", self.cri.clone().create_container(timed(message, CALL))).await?.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let request = timed(StartContainerRequest { container_id: id.to_owned() }, CALL);
        self.call("start_container", self.cri.clone().start_container(request)).await.map(drop)
    }

    /// SIGTERM (or the image's stop signal), then SIGKILL after `grace` seconds.
    pub(crate) async fn stop_container(&self, id: &str, grace: i64) -> Result<()> {
        let deadline = CALL + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let request = timed(StopContainerRequest { container_id: id.to_owned(), timeout: grace }, deadline);
        absent_is_fine(self.call("stop_container", self.cri.clone().stop_container(request)).await.map(drop))
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let request = timed(RemoveContainerRequest { container_id: id.to_owned() }, CALL);
        absent_is_fine(self.call("remove_container", self.cri.clone().remove_container(request)).await.map(drop))
    }

    pub(crate) async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let request = timed(ContainerStatusRequest { container_id: id.to_owned(), verbose: false }, CALL);
        Ok(self.call("container_status", self.cri.clone().container_status(request)).await?.status.unwrap_or_default())
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = timed(ReopenContainerLogRequest { container_id: id.to_owned() }, CALL);
        self.call("reopen_container_log", self.cri.clone().reopen_container_log(request)).await.map(drop)
    }

    /// Runs a command to its end; `timeout` zero means none.
    pub(crate) async fn exec_sync(&self, id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncResponse> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(0);
        let message = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
        let request = if seconds == 0 { Request::new(message) } else { timed(message, timeout + CALL) };
        self.call("exec_sync", self.cri.clone().exec_sync(request)).await
    }

    /// The address of a one-time stream.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<String> {
        Ok(self.call("exec", self.cri.clone().exec(timed(request, CALL))).await?.url)
    }

    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<String> {
        Ok(self.call("attach", self.cri.clone().attach(timed(request, CALL))).await?.url)
    }

    pub(crate) async fn port_forward(&self, sandbox: &str) -> Result<String> {
        let message = PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: Vec::new() };
        Ok(self.call("port_forward", self.cri.clone().port_forward(timed(message, CALL))).await?.url)
    }

    /// The image of a name, digest or id; `None` when it is not on this machine.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Image>> {
        let message = ImageStatusRequest { image: Some(spec(name)), verbose: false };
        Ok(self.call("image_status", self.images.clone().image_status(timed(message, CALL))).await?.image)
    }

    pub(crate) async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self
            .call("list_images", self.images.clone().list_images(timed(ListImagesRequest::default(), CALL)))
            .await?
            .images)
    }

    /// Removes an image with all its names.
    pub(crate) async fn remove_image(&self, name: &str) -> Result<()> {
        let request = timed(RemoveImageRequest { image: Some(spec(name)) }, CALL);
        absent_is_fine(self.call("remove_image", self.images.clone().remove_image(request)).await.map(drop))
    }

    /// Pulls; the id of the image. No deadline of its own: a large image takes what it takes.
    pub(crate) async fn pull(
        &self,
        name: &str,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String> {
        let message = PullImageRequest { image: Some(spec(name)), auth, sandbox_config };
        Ok(self.call("pull_image", self.images.clone().pull_image(Request::new(message))).await?.image_ref)
    }

    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) fn image_names(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }

    pub(crate) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }
}

pub(crate) fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

fn absent_is_fine(answer: Result<()>) -> Result<()> {
    match answer {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other,
    }
}
