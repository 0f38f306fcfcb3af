//! `mini dashboard`: a way to the dashboard from this machine, and a token to log in with.

use crate::admin_client::block_on;
use crate::output;
use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use mini_config::Config;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use tokio::net::{TcpListener, TcpStream};

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kubernetes-dashboard";
const ADMINISTRATOR: &str = "kubernetes-dashboard-admin";
/// A working day.
const TOKEN_SECONDS: i64 = 8 * 60 * 60;

#[derive(clap::Args)]
pub(crate) struct Dashboard {
    /// Print a token that may do everything for 8 hours, and nothing else
    #[arg(long)]
    token: bool,
    /// Where to make the dashboard reachable until Ctrl-C
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10443", conflicts_with = "token")]
    listen: SocketAddr,
}

impl Dashboard {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let kubeconfig = Kubeconfig::read_from(crate::config::kubeconfig(config)?)?;
        block_on(async {
            let kubeconfig = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(kubeconfig)?;
            if self.token {
                return output::print(format!("{}\n", token(client).await?));
            }
            let service = address(client).await?;
            let listener = TcpListener::bind(self.listen).await;
            let listener =
                listener.with_context(|| format!("cannot listen on {}; choose with --listen", self.listen))?;
            output::print(format!(
                "The dashboard is at https://{}/ until Ctrl-C.\n\
                 Its certificate is its own, so the browser asks. To log in, paste what this prints:\n\
                 \n  mini dashboard --token\n\n",
                listener.local_addr()?
            ))?;
            pass_on(listener, service).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn token(client: Client) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, NAMESPACE);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let parameters = kube::api::PostParams::default();
    let answer = accounts.create_token_request(ADMINISTRATOR, &parameters, &request).await.map_err(explained)?;
    answer.status.and_then(|status| status.token).context("the API server answered without a token")
}

/// The Service's address, which every node reaches as pods do.
async fn address(client: Client) -> anyhow::Result<SocketAddr> {
    let services: Api<Service> = Api::namespaced(client, NAMESPACE);
    let spec = services.get(SERVICE).await.map_err(explained)?.spec.unwrap_or_default();
    let port = spec.ports.unwrap_or_default().first().and_then(|port| u16::try_from(port.port).ok());
    let ip = spec.cluster_ip.and_then(|ip| ip.parse::<IpAddr>().ok());
    let (Some(ip), Some(port)) = (ip, port) else { bail!("the Service {NAMESPACE}/{SERVICE} has no address") };
    Ok(SocketAddr::new(ip, port))
}

fn explained(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            anyhow!("the dashboard is not enabled; enable it with `mini enable dashboard`")
        }
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            anyhow!("the API server does not answer; see `mini status`")
        }
        error => error.into(),
    }
}

/// Passes each connection on to `target`.
async fn pass_on(listener: TcpListener, target: SocketAddr) -> anyhow::Result<()> {
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            match TcpStream::connect(target).await {
                Ok(mut far) => {
                    // Browsers cut connections as they please.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                Err(error) => eprintln!("the dashboard's Service at {target} does not answer: {error}"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_are_passed_on() {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (target, address) = (far.local_addr().unwrap(), near.local_addr().unwrap());
        let passing = tokio::spawn(pass_on(near, target));
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(b"ping").await.unwrap();
        let (mut server, _) = far.accept().await.unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        server.write_all(b"pong").await.unwrap();
        drop(server);
        let mut answer = String::new();
        browser.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
        passing.abort();
    }
}
