//! The floor of a pod: sandbox, create and start straight over CRI, one after the other and all at once.

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig,
    PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

#[derive(clap::Args)]
pub(crate) struct Cri {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    image: String,
    /// The parent cgroup of the pods
    #[arg(long, default_value = "/mini-bench")]
    cgroup: String,
    #[arg(long, default_value_t = 10)]
    single: usize,
    #[arg(long, default_value_t = 50)]
    burst: usize,
}

type Client = RuntimeServiceClient<Channel>;

impl Cri {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let socket = self.socket.clone();
        let channel = Endpoint::from_static("http://containerd")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            }))
            .await
            .context("cannot connect to containerd")?;
        let client = RuntimeServiceClient::new(channel);
        let mut took = Vec::new();
        for n in 0..self.single {
            let begun = Instant::now();
            let id = start(client.clone(), &self.image, &self.cgroup, format!("floor-{n}")).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            remove(client.clone(), id).await?;
        }
        let begun = Instant::now();
        let pods: Vec<_> = (0..self.burst)
            .map(|n| {
                let (client, image, cgroup) = (client.clone(), self.image.clone(), self.cgroup.clone());
                tokio::spawn(async move { start(client, &image, &cgroup, format!("floor-burst-{n}")).await })
            })
            .collect();
        let mut ids = Vec::new();
        let mut failed = None;
        for pod in pods {
            match pod.await? {
                Ok(id) => ids.push(id),
                Err(error) => failed = Some(error),
            }
        }
        let burst = begun.elapsed().as_secs_f64();
        for id in ids {
            remove(client.clone(), id).await?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(json!({"ready": crate::percentiles(took), "burst": {"n": self.burst, "ready_s": burst}})),
        }
    }
}

async fn start(mut client: Client, image: &str, cgroup: &str, name: String) -> anyhow::Result<String> {
    let sandbox = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            uid: format!("uid-{name}"),
            namespace: "bench".into(),
            attempt: 0,
            name: name.clone(),
        }),
        hostname: name.clone(),
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: format!("{cgroup}/{name}"), ..Default::default() }),
        ..Default::default()
    };
    let request = RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
    let pod_sandbox_id = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.to_owned(), ..Default::default() }),
        command: vec!["/bin/sleep".into(), "1000000".into()],
        linux: Some(LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(sandbox),
    };
    let container_id = client.create_container(request).await?.into_inner().container_id;
    client.start_container(StartContainerRequest { container_id }).await?;
    Ok(pod_sandbox_id)
}

async fn remove(mut client: Client, pod_sandbox_id: String) -> anyhow::Result<()> {
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
    Ok(())
}
