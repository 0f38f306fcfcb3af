//! What commonly goes wrong: one function each in one table, with a sentence that says what to do.

use mini_config::Config;
use mini_config::admin::{Addons, State, Status};
use mini_sys::listeners::Listeners;
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It works, but better to know.
    Note(String),
    /// It keeps mini or pods from working, or soon will.
    Problem(String),
}

use Finding::{Note, Problem};

impl Finding {
    pub(super) fn is_problem(&self) -> bool {
        matches!(self, Problem(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note(text) => write!(f, "note: {text}"),
            Problem(text) => write!(f, "problem: {text}"),
        }
    }
}

/// What the checks look at.
pub(super) struct Machine {
    pub(super) config: Config,
    pub(super) status: Option<Status>,
    pub(super) addons: Option<Addons>,
    failure: Option<String>,
    root: PathBuf,
}

impl Machine {
    pub(super) fn look(config: &Config, status: Option<Status>, addons: Option<Addons>) -> Self {
        let failure = crate::preflight::last_failure(config);
        Self { config: config.clone(), status, addons, failure, root: PathBuf::from("/") }
    }

    /// A file of the machine, empty when there is none.
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path.trim_start_matches('/'))).unwrap_or_default()
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path).trim().parse().ok()
    }

    fn is_running(&self) -> bool {
        self.status.is_some()
    }

    fn has_cluster(&self) -> bool {
        self.config.database().exists()
    }
}

/// In the order of telling: what is wrong with mini, then why that may be.
const CHECKS: &[fn(&Machine) -> Vec<Finding>] = &[
    not_root,
    running,
    components,
    addons,
    programs,
    ports,
    http_ports,
    overlapping_networks,
    certificates,
    disk,
    memory,
    swap,
    cgroups,
    host_name,
    node_address,
    default_route,
    resolver,
    forwarding,
    old_iptables,
    host_firewall,
    selinux,
    inotify,
    aio,
    wsl,
];

pub(super) fn all(machine: &Machine) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(machine)).collect()
}

fn one(holds: bool, finding: impl FnOnce() -> Finding) -> Vec<Finding> {
    if holds { vec![finding()] } else { Vec::new() }
}

fn not_root(_: &Machine) -> Vec<Finding> {
    one(!mini_sys::is_root(), || Note("not everything can be seen without root; run `sudo mini inspect`".to_owned()))
}

fn running(m: &Machine) -> Vec<Finding> {
    if m.is_running() {
        return Vec::new();
    }
    match &m.failure {
        Some(why) => vec![Problem(format!("mini does not run; its last start failed: {why}"))],
        None if m.has_cluster() => vec![Problem("mini does not run; start it with `mini start`".to_owned())],
        None => vec![Note("there is no cluster on this machine yet; make one with `mini start`".to_owned())],
    }
}

fn components(m: &Machine) -> Vec<Finding> {
    let parts = m.status.iter().flat_map(|status| &status.components);
    parts
        .filter_map(|part| match part.state {
            State::Ready => None,
            State::Waiting => Some(Note(format!("{} is waiting {}", part.name, part.message))),
            State::Failed => Some(Problem(format!("{} failed: {}", part.name, part.message))),
        })
        .collect()
}

fn addons(m: &Machine) -> Vec<Finding> {
    let Some(known) = &m.addons else { return Vec::new() };
    let ill = known.addons.iter().filter(|addon| !addon.message.is_empty());
    let ill = ill.map(|addon| Problem(format!("the addon {} does not work: {}", addon.name, addon.message)));
    ill.chain(known.warnings.iter().cloned().map(Problem)).collect()
}

fn programs(m: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(error) = m.config.containerd_path() {
        found.push(Problem(error.to_string()));
    }
    for (program, package) in [("runc", "runc"), ("nft", "nftables")] {
        if mini_config::find_program(Path::new(program)).is_none() {
            found.push(Problem(format!(
                "there is no {program} on this machine; install it (Debian and Ubuntu: `apt-get install {package}`)"
            )));
        }
    }
    found
}

/// While mini runs it holds them itself.
fn ports(m: &Machine) -> Vec<Finding> {
    if m.is_running() {
        return Vec::new();
    }
    let listeners = Listeners::read();
    [("api-port", m.config.api_port), ("kubelet-port", m.config.kubelet_port)]
        .into_iter()
        .filter(|(_, port)| TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, *port)).is_err())
        .map(|(key, port)| {
            let who = listeners.on("tcp", port).map_or("another program".to_owned(), |who| who.to_string());
            Problem(format!("port {port} is taken by {who}; stop that, or choose another with `{key}`"))
        })
        .collect()
}

/// The ingress wants them; a DNAT rule of mini's would take them from whoever listens.
fn http_ports(m: &Machine) -> Vec<Finding> {
    let wants = m.addons.iter().flat_map(|known| &known.addons).any(|addon| addon.name == "ingress" && addon.enabled);
    let listeners = Listeners::read();
    let taken = [80, 443].into_iter().filter_map(|port| Some((port, listeners.on("tcp", port)?)));
    // Our own pods listen in namespaces of theirs, or are mini.
    taken
        .filter(|(_, who)| who.name.as_deref() != Some("mini"))
        .map(|(port, who)| {
            let text = format!("port {port} is taken by {who}; an ingress can serve there only when that has stopped");
            if wants { Problem(text) } else { Note(text) }
        })
        .collect()
}

fn overlapping_networks(m: &Machine) -> Vec<Finding> {
    match m.config.check_networks() {
        Err(error) => vec![Problem(error.to_string())],
        Ok(()) => Vec::new(),
    }
}

fn certificates(m: &Machine) -> Vec<Finding> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(m.config.pki_dir()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let soon = SystemTime::now() + Duration::from_secs(3 * 86_400);
    let ends = |path: &PathBuf| Some((path.clone(), mini_pki::not_after(&std::fs::read_to_string(path).ok()?)?));
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "crt"))
        .filter_map(ends)
        .filter(|(_, end)| *end < soon)
        .map(|(path, end)| {
            let when = if end < SystemTime::now() { "has expired" } else { "expires within 3 days" };
            let what = if path.file_stem().is_some_and(|stem| stem == "ca") {
                "make a new cluster identity by removing the directory and starting again; all kubeconfigs change then"
            } else {
                "restart mini: `mini stop --keep-pods && mini start` issues it anew"
            };
            Problem(format!("the certificate {} {when}; {what}", path.display()))
        })
        .collect()
}

/// The kubelet evicts below 10 % free, and asks to keep 15 % for images.
fn disk(m: &Machine) -> Vec<Finding> {
    let there = m.config.data_dir.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    let Ok(found) = rustix::fs::statvfs(there) else { return Vec::new() };
    let percent = |free: u64, all: u64| (free * 100).checked_div(all).unwrap_or(100);
    let (space, inodes) = (percent(found.f_bavail, found.f_blocks), percent(found.f_favail, found.f_files));
    let told = |what: &str, free: u64| {
        let text = format!("only {free} % of the {what} of {} are free; pods are evicted below 15 %", there.display());
        if free < 15 { Problem(text) } else { Note(text) }
    };
    let mut findings = one(space < 20, || told("space", space));
    findings.extend(one(inodes < 10, || told("inodes", inodes)));
    findings
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn memory(m: &Machine) -> Vec<Finding> {
    let text = m.read("/proc/meminfo");
    let mib = |key: &str| field(&text, key).map(|kib| kib / 1024);
    let small = mib("MemTotal:").filter(|all| *all <= 512);
    let full = mib("MemAvailable:").filter(|free| *free < 128);
    let mut findings = Vec::new();
    findings.extend(
        small.map(|all| Note(format!("the machine has only {all} MiB of memory; 512 MiB and more are advised"))),
    );
    findings.extend(
        full.map(|free| Problem(format!("only {free} MiB of memory are free; stop something, or pods are killed"))),
    );
    findings
}

fn swap(m: &Machine) -> Vec<Finding> {
    one(m.read("/proc/swaps").lines().count() > 1, || Note("swap is on: that works, but pods cannot use it".to_owned()))
}

fn cgroups(m: &Machine) -> Vec<Finding> {
    let controllers = m.read("/sys/fs/cgroup/cgroup.controllers");
    if !controllers.is_empty() {
        return one(!controllers.split_whitespace().any(|name| name == "memory"), || Problem(no_memory_cgroup()));
    }
    let table = m.read("/proc/cgroups");
    let enabled = |name: &str| {
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.first() == Some(&name) && fields.get(3) == Some(&"1")
        })
    };
    if !enabled("memory") {
        return vec![Problem(no_memory_cgroup())];
    }
    vec![Note("this machine uses cgroup v1, which Kubernetes is giving up; `systemd.unified_cgroup_hierarchy=1` on the kernel's command line changes that".to_owned())]
}

fn no_memory_cgroup() -> String {
    "the memory cgroup is off; add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line (Raspberry Pi: \
     /boot/firmware/cmdline.txt) and reboot"
        .to_owned()
}

fn host_name(m: &Machine) -> Vec<Finding> {
    let host = m.read("/proc/sys/kernel/hostname").trim().to_owned();
    let node = m.config.node_name().unwrap_or_default();
    let plain = host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    if !plain {
        return vec![Note(format!(
            "the host name {host:?} is no DNS name, so the node is called {node:?}; set `node-name` for another"
        ))];
    }
    one(m.has_cluster() && !host.is_empty() && host != node && m.config.node_name_setting.is_none(), || {
        Note(format!("the host is called {host:?} now, the node still {node:?}, as at its first start; that works"))
    })
}

fn node_address(m: &Machine) -> Vec<Finding> {
    let Some(status) = &m.status else { return Vec::new() };
    let now = m.config.node_ip().to_string();
    one(!status.node_ip.is_empty() && status.node_ip != now, || {
        Problem(format!(
            "the machine's address is {now}, but mini started with {}; restart it (`mini stop --keep-pods && mini start`), \
             or fix the address with `node-ip`",
            status.node_ip
        ))
    })
}

fn default_route(m: &Machine) -> Vec<Finding> {
    one(!mini_sys::net::routes().iter().any(|route| route.prefix == 0), || {
        Note(format!("there is no default route; mini works, with {} as the node's address", m.config.node_ip()))
    })
}

fn resolver(m: &Machine) -> Vec<Finding> {
    let servers = |text: &str| -> Vec<String> {
        let named = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
        named.map(|server| server.trim().to_owned()).collect()
    };
    let own = servers(&m.read("/etc/resolv.conf"));
    let local = |server: &String| server.starts_with("127.") || server == "::1";
    if own.is_empty() {
        return vec![Note("/etc/resolv.conf names no server: pods find names of the cluster only".to_owned())];
    }
    let behind = servers(&m.read("/run/systemd/resolve/resolv.conf"));
    one(own.iter().all(local) && !behind.iter().any(|server| !local(server)), || {
        Note(format!(
            "the machine's DNS server is {}, which pods cannot reach; name others with `mini enable dns:ADDRESS,…`",
            own.join(", ")
        ))
    })
}

/// Docker sets the policy of FORWARD to DROP, in the tables that iptables made.
fn forwarding(m: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    if m.is_running() && m.read("/proc/sys/net/ipv4/ip_forward").trim() == "0" {
        findings.push(Problem(
            "net.ipv4.ip_forward was switched off, so pods reach nothing; `sysctl net.ipv4.ip_forward=1`".to_owned(),
        ));
    }
    let rules = said("nft", &["list", "chain", "ip", "filter", "FORWARD"]);
    let ours = said("nft", &["list", "table", "inet", &m.config.instance.table]);
    if rules.contains("policy drop") && m.is_running() && ours.is_empty() {
        findings.push(Problem(
            "the policy of iptables' FORWARD chain is DROP (Docker sets it) and mini's rules are missing; restart mini"
                .to_owned(),
        ));
    } else if rules.contains("policy drop") {
        findings.push(Note("the policy of iptables' FORWARD chain is DROP (Docker or ufw set it); mini lets its own pods through, unless a rule refuses them".to_owned()));
    }
    findings
}

fn old_iptables(m: &Machine) -> Vec<Finding> {
    one(!m.read("/proc/net/ip_tables_names").trim().is_empty(), || {
        Note("the old iptables (legacy) have rules beside nftables; what they drop, nftables cannot let through: see `iptables-legacy-save`".to_owned())
    })
}

fn host_firewall(m: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bridge = &m.config.instance.bridge;
    if m.read("/etc/ufw/ufw.conf").lines().any(|line| line.trim() == "ENABLED=yes") {
        findings.push(Note(format!(
            "ufw is on; let pods through with `ufw allow in on {bridge} && ufw route allow in on {bridge}`"
        )));
    }
    if Path::new("/run/firewalld").is_dir() || Path::new("/var/run/firewalld.pid").exists() {
        findings.push(Note(format!("firewalld is on; let pods through with `firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload`")));
    }
    findings
}

fn selinux(m: &Machine) -> Vec<Finding> {
    one(m.read("/sys/fs/selinux/enforce").trim() == "1", || {
        Note("SELinux is enforcing; when pods cannot read their volumes, see `ausearch -m avc -ts recent`".to_owned())
    })
}

fn inotify(m: &Machine) -> Vec<Finding> {
    [("instances", 1024), ("watches", 65_536)]
        .into_iter()
        .filter_map(|(what, enough)| {
            let key = format!("max_user_{what}");
            let is = m.number(&format!("/proc/sys/fs/inotify/{key}")).filter(|is| *is < enough)?;
            Some(Note(format!(
                "fs.inotify.{key} is {is}; pods that watch files may fail with \"too many open files\": `sysctl fs.inotify.{key}={enough}`"
            )))
        })
        .collect()
}

fn aio(m: &Machine) -> Vec<Finding> {
    let (used, most) = (m.number("/proc/sys/fs/aio-nr"), m.number("/proc/sys/fs/aio-max-nr"));
    let full = used.zip(most).is_some_and(|(used, most)| most > 0 && used * 10 >= most * 9);
    one(full, || {
        Problem(
            "nearly all asynchronous IO requests of the machine are in use; `sysctl fs.aio-max-nr=1048576`".to_owned(),
        )
    })
}

fn wsl(m: &Machine) -> Vec<Finding> {
    let kernel = m.read("/proc/version").to_lowercase();
    one(kernel.contains("microsoft"), || {
        Note(
            "this is WSL; Services of pods are reached from Windows through localhost only where WSL forwards it"
                .to_owned(),
        )
    })
}

/// What a program says on its standard output; nothing when it cannot.
fn said(program: &str, arguments: &[&str]) -> String {
    let Some(path) = mini_config::find_program(Path::new(program)) else { return String::new() };
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_config::Sources;
    use mini_config::admin::Component;

    /// A machine made of these files.
    fn machine(directory: &Path, files: &[(&str, &str)]) -> Machine {
        for (path, text) in files {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let data = ("data-dir".to_owned(), directory.join("data").display().to_string());
        let config = Config::load(&Sources { flags: vec![data], ..Sources::default() }).unwrap();
        Machine { config, status: None, addons: None, failure: None, root: directory.to_owned() }
    }

    fn texts(findings: Vec<Finding>) -> String {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    }

    #[test]
    fn each_finds_its_own() {
        type Case = (fn(&Machine) -> Vec<Finding>, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            (
                memory,
                &[("proc/meminfo", "MemTotal: 500000 kB\nMemAvailable: 900000 kB\n")],
                "note: the machine has only 488 MiB",
            ),
            (
                memory,
                &[("proc/meminfo", "MemTotal: 5000000 kB\nMemAvailable: 90000 kB\n")],
                "problem: only 87 MiB of memory",
            ),
            (memory, &[("proc/meminfo", "MemTotal: 5000000 kB\nMemAvailable: 900000 kB\n")], ""),
            (swap, &[("proc/swaps", "Filename Type\n/swap file\n")], "note: swap is on"),
            (swap, &[("proc/swaps", "Filename Type\n")], ""),
            (cgroups, &[("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")], ""),
            (cgroups, &[("sys/fs/cgroup/cgroup.controllers", "cpu pids\n")], "problem: the memory cgroup is off"),
            (
                cgroups,
                &[("proc/cgroups", "#subsys_name h n enabled\nmemory 1 1 0\n")],
                "problem: the memory cgroup is off",
            ),
            (
                cgroups,
                &[("proc/cgroups", "#subsys_name h n enabled\nmemory 1 1 1\n")],
                "note: this machine uses cgroup v1",
            ),
            (host_name, &[("proc/sys/kernel/hostname", "My_Host\n")], "note: the host name \"My_Host\" is no DNS name"),
            (
                resolver,
                &[("etc/resolv.conf", "nameserver 127.0.0.53\n")],
                "note: the machine's DNS server is 127.0.0.53",
            ),
            (
                resolver,
                &[
                    ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
                    ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"),
                ],
                "",
            ),
            (resolver, &[("etc/resolv.conf", "nameserver 192.0.2.1\n")], ""),
            (resolver, &[("etc/resolv.conf", "search x\n")], "note: /etc/resolv.conf names no server"),
            (old_iptables, &[("proc/net/ip_tables_names", "filter\n")], "note: the old iptables"),
            (host_firewall, &[("etc/ufw/ufw.conf", "# x\nENABLED=yes\n")], "note: ufw is on"),
            (selinux, &[("sys/fs/selinux/enforce", "1")], "note: SELinux is enforcing"),
            (
                inotify,
                &[
                    ("proc/sys/fs/inotify/max_user_instances", "128\n"),
                    ("proc/sys/fs/inotify/max_user_watches", "99999\n"),
                ],
                "note: fs.inotify.max_user_instances is 128",
            ),
            (
                aio,
                &[("proc/sys/fs/aio-nr", "65536"), ("proc/sys/fs/aio-max-nr", "65536")],
                "problem: nearly all asynchronous",
            ),
            (wsl, &[("proc/version", "Linux version 5.15 (Microsoft)")], "note: this is WSL"),
            (running, &[], "note: there is no cluster"),
            (running, &[("data/state.db", "")], "problem: mini does not run; start it"),
            (certificates, &[("data/pki/ca.crt", "no certificate")], ""),
        ];
        for (number, (check, files, said)) in cases.iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let found = texts(check(&machine(directory.path(), files)));
            assert!(found.starts_with(said) && said.is_empty() == found.is_empty(), "{number}: {said:?}: {found:?}");
        }
    }

    #[test]
    fn what_the_server_says_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut m = machine(directory.path(), &[]);
        m.failure = Some("the disk is full".to_owned());
        assert_eq!(texts(running(&m)), "problem: mini does not run; its last start failed: the disk is full\n");
        let part = |name: &str, state, message: &str| Component { name: name.into(), state, message: message.into() };
        let components_now = vec![part("a", State::Ready, ""), part("b", State::Failed, "no nft")];
        m.status = Some(Status { node_ip: "192.0.2.99".into(), components: components_now, ..Status::default() });
        assert_eq!(texts(components(&m)), "problem: b failed: no nft\n");
        assert!(texts(node_address(&m)).contains("but mini started with 192.0.2.99"));
    }
}
