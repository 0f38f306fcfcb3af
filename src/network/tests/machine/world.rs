//! A machine with three pods to be and an outside, all network namespaces.

use mini_network::Config;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

const SPACES: [&str; 5] = ["node", "pod1", "pod2", "pod3", "outside"];
/// The machine's address towards the outside, and the outside's own.
pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.2";

/// The namespaces, deleted when dropped.
pub(crate) struct Spaces(String);

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in SPACES {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{space}", self.0)]).status();
        }
    }
}

pub(crate) struct World {
    prefix: String,
    pub(crate) config: Config,
    runtime: tokio::runtime::Runtime,
    data: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // Settings of the whole machine go back also when a test fails.
        let _ = self.runtime.block_on(mini_network::teardown(&self.config));
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl World {
    pub(crate) fn create(prefix: &str) -> Spaces {
        let spaces = Spaces(prefix.to_owned());
        for space in SPACES {
            run("ip", &["netns", "add", &format!("{prefix}-{space}")]);
        }
        spaces
    }

    /// Called inside the machine: a cable to the outside, and the configuration of the network under test.
    pub(crate) fn new(prefix: &str) -> Self {
        let outside = format!("{prefix}-outside");
        // A new namespace takes this from the machine.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", &outside]);
        run("ip", &["addr", "add", &format!("{NODE}/24"), "dev", "up0"]);
        run("ip", &["link", "set", "up0", "mtu", "1400", "up"]);
        run("ip", &["-n", &outside, "addr", "add", &format!("{OUTSIDE}/24"), "dev", "up0"]);
        run("ip", &["-n", &outside, "link", "set", "up0", "mtu", "1400", "up"]);
        run("ip", &["-n", &outside, "link", "set", "lo", "up"]);
        run("ip", &["route", "add", "default", "via", OUTSIDE]);
        let data = tempfile::tempdir().unwrap();
        let config = Config {
            instance: "mtest".to_owned(),
            bridge: "mtest0".to_owned(),
            table: "mtest".to_owned(),
            pod_cidr: "10.77.0.0/24".parse().unwrap(),
            service_cidr: "10.78.0.0/16".parse().unwrap(),
            node_ip: NODE.parse().unwrap(),
            own_ports: vec![16443],
            data_dir: data.path().to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = Self { prefix: prefix.to_owned(), config, runtime, data };
        world.setup();
        world
    }

    pub(crate) fn setup(&self) {
        self.block_on(mini_network::setup(&self.config)).unwrap();
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn space(&self, name: &str) -> String {
        format!("/run/netns/{}-{name}", self.prefix)
    }

    /// Calls the plugin as containerd would: its answer, or its error object.
    pub(crate) fn cni(&self, command: &str, plugin: &str, pod: &str, mappings: &Value) -> Result<Value, Value> {
        let list = std::fs::read(self.data.path().join("cni/net.d/10-mini.conflist")).unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["type"] = plugin.into();
        config["runtimeConfig"] = json!({ "portMappings": mappings });
        let netns = if pod.starts_with("gone") { String::new() } else { self.space(pod) };
        let mut child = Command::new(self.data.path().join("cni/bin").join(plugin))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("container-{}", pod.trim_start_matches("gone-")))
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", if plugin == "loopback" { "lo" } else { "eth0" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    /// Starts a pod's network; its address.
    pub(crate) fn add(&self, pod: &str, mappings: &Value) -> String {
        self.cni("ADD", "loopback", pod, &Value::Null).unwrap();
        let added = self.cni("ADD", "mini", pod, mappings).unwrap();
        let address = added["ips"][0]["address"].as_str().unwrap();
        address.strip_suffix("/32").unwrap().to_owned()
    }

    /// Runs `work` on a thread inside a namespace.
    pub(crate) fn within<T: Send>(&self, space: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.space(space)).unwrap();
        std::thread::scope(|scope| {
            let entered = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            entered.join().unwrap()
        })
    }

    /// A TCP server in a namespace that answers each connection with its name and the client's address.
    pub(crate) fn serve(&self, space: &str, name: &str, port: u16) {
        let listener = self.within(space, || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let _ = stream.write_all(format!("{name} {peer}").as_bytes());
            }
        });
    }

    /// A UDP server in a namespace that answers each datagram with its name.
    pub(crate) fn serve_udp(&self, space: &str, name: &str, port: u16) {
        let socket = self.within(space, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), peer);
            }
        });
    }

    /// What a TCP server at `to` says to a client in `space`.
    pub(crate) fn ask(&self, space: &str, to: &str) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().unwrap();
        self.within(space, || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        })
    }

    /// A socket for UDP clients in `space`; asking with the same socket keeps the connection tracking entry.
    pub(crate) fn udp_socket(&self, space: &str) -> UdpSocket {
        self.within(space, || UdpSocket::bind("0.0.0.0:0").unwrap())
    }
}

/// What a UDP server at `to` says to this socket; no answer for a second is `None`.
pub(crate) fn ask_udp(socket: &UdpSocket, to: &str) -> Option<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
