//! Does the configuration fit this machine? Looks, changes nothing but the file that fixes the node's name.

use crate::sources::overlap;
use crate::{Config, Error};
use ipnet::Ipv4Net;
use mini_sys::net::Route;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

/// A program that others of ours, such as containerd, will look for in PATH.
fn check_program(name: &str, package: &str) -> Result<(), Error> {
    find_program(Path::new(name)).map(drop).ok_or_else(|| Error::Unfit(missing(name, package)))
}

fn missing(program: &str, package: &str) -> String {
    format!(
        "there is no {program} on this machine; install it (Debian and Ubuntu: `apt-get install {package}`, Fedora: `dnf install {package}`)"
    )
}

impl Config {
    /// Checks directories, networks, ports and programs, before anything is bound.
    ///
    /// # Errors
    /// With one sentence that says what is in the way and what to do.
    pub fn check_machine(&self) -> Result<(), Error> {
        self.check_root()?;
        self.check_directory(&self.data_dir, "data-dir")?;
        self.check_directory(&self.run_dir, "run-dir")?;
        self.check_ports()?;
        if !self.api_only {
            self.check_networks()?;
            self.containerd_path()?;
            check_program("runc", "runc")?;
            check_program("nft", "nftables")?;
        }
        self.node_name()?;
        Ok(())
    }

    /// Checks that pods and Services get addresses that mean nothing else here.
    ///
    /// # Errors
    /// With one sentence that says which network is in the way.
    pub fn check_networks(&self) -> Result<(), Error> {
        self.check_routes(&mini_sys::net::routes())
    }

    /// # Errors
    /// When this process may not do what a node needs.
    pub fn check_root(&self) -> Result<(), Error> {
        if self.api_only || mini_sys::is_root() {
            return Ok(());
        }
        Err(Error::Unfit("mini must run as root; use sudo".to_owned()))
    }

    fn check_directory(&self, path: &Path, key: &str) -> Result<(), Error> {
        // The nearest part that exists tells whether the rest can be made.
        let there = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
        let unfit = |why: &str| Err(Error::Unfit(format!("{key} {} {why}", path.display())));
        if !there.is_dir() {
            return unfit(&format!("cannot be made: {} is not a directory", there.display()));
        }
        use rustix::fs::{Access, access};
        match access(there, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(error) => unfit(&format!(
                "is not writable ({}); make it writable or choose another with `{key}`",
                std::io::Error::from(error)
            )),
        }
    }

    fn check_routes(&self, routes: &[Route]) -> Result<(), Error> {
        for (key, net) in [("pod-cidr", self.pod_cidr), ("service-cidr", self.service_cidr)] {
            let others = routes.iter().filter(|route| route.device != self.instance.bridge);
            if let Some(route) = route_into(net, others) {
                return Err(Error::Unfit(format!(
                    "{key} {net} overlaps {}/{}, which this machine reaches through {}; choose another network with `{key}`",
                    route.destination, route.prefix, route.device
                )));
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Error> {
        let kubelet = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for (key, address, port) in
            [("api-port", self.api_address, self.api_port), ("kubelet-port", kubelet, self.kubelet_port)]
        {
            if let Err(error) = TcpListener::bind((address, port)) {
                let who = mini_sys::listeners::on_tcp_port(port);
                return Err(Error::Unfit(match who {
                    Some(who) => {
                        format!("port {port} is taken by {who}; stop that, or choose another with `{key}`")
                    }
                    None => format!("cannot listen on {address} port {port}: {error}; choose another with `{key}`"),
                }));
            }
        }
        Ok(())
    }

    /// The containerd executable.
    ///
    /// # Errors
    /// When there is none.
    pub fn containerd_path(&self) -> Result<PathBuf, Error> {
        find_program(&self.containerd).ok_or_else(|| {
            Error::Unfit(format!(
                "{} or name it with `containerd`",
                missing(&self.containerd.display().to_string(), "containerd")
            ))
        })
    }

    /// The node's name: as fixed at the first start, else as set, else from the host name.
    ///
    /// # Errors
    /// When a name is set that is not the one of the first start.
    pub fn node_name(&self) -> Result<String, Error> {
        let fixed = std::fs::read_to_string(self.node_name_file()).unwrap_or_default().trim().to_owned();
        match &self.node_name_setting {
            Some(set) if !fixed.is_empty() && *set != fixed => Err(Error::Unfit(format!(
                "node-name is {set:?}, but this node has been {fixed:?} since its first start; set that, or begin anew with `mini reset`"
            ))),
            Some(set) => Ok(set.clone()),
            None if !fixed.is_empty() => Ok(fixed),
            None => Ok(sanitised(&mini_sys::hostname())),
        }
    }

    /// Writes the node's name down, so that a change of the host name does not make another node of this one.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn fix_node_name(&self) -> Result<String, Error> {
        let name = self.node_name()?;
        let path = self.node_name_file();
        if !path.exists() {
            std::fs::write(&path, format!("{name}\n"))
                .map_err(|error| Error::Unfit(format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(name)
    }

    fn node_name_file(&self) -> PathBuf {
        self.data_dir.join("node-name")
    }

    /// The address of the pod bridge: the first of the pod network.
    #[must_use]
    pub fn bridge_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()) + 1)
    }

    /// The node's address now: as set, else the default route's, else any other, else the pod bridge's.
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        self.node_ip_setting
            .or_else(|| {
                mini_sys::net::node_address(&["mini", "docker", "br-", "virbr", "cni", "veth", "podman", "lxc", "lxd"])
            })
            .unwrap_or(IpAddr::V4(self.bridge_ip()))
    }
}

/// The first of a machine's routes that leads into `net` already. The default route leads everywhere, and does not count.
#[must_use]
pub fn route_into<'a>(net: Ipv4Net, routes: impl IntoIterator<Item = &'a Route>) -> Option<&'a Route> {
    routes.into_iter().find(|route| {
        let taken = Ipv4Net::new(route.destination, route.prefix);
        route.prefix > 0 && taken.is_ok_and(|taken| overlap(taken.trunc(), net))
    })
}

/// An executable by path, or by name in PATH and the usual places.
#[must_use]
pub fn find_program(program: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(runs);
    }
    // A service manager's PATH may be short.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(runs)
}

/// A host name as a node's name: upper case made lower, other characters "-", cut to length.
pub(crate) fn sanitised(hostname: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let mapped: String = hostname.chars().map(plain).take(253).collect();
    let labels: Vec<String> = mapped
        .split('.')
        .map(|label| label.trim_matches('-').chars().take(63).collect::<String>().trim_matches('-').to_owned())
        .filter(|label| !label.is_empty())
        .collect();
    if labels.is_empty() { "mini".to_owned() } else { labels.join(".") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;
    use crate::fields::is_dns_subdomain;

    #[test]
    fn host_names_become_node_names() {
        for (host, node) in
            [("Web_01", "web-01"), ("--a..b--", "a.b"), ("", "mini"), ("ü", "mini"), ("h.Example.ORG", "h.example.org")]
        {
            assert_eq!(sanitised(host), node);
            assert!(is_dns_subdomain(&sanitised(host)));
        }
        assert!(is_dns_subdomain(&sanitised(&"x".repeat(400))));
    }

    #[test]
    fn a_clash_with_a_route_is_named() {
        let config = Config::load(&Sources::default()).unwrap();
        let route = |device: &str, destination: [u8; 4], prefix| Route {
            device: device.into(),
            destination: destination.into(),
            prefix,
        };
        config
            .check_routes(&[
                route("eth0", [0; 4], 0),
                route("mini0", [10, 1, 0, 0], 24),
                route("eth0", [10, 2, 0, 0], 16),
            ])
            .unwrap();
        let error = config.check_routes(&[route("tun0", [10, 0, 0, 0], 8)]).unwrap_err().to_string();
        assert!(error.contains("pod-cidr 10.1.0.0/16 overlaps 10.0.0.0/8") && error.contains("tun0"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let socket = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut config = Config::load(&Sources::default()).unwrap();
        config.api_port = port;
        let error = config.check_ports().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("port {port} is taken by ")) && error.contains(&std::process::id().to_string()),
            "{error}"
        );
    }

    #[test]
    fn the_node_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::load(&Sources::default()).unwrap();
        config.data_dir = directory.path().to_owned();
        config.node_name_setting = Some("first".into());
        assert_eq!(config.fix_node_name().unwrap(), "first");
        config.node_name_setting = None;
        assert_eq!(config.fix_node_name().unwrap(), "first");
        config.node_name_setting = Some("second".into());
        assert!(config.node_name().unwrap_err().to_string().contains("mini reset"));
    }
}
