"""A machine of its own: this system's distribution, installed anew, booted in namespaces, with an address and no network.

Knows nothing of mini. Nothing of it outlives the program that made it: no process, mount, network, control group or file.
"""
import contextlib, hashlib, os, pathlib, re, shutil, signal, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/tour"
# The address is one for documentation; nothing answers behind it.
NAME, ADDRESS = "vm", "192.0.2.2"
# Where lines are run, and files for them are put.
DESK = "/srv"
PACKAGES = ["systemd", "systemd-sysv", "dbus", "containerd", "runc", "nftables", "iproute2", "procps", "curl"]
# They would change the kernel that this machine shares with others, or wait for what it does not have.
MASKED = """systemd-sysctl systemd-modules-load systemd-binfmt systemd-random-seed systemd-timesyncd systemd-udevd
systemd-remount-fs console-getty getty-static""".split()
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

BOOT = """
set -e
root=$1 address=$2 name=$3; shift 3
mount --bind "$root" "$root"; cd "$root"
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
while read -r device major minor; do mknod -m 666 "dev/$device" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts; mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
touch dev/console; mount --bind dev/null dev/console
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    while IFS=: read -r _ what _; do
        case "$what" in
        "") mkdir sys/fs/cgroup/unified; mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
        name=*) mkdir "sys/fs/cgroup/${what#name=}"; mount -t cgroup -o "none,$what" cgroup "sys/fs/cgroup/${what#name=}" ;;
        *) mkdir "sys/fs/cgroup/$what"; mount -t cgroup -o "$what" cgroup "sys/fs/cgroup/$what" ;;
        esac
    done </proc/self/cgroup
fi
mkdir -p old; pivot_root . old; cd /; umount -l /old; rmdir old
hostname "$name"
ip link set lo up
ip link add eth0 type veth peer name wire; ip address add "$address/24" dev eth0; ip link set eth0 up; ip link set wire up
exec env -i container=tour PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""
SYSTEMD = ["/sbin/init", "--log-target=journal", "--show-status=no"]
# The first process adopts orphans and has to bury them, as bash does.
NO_SYSTEMD = ["/bin/bash", "-c", "while :; do sleep 1000 & wait $!; done"]


class Unable(Exception):
    """What this test needs of its surroundings is not there."""


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def mirror():
    """Where this system's own packages come from, as apt is set up: the address, and the release's name."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    wanted = [release.get("VERSION_CODENAME", "").strip('"'), "main"]
    for attempt in (1, 2):
        for line in run(*targets).splitlines():
            address, *rest = line.split()
            if rest == wanted:
                return address, wanted[0]
        if attempt == 1:
            run("apt-get", "update", "-qq")
    raise Unable(f"apt on this system has no packages of its own release {wanted[0]!r}")


def proxies():
    """apt's proxy for those who take it from the environment."""
    found = run("apt-config", "shell", "proxy", "Acquire::http::Proxy")
    proxy = re.match(r"proxy='(.*)'", found)
    return {"http_proxy": proxy[1], "https_proxy": proxy[1]} if proxy else {}


def base():
    """A fresh installation, made once and kept."""
    address, release = mirror()
    digest = hashlib.sha256(" ".join([address, *PACKAGES]).encode()).hexdigest()[:8]
    folder = WORK / f"base-{release}-{digest}"
    if folder.exists():
        return folder
    print(f"installing {release} into {folder.relative_to(ROOT)}", flush=True)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    run(
        "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, part, address,
        env={**os.environ, **proxies()},
    )
    for archive in part.glob("var/cache/apt/archives/*.deb"):
        archive.unlink()
    for unit in MASKED:
        (part / f"etc/systemd/system/{unit}.service").symlink_to("/dev/null")
    for file, text in {
        "resolv.conf": "", "hostname": f"{NAME}\n", "machine-id": "", "hosts": f"127.0.0.1 localhost\n{ADDRESS} {NAME}\n",
    }.items():
        (part / "etc" / file).unlink(missing_ok=True)
        (part / "etc" / file).write_text(text)
    part.rename(folder)
    return folder


def control_groups():
    """The top of each hierarchy that this process can make groups in."""
    top = pathlib.Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return sorted({path.resolve() for path in top.iterdir() if (path / "cgroup.procs").exists()})


class Machine:
    """Use as a context: what begins booted ends as if it had never been."""

    def __init__(self, systemd=True):
        self.systemd = systemd
        self.name = f"mini-tour-{os.getpid()}"
        self.root = WORK / self.name
        self.host = None
        self.init = None

    def __enter__(self):
        # A machine must not be left behind by a signal either.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        run("cp", "-a", "--reflink=auto", base(), self.root)
        return self

    def __exit__(self, *_):
        self.off()
        shutil.rmtree(self.root, ignore_errors=True)

    def put(self, source, name):
        target = self.root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)

    def on(self):
        """Boots. Raises `Unable` when systemd cannot be had here."""
        groups = [folder / self.name for folder in control_groups()]
        for group in groups:
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (group.parent / file).exists() and "cpuset" in group.parent.name:
                    (group / file).write_text((group.parent / file).read_text())
        enter = 'for group in "$@"; do [ "$group" = -- ] && break; shift; echo $$ >"$group/cgroup.procs"; done; shift; exec "$@"'
        # Whatever ends this program ends the machine.
        words = ["bash", "-c", enter, "enter", *groups, "--", "setpriv", "--pdeathsig=KILL"]
        words += ["unshare", "-mpfuinC", "--propagation=private", "--kill-child", "bash", "-c", BOOT, "boot"]
        words += [self.root, ADDRESS, NAME, *(SYSTEMD if self.systemd else NO_SYSTEMD)]
        log = (WORK / "boot.log").open("w")
        self.host = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 60
        while not self.is_up():
            if self.host.poll() is not None or time.monotonic() > deadline:
                said = (WORK / "boot.log").read_text().strip()[-500:]
                self.off()
                raise Unable(said or "it does not come up")
            time.sleep(0.1)

    def is_up(self):
        children = pathlib.Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children")
        found = children.read_text().split() if children.exists() else []
        if not found:
            return False
        self.init = int(found[0])
        wanted = "init" if self.systemd else "bash"
        try:
            arguments = pathlib.Path(f"/proc/{self.init}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if b"boot" in arguments or wanted not in arguments[0].decode():
            return False
        if not self.systemd:
            return True
        return self.sh("systemctl is-system-running", timeout=20)[1].strip() in ("running", "degraded")

    def off(self):
        if self.host is None:
            return
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        else:
            self.host.kill()
        self.host.wait()
        self.host = self.init = None
        for top in control_groups():
            deepest_first = sorted((top / self.name).glob("**/"), reverse=True)
            for group in deepest_first:
                for _ in range(100):
                    try:
                        group.rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.02)

    def words(self, line):
        enter = ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-i", "-n", "-C"]
        return [*enter, "/bin/bash", "-c", f"cd {DESK}\n{line}"]

    def sh(self, line, timeout=180):
        """Runs a line in the machine, as root: the exit code, and all it said."""
        done = subprocess.run(
            self.words(line), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    @contextlib.contextmanager
    def running(self, line, says, timeout=20):
        """A program that runs on beside others, once it has said `says`."""
        process = subprocess.Popen(
            self.words(f"echo $$; exec {line}"), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        pid = process.stdout.readline().strip()
        try:
            heard = process.stdout.readline()
            if says not in heard:
                raise AssertionError(f"{line}: {heard.strip()!r} instead of {says!r}")
            yield heard
        finally:
            self.sh(f"kill {pid}")
            process.wait()

    def files(self, *but):
        """Every path of the machine but those below `but`."""
        found = set()
        for folder, folders, names in os.walk(self.root):
            inside = pathlib.PurePosixPath("/") / pathlib.Path(folder).relative_to(self.root)
            folders[:] = [name for name in folders if str(inside / name) not in but]
            found.update(str(inside / name) for name in folders + names)
        return found - set(but)
