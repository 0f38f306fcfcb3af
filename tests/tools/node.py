"""A node of its own for a measurement or a test: data, ports and networks that touch nobody else's."""
import io, json, os, pathlib, shutil, subprocess, sys, tarfile, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# MINI_BIN: a folder with mini and mini-bench that are built already.
BIN = pathlib.Path(os.environ.pop("MINI_BIN", ROOT / "target/x86_64-unknown-linux-gnu/release"))
BUSYBOX = "mini.test/busybox:1"


class Node:
    def __init__(self, name, number):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ROOT / "target"))
        self.data = self.work / "data"
        self.run = pathlib.Path(f"/run/mini-{name}-{number}")
        self.port = 21000 + number
        self.env = dict(
            os.environ,
            MINI_DATA_DIR=str(self.data),
            MINI_RUN_DIR=str(self.run),
            MINI_API_PORT=str(self.port),
            MINI_KUBELET_PORT=str(self.port + 500),
            MINI_NODE_PORT_RANGE="24000-24999",
            MINI_POD_CIDR=f"10.{200 + number % 50}.0.0/16",
            MINI_SERVICE_CIDR=f"10.{199 - number % 50}.0.0/24",
            MINI_CLUSTER_DNS=f"10.{199 - number % 50}.0.10",
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and (self.data / "mini.log").exists():
            print((self.data / "mini.log").read_text()[-6000:], file=sys.stderr)
        self.mini("reset", "--yes", check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    def mini(self, *arguments, check=True, timeout=300):
        done = subprocess.run([BIN / "mini", *map(str, arguments)], env=self.env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise RuntimeError(f"mini {' '.join(map(str, arguments))}: {done.stderr or done.stdout}")
        return done.stdout

    def timed(self, *arguments):
        begun = time.monotonic()
        self.mini(*arguments)
        return time.monotonic() - begun

    def status(self):
        return json.loads(self.mini("status", "--format", "json", check=False))

    def kubectl(self, *arguments, check=True):
        return self.mini("kubectl", *arguments, check=check)

    def target(self):
        """How mini-bench reaches this node's API."""
        pki = self.data / "pki"
        return ["--server", f"127.0.0.1:{self.port}", "--ca", pki / "ca.crt", "--cert", pki / "admin.crt", "--key", pki / "admin.key"]

    def import_busybox(self):
        path = self.work / "busybox.tar"
        busybox_archive(path)
        self.mini("images", "import", path)
        return BUSYBOX


def build():
    if BIN.is_relative_to(ROOT):
        subprocess.run(["cargo", "build", "--release", "--package", "mini", "--package", "mini-bench"], cwd=ROOT, check=True)


def bench(*arguments):
    """Runs mini-bench to its end; its JSON."""
    done = subprocess.run([BIN / "mini-bench", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mini-bench {arguments[0]}: {done.stderr}")
    return json.loads(done.stdout)


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def busybox_archive(path):
    """A docker-archive of one layer: this machine's static busybox, and what resolves names as most programs do."""
    import hashlib

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "tmp", "etc", "www"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        getent = shutil.which("getent")
        libraries = [word for word in output("ldd", getent).split() if word.startswith("/")]
        for name, source in [("bin/busybox", shutil.which("busybox")), ("bin/getent", getent), *((path, path) for path in libraries)]:
            content = pathlib.Path(source).read_bytes()
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name in output("busybox", "--list").split():
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    layer = layer.getvalue()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
