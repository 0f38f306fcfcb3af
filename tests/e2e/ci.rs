//! `mini ci`: clusters of their own for one command each.

use crate::cluster::{Cluster, IMAGE, text, until};
use crate::{image, leftovers};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Nobody in particular.
const USER: u32 = 65534;

/// A place for temporary files and programs that anyone may use.
struct Desk {
    directory: tempfile::TempDir,
    mini: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mini-e2e-ci-").tempdir().unwrap();
        // Programs below a home directory are out of reach for others.
        let copy = |program: &Path, name: &str| {
            let copy = directory.path().join(name);
            std::fs::copy(program, &copy).unwrap();
            copy
        };
        let mini = copy(Path::new(env!("CARGO_BIN_EXE_mini")), "mini");
        let found = Command::new("sh").args(["-c", "command -v ${KUBECTL:-kubectl}"]).output().unwrap();
        copy(&std::fs::canonicalize(text(&found).trim()).unwrap(), "kubectl");
        let permit = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        permit(directory.path(), 0o755);
        for name in ["tmp", "home"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            permit(&path, 0o1777);
        }
        Self { directory, mini }
    }

    fn tmp(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// `mini ci … -- sh -c LINE`, not started.
    fn command(&self, options: &[&str], line: &str) -> Command {
        let mut command = Command::new(&self.mini);
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        command.arg("ci").args(options).args(["--", "sh", "-ec", line]);
        command.env("PATH", path).env("TMPDIR", self.tmp()).env("HOME", self.directory.path().join("home"));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn as_anyone(&self, line: &str) -> Child {
        self.command(&["--api-only"], line).uid(USER).gid(USER).spawn().unwrap()
    }

    /// Files and processes that are still there.
    fn assert_clean(&self) {
        let files: Vec<_> = std::fs::read_dir(self.tmp()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(files.is_empty(), "{files:?}");
        let tmp = self.tmp().display().to_string();
        assert_eq!(leftovers::processes(|cmdline| cmdline.contains(&tmp)), Vec::<i32>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&tmp), "{mounts}");
    }
}

/// Without root and containerd: as often as one likes, and whatever the command comes to.
pub(crate) fn api_only(_: &Cluster, _: &str) {
    let desk = Desk::new();
    // Each sees its own objects only, while the other is there.
    let line = |own: &str, other: &str| {
        format!(
            "kubectl create namespace {own} >&2; touch $TMPDIR/{own}; while [ ! -e $TMPDIR/{other} ]; do sleep 0.1; done
             kubectl get namespaces -o name; exit 7"
        )
    };
    let pairs = [("one", "two"), ("two", "one")];
    let children = pairs.map(|(own, other)| desk.as_anyone(&line(own, other)));
    for (child, (own, other)) in children.into_iter().zip(pairs) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(7), "{}", text(&output));
        let sees = |name: &str| said.lines().any(|line| line == format!("namespace/{name}"));
        assert!(sees(own) && !sees(other), "{}", text(&output));
    }
    for (own, _) in pairs {
        std::fs::remove_file(desk.tmp().join(own)).unwrap();
    }
    desk.assert_clean();

    // Told to end, it ends its command and its cluster.
    let mut child = desk.as_anyone("touch $TMPDIR/begun; exec sleep 1000");
    until("the command", || desk.tmp().join("begun").exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    std::fs::remove_file(desk.tmp().join("begun")).unwrap();
    desk.assert_clean();

    let output = desk.command(&["--api-only"], "true").uid(USER).gid(USER).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output));
    desk.assert_clean();
}

/// Nodes and pods in name only, without root and containerd.
pub(crate) fn simulated(_: &Cluster, _: &str) {
    let desk = Desk::new();
    // Whoever finds containerd's socket or a kubelet here would be surprised.
    let line = "
        kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status} {end}'; echo
        kubectl create deployment web --image=nothing.invalid/web --replicas=6 >&2
        kubectl rollout status deployment/web --timeout=20s >&2
        kubectl get pods -l app=web -o 'jsonpath={.items[*].spec.nodeName}' | tr ' ' '\n' | sort | uniq -c | tr -s ' \n' ' '; echo
        kubectl create job once --image=nothing.invalid/once >&2
        kubectl wait --for=condition=complete job/once --timeout=20s >&2
        kubectl expose deployment web --port=80 >&2
        kubectl wait --for=jsonpath='{.endpoints[5].conditions.ready}'=true endpointslice -l kubernetes.io/service-name=web --timeout=20s >&2
        kubectl logs deployment/web 2>&1 | grep -o 'is simulated'
        kubectl delete deployment web --timeout=20s >&2
        kubectl wait --for=delete pod -l app=web --timeout=20s >&2
        kubectl get pods -l app=web -o name";
    let output = desk.command(&["--api-only", "--fake-nodes", "3"], line).uid(USER).gid(USER).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let wanted = ["fake-1 True fake-2 True fake-3 True", "2 fake-1 2 fake-2 2 fake-3", "is simulated"];
    assert_eq!(lines, wanted, "{}", text(&output));
    desk.assert_clean();
}

/// With pods, beside the instance of the other tests and beside another of its kind.
pub(crate) fn pods(_: &Cluster, _: &str) {
    let desk = Desk::new();
    let archive = desk.directory.path().join("busybox.tar");
    image::write(&archive, IMAGE);
    let before = leftovers::Machine::look(&desk.tmp());
    let line = format!(
        "kubectl run web --image={IMAGE} --labels=app=web -- sh -c 'hostname > /www/index.html; exec httpd -f -p 80 -h /www' >&2
         kubectl expose pod web --port 80 >&2
         kubectl wait --for=condition=Ready pod/web --timeout=60s >&2
         kubectl exec web -- wget -qO- http://$(kubectl get service web -o jsonpath='{{.spec.clusterIP}}')/
         echo $MINI_DATA_DIR; exit 3"
    );
    let start = || desk.command(&["--image", archive.to_str().unwrap()], &line).spawn().unwrap();
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let (page, data_dir) = said.trim().split_once('\n').expect(&said);
        assert_eq!(page, "web");
        let left = before.of(Path::new(data_dir)).left_behind(Path::new(data_dir));
        assert!(left.is_empty(), "{left:#?}");
    }
    desk.assert_clean();
}
