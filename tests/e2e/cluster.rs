//! A private instance of `mini`: own data directory, ports and networks, so that it runs beside any other.

use crate::{image, leftovers};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The image all tests use; imported, never pulled.
pub(crate) const IMAGE: &str = "mini.test/busybox:1";
/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
    /// What every command is run by: nothing, or what enters another network.
    prefix: Vec<String>,
    before: leftovers::Machine,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data_dir().exists() {
            let _ = self.mini_output(["reset", "--yes"]);
        }
    }
}

impl Cluster {
    /// Starts an instance with the test image in it, ready for pods.
    pub(crate) fn start() -> Self {
        let cluster = Self::new(Vec::new(), &[("MINI_NODE_NAME", "e2e")]);
        let begun = Instant::now();
        cluster.mini(["start", "--wait-ready"]);
        println!("first start to ready: {:.2} s", begun.elapsed().as_secs_f32());
        cluster.prepare();
        cluster
    }

    /// An instance that is not started yet.
    pub(crate) fn new(prefix: Vec<String>, more: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("mini-e2e-").tempdir().unwrap();
        // Networks that other runs on this machine, the usual instance and `mini ci` do not use.
        let number = std::process::id() % 60;
        let mut settings = vec![
            ("MINI_DATA_DIR", directory.path().join("data").display().to_string()),
            ("MINI_API_PORT", free_port().to_string()),
            ("MINI_KUBELET_PORT", free_port().to_string()),
            ("MINI_POD_CIDR", format!("10.{}.0.0/20", 100 + number)),
            ("MINI_SERVICE_CIDR", format!("10.{}.0.0/24", 192 + number)),
            ("MINI_CLUSTER_DNS", format!("10.{}.0.10", 192 + number)),
            ("MINI_ADDONS_DIR", directory.path().join("addons").display().to_string()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        // As a user's who has put it on another disk.
        std::os::unix::fs::symlink("disk", directory.path().join("data")).unwrap();
        let before = leftovers::Machine::look(&directory.path().join("data"));
        Self { directory, settings, prefix, before }
    }

    /// What every start from nothing needs again: the test image.
    pub(crate) fn prepare(&self) {
        let archive = self.directory.path().join("busybox.tar");
        if !archive.exists() {
            image::write(&archive, IMAGE);
        }
        let imported = self.mini([OsStr::new("images"), OsStr::new("import"), archive.as_os_str()]);
        assert!(imported.contains(IMAGE), "{imported}");
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Resets, and says what that left.
    pub(crate) fn finish(self) -> Result<(), Vec<String>> {
        let output = self.mini_output(["reset", "--yes"]);
        let mut left = self.before.left_behind(&self.data_dir());
        if !output.status.success() {
            left.push(format!("mini reset failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// What reset left, for a test in the middle.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        self.before.left_behind(&self.data_dir())
    }

    /// Shows what a reader of a failure wants to know.
    pub(crate) fn tell(&self) {
        for arguments in
            [&["get", "pods", "-A", "-o", "wide"][..], &["get", "events", "-A", "--sort-by=.lastTimestamp"]]
        {
            println!("--- kubectl {}\n{}", arguments.join(" "), text(&self.kubectl_output(arguments)));
        }
        let log = std::fs::read_to_string(self.data_dir().join("mini.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- the end of mini.log\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words = self.prefix.iter().map(OsStr::new).chain([program.as_ref()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).envs(self.settings.iter().map(|(name, value)| (*name, value))).stdin(Stdio::null());
        command
    }

    /// A `mini` command to run in any way.
    pub(crate) fn mini_command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_mini"));
        command.args(arguments);
        command
    }

    pub(crate) fn mini_output<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Output {
        self.mini_command(arguments).output().unwrap()
    }

    /// Runs `mini`; its standard output.
    pub(crate) fn mini<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> String {
        let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let output = self.mini_output(&arguments);
        assert!(output.status.success(), "mini {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The admin's kubeconfig as a file.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        if !path.exists() {
            std::fs::write(&path, self.mini(["config"])).unwrap();
        }
        path
    }

    /// Forgets the kubeconfig: after a reset there is another authority.
    pub(crate) fn forget_kubeconfig(&self) {
        let _ = std::fs::remove_file(self.directory.path().join("kubeconfig"));
    }

    /// A kubectl command to run in any way.
    pub(crate) fn kubectl_command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = self.command(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.directory.path()).args(arguments);
        command
    }

    pub(crate) fn kubectl_output<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Output {
        self.kubectl_command(arguments).output().unwrap()
    }

    /// Runs kubectl in a namespace; its standard output.
    pub(crate) fn kubectl(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = self.try_kubectl(namespace, arguments);
        output.unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// Runs kubectl in a namespace; its standard output, or all it said when it failed.
    pub(crate) fn try_kubectl(&self, namespace: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.kubectl_output(["-n", namespace].iter().chain(arguments));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(text(&output))
        }
    }

    /// Pipes a manifest into `kubectl VERB -f -`.
    pub(crate) fn pipe(&self, namespace: &str, verb: &str, manifest: &str) -> String {
        let mut child = self
            .kubectl_command(["-n", namespace, verb, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(manifest.replace("IMAGE", IMAGE).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {verb}: {}\n{manifest}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn create(&self, namespace: &str, manifest: &str) {
        self.pipe(namespace, "create", manifest);
    }

    /// An object as JSON.
    pub(crate) fn get(&self, namespace: &str, what: &[&str]) -> Value {
        let arguments: Vec<&str> = ["get", "-o", "json"].iter().chain(what).copied().collect();
        serde_json::from_str(&self.kubectl(namespace, &arguments)).unwrap()
    }

    /// One field of an object, as text; empty when there is none.
    pub(crate) fn field(&self, namespace: &str, what: &str, path: &str) -> String {
        self.try_kubectl(namespace, &["get", what, "-o", &format!("jsonpath={{{path}}}")]).unwrap_or_default()
    }

    /// Creates a pod from a name and the inside of its first container, and waits until it is ready.
    pub(crate) fn pod(&self, namespace: &str, name: &str, container: &str) {
        self.create(namespace, &pod(name, container));
        self.ready(namespace, name);
    }

    pub(crate) fn ready(&self, namespace: &str, pod: &str) {
        let waited =
            self.try_kubectl(namespace, &["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{pod}")]);
        if let Err(said) = waited {
            panic!("{said}\n{}", self.kubectl(namespace, &["describe", "pod", pod]));
        }
    }

    /// Runs a shell line in a pod; what it printed.
    pub(crate) fn sh(&self, namespace: &str, pod: &str, line: &str) -> String {
        self.kubectl(namespace, &["exec", pod, "--", "sh", "-c", line])
    }

    pub(crate) fn try_sh(&self, namespace: &str, pod: &str, line: &str) -> Result<String, String> {
        self.try_kubectl(namespace, &["exec", pod, "--", "sh", "-c", line])
    }

    /// Makes a namespace whose default service account is there, so that pods can be created.
    pub(crate) fn namespace(&self, name: &str) {
        self.kubectl("default", &["create", "namespace", name]);
        until("the namespace's service account", || {
            !self.field(name, "serviceaccount/default", ".metadata.name").is_empty()
        });
    }

    pub(crate) fn drop_namespace(&self, name: &str) {
        self.kubectl("default", &["delete", "namespace", name, "--wait=false"]);
    }

    /// The processes of `mini server` of this instance.
    pub(crate) fn server(&self) -> Vec<i32> {
        leftovers::processes(|cmdline| cmdline.contains("server"))
            .into_iter()
            .filter(|pid| {
                let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let mine = format!("MINI_DATA_DIR={}\0", self.data_dir().display());
                executable == Path::new(env!("CARGO_BIN_EXE_mini"))
                    && environment.windows(mine.len()).any(|window| window == mine.as_bytes())
            })
            .collect()
    }
}

/// The manifest of a pod with one container `main` of the test image.
pub(crate) fn pod(name: &str, container: &str) -> String {
    let inside: String = container.trim().lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: IMAGE\n{inside}"
    )
}

/// A container that does nothing until it is told to end.
pub(crate) const IDLE: &str = r#"command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]"#;

/// Waits until `met`; panics after [`PATIENCE`].
pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
