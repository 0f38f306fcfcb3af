//! Everything that flows between a terminal and a container.

use crate::cluster::{Cluster, IDLE, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A child that never outlives its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn logs_and_exec(cluster: &Cluster, space: &str) {
    // The pause keeps the two pipes in order.
    cluster.pod(space, "talker", r#"command: [sh, -c, "for i in 1 2 3; do echo line $i; done; sleep 1; echo oops >&2; while [ ! -e /tmp/end ]; do sleep 0.2; done; echo last"]"#);
    let logs = |arguments: &[&str]| cluster.kubectl(space, &[&["logs", "talker"], arguments].concat());
    until("four lines", || logs(&[]).lines().count() == 4);
    assert!(logs(&[]).contains("line 1\nline 2\nline 3\n"), "{}", logs(&[]));
    assert_eq!(logs(&["--tail=1"]).trim(), "oops");
    assert!(logs(&["--timestamps", "--tail=1"]).starts_with("20"), "{}", logs(&["--timestamps"]));
    assert_eq!(logs(&["--limit-bytes=6"]), "line 1");
    let mut follow =
        Running(cluster.kubectl_command(["-n", space, "logs", "-f", "talker"]).stdout(Stdio::piped()).spawn().unwrap());

    assert_eq!(cluster.sh(space, "talker", "echo out; echo err >&2"), "out\n");
    let failed = cluster.kubectl_output(["-n", space, "exec", "talker", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let missing = cluster.try_kubectl(space, &["exec", "talker", "--", "no-such-program"]).unwrap_err();
    assert!(missing.contains("no-such-program"), "{missing}");
    let mut typed = cluster
        .kubectl_command(["-n", space, "exec", "-i", "talker", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    typed.stdin.take().unwrap().write_all(&vec![b'x'; 300_000]).unwrap();
    assert_eq!(String::from_utf8(typed.wait_with_output().unwrap().stdout).unwrap().trim(), "300000");

    // A file ends the container; its follower ends too, with the last line.
    cluster.sh(space, "talker", "touch /tmp/end");
    let mut said = String::new();
    follow.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("line 1\n") && said.ends_with("last\n"), "{said}");
    until("the restart", || cluster.field(space, "pod/talker", ".status.containerStatuses[0].restartCount") == "1");
    assert!(logs(&["--previous"]).ends_with("last\n"));
}

pub(crate) fn attach(cluster: &Cluster, space: &str) {
    cluster.pod(space, "echo", "command: [cat]\nstdin: true");
    let mut attached = Running(
        cluster
            .kubectl_command(["-n", space, "attach", "-i", "-q", "echo"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let (mut stdin, stdout) = (attached.0.stdin.take().unwrap(), attached.0.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    drop(stdin);

    cluster.pod(space, "idle", IDLE);
    // `script` gives kubectl a terminal.
    let kubectl =
        cluster.kubectl_command(["-n", space, "exec", "-it", "idle", "--", "sh", "-c", "tty && test -t 0 && echo tty"]);
    let line: Vec<String> = [kubectl.get_program()]
        .into_iter()
        .chain(kubectl.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let environment = kubectl.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let output = Command::new("script")
        .args(["-qec", &line.join(" "), "/dev/null"])
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("/dev/pts/") && said.contains("tty\r\n"), "{said}");
    let run = cluster.kubectl(
        space,
        &[
            "run",
            "once",
            &format!("--image={}", crate::cluster::IMAGE),
            "--restart=Never",
            "--attach",
            "--rm",
            "-q",
            "--",
            "echo",
            "ran",
        ],
    );
    assert!(run.contains("ran"), "{run}");
}

pub(crate) fn port_forward(cluster: &Cluster, space: &str) {
    cluster.pod(
        space,
        "server",
        r#"command: [sh, -c, "echo forwarded > /www/index.html; exec httpd -f -p 8080 -h /www"]"#,
    );
    let mut forward = Running(
        cluster
            .kubectl_command(["-n", space, "port-forward", "pod/server", ":8080"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    // Kept open: kubectl tells of each connection, and dies of a closed pipe.
    let mut told = BufReader::new(forward.0.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let port: u16 =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().parse().unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.ends_with("forwarded\n"), "{said}");
    }
}

pub(crate) fn cp(cluster: &Cluster, space: &str) {
    cluster.pod(space, "box", IDLE);
    let (there, back) = (cluster.directory().join("there"), cluster.directory().join("back"));
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &content).unwrap();
    cluster.kubectl(space, &["cp", there.to_str().unwrap(), "box:/tmp/file"]);
    assert_eq!(cluster.sh(space, "box", "wc -c < /tmp/file").trim(), content.len().to_string());
    cluster.kubectl(space, &["cp", "box:/tmp/file", back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == content);
}
