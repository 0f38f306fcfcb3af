//! The API server alone, to look at with kubectl: `serve DIR [PORT]` prints the path of an admin kubeconfig.

use mini_apiserver::{ApiServer, Config, KubeletClient, Listener, ServiceAccounts, TlsFiles};
use mini_store::Store;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: serve DIR [PORT]")?);
    let port: u16 = args.next().map_or(Ok(0), |p| p.parse())?;
    std::fs::create_dir_all(&dir)?;
    let subjects = mini_pki::Subjects {
        node_name: "node".to_owned(),
        host_name: "localhost".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        service_ip: "10.152.183.1".parse()?,
        node_ips: Vec::new(),
        extra_sans: Vec::new(),
    };
    let pki = mini_pki::Pki::ensure(&dir.join("pki"), &subjects)?;
    let tls = |pair: &mini_pki::Pair| TlsFiles { cert: pair.cert.clone(), key: pair.key.clone() };
    let config = Config {
        listen: ([127, 0, 0, 1], port).into(),
        advertise: [192, 0, 2, 1].into(),
        tls: tls(&pki.apiserver),
        client_ca: pki.ca.clone(),
        service_account: ServiceAccounts {
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            key: pki.service_account.key.clone(),
        },
        service_cidr: "10.152.183.0/24".parse()?,
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".to_owned(),
        kubelet_client: Some(KubeletClient { tls: tls(&pki.apiserver_kubelet), ca: pki.ca.clone() }),
        static_tokens: BTreeMap::new(),
        audit: None,
    };
    let store = Store::open(mini_store::Config::new(dir.join("store.db")))?;
    let server = ApiServer::new(config, store.clone())?;
    let listener = Listener::bind(&server.config).await?;
    let kubeconfig = dir.join("admin.conf");
    std::fs::write(&kubeconfig, pki.admin_kubeconfig(&format!("https://{}", listener.address()))?)?;
    println!("{}", kubeconfig.display());
    let cancel = CancellationToken::new();
    let on_signal = cancel.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        on_signal.cancel();
    });
    listener.run(server, cancel).await?;
    store.close().await;
    Ok(())
}
