"""The Debian root file system of the host image: packages alone, none of this project's files.

Slow (a minute and a half), so it is kept by itself in images/out/.debian and made again only when the list of packages, a
version among the named ones, or this file changes. Packages come from where this machine's own come from; the names of
those places are neither in the tree nor in anything printed.
"""

import hashlib
import json
import re
import shutil
import socket
import subprocess
from functools import lru_cache
from pathlib import Path

from boot import ENVIRONMENT, EPOCH, OUT, run, stop

CACHE = OUT / ".debian"
PACKAGES = ["systemd", "systemd-sysv", "dbus", "kmod", "udev", "containerd", "docker.io", "runc", "apparmor", "auditd",
            "iproute2", "iptables", "procps", "busybox-static", "linux-image-cloud-amd64", "libtss2-tcti-device0", "tpm2-tools",
            "e2fsprogs", "ca-certificates"]
SUITE = "bookworm"
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*"]
KEPT = ["/usr/share/doc/*/copyright"]
# Services of the host; Debian's packages enable the rest themselves.
ENABLED = ["systemd-networkd.service", "systemd-networkd-wait-online.service", "docker.service", "containerd.service",
           "apparmor.service", "auditd.service"]
SPACE = 2200 << 20

# Nobody logs in, nothing is upgraded in place, and auditd alone keeps the audit trail.
MASKED = ["getty.target", "getty-static.service", "systemd-logind.service", "systemd-user-sessions.service",
          "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-journald-audit.socket",
          "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
          "fstrim.timer", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount",
          "modprobe@drm.service", "modprobe@fuse.service", "modprobe@loop.service", "modprobe@dm_mod.service"]
# AppArmor profiles of programs that the image does not have: each costs seconds of every boot.
UNUSED_PROFILES = ["lsb_release", "nvidia_modprobe"]


def sources():
    """This machine's package sources, as files that mmdebstrap reads."""
    parts = sorted(Path("/etc/apt/sources.list.d").glob("*"))
    files = [Path("/etc/apt/sources.list"), *(part for part in parts if part.suffix in (".list", ".sources"))]
    return [file for file in files if file.is_file() and file.read_text().strip()]


@lru_cache
def versions():
    """The versions that apt would install of the named packages; that costs half a second, all dependencies cost ten."""
    said = run("apt-cache", "policy", *PACKAGES).decode()
    found = dict(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)", said, re.MULTILINE))
    return {package: found.get(package, "(none)") for package in PACKAGES}


def unknown():
    """Packages that apt does not know on this machine."""
    return [package for package, version in versions().items() if version == "(none)"]


def key():
    state = {"packages": versions(), "suite": SUITE, "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def current():
    """The tar that is there and still right, or None."""
    tar = CACHE / "root.tar"
    return tar if tar.is_file() and (CACHE / "key").is_file() and (CACHE / "key").read_text() == key() else None


def build(work):
    """Makes the tar anew. The one that was there stays until this one is complete."""
    tree = work / "debian"
    # In namespaces of its own, and killed with this program: however that ends, nothing stays mounted or running.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
               "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
               f"--include={','.join(PACKAGES)}", *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
               *(f"--dpkgopt=path-include={path}" for path in KEPT), *proxy_options(), SUITE, tree, *sources()]
    # The image's initrd is another one; Debian's own would be made and thrown away.
    done = subprocess.run([str(part) for part in command], env={**ENVIRONMENT, "INITRD": "No"}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        stop("mmdebstrap failed:\n" + nameless(done.stdout.decode(errors="replace"))[-4000:], 1)
    clean(tree)
    look_for_names(tree)
    new = work / "debian.new"
    new.mkdir(mode=0o700)
    run("tar", "--create", "--file", new / "root.tar", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*",
        "--clamp-mtime", f"--mtime=@{EPOCH}", "--directory", tree, ".")
    (new / "versions").write_bytes(run("chroot", tree, "dpkg-query", "-W"))
    (new / "key").write_text(key())
    shutil.rmtree(tree)
    if CACHE.exists():
        CACHE.rename(work / "debian.old")
    new.rename(CACHE)
    return CACHE / "root.tar"


def clean(tree):
    """Removes what only the build needed: sources, lists, caches, logs, this machine's name."""
    chroot = ("chroot", tree)
    version = next((tree / "lib/modules").iterdir()).name
    # Without modules.dep nothing loads efivarfs, and without that systemd extends no boot phase.
    run(*chroot, "depmod", version)
    run(*chroot, "systemctl", "enable", *ENABLED)
    run(*chroot, "systemctl", "mask", *MASKED)
    for profile in UNUSED_PROFILES:
        (tree / "etc/apparmor.d" / profile).unlink(missing_ok=True)
    kernel = tree / "boot" / f"vmlinuz-{version}"
    shutil.copy(kernel, tree / "usr/lib/modules" / version / "vmlinuz")
    for folder in ("boot", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt", "var/log", "var/cache/debconf",
                   "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/auth.conf.d"):
        empty(tree / folder)
    for folder in ("var/log/journal", "var/log/audit", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (tree / folder).mkdir(mode=0o755, exist_ok=True, parents=True)
    for file in ("etc/apt/sources.list", "etc/apt/auth.conf", "vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old",
                 "var/lib/dpkg/status-old", "var/lib/dpkg/available"):
        (tree / file).unlink(missing_ok=True)
    (tree / "etc/hostname").write_text("hostmark\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost hostmark\n")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text("")
    # Empty, not absent: each host gets its own id, and its first boot presets no units.
    (tree / "etc/machine-id").write_text("")
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)


def empty(folder):
    for path in folder.iterdir() if folder.is_dir() else []:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def proxy_options():
    """How this machine's apt reaches its sources."""
    dump = run("apt-config", "dump").decode()
    return [f"--aptopt={line}" for line in dump.splitlines() if re.match(r"Acquire::\S*([Pp]roxy)\S* \"[^\"]", line)]


def names():
    """Names that belong to this machine's network and must not be in an image: its package sources, proxies, name servers."""
    text = "\n".join([*(source.read_text() for source in sources()), *proxy_options()])
    found = set(re.findall(r"[a-z+]+://(?:[^/@\s\"]*@)?([^/:\s\"\]]+)", text))
    for path, pattern in (("/etc/resolv.conf", r"^(?:nameserver|search|domain)\s+(.*)$"), ("/etc/hosts", r"^[0-9a-f.:]+\s+(.*)$")):
        if Path(path).is_file():
            for line in re.findall(pattern, Path(path).read_text(), re.MULTILINE):
                found |= set(line.split())
    found |= {socket.gethostname(), socket.getfqdn()}
    common = re.compile(r"localhost.*|ip6-\S*|debian|hostmark|127\..*|::1|[\d.]{,6}|.{,3}")
    return sorted(name for name in found if not common.fullmatch(name))


def look_for_names(tree):
    """Public names of Debian's mirrors and single words stand in Debian's own packages; all others must be nowhere."""
    public = [name for name in names() if name.endswith(".debian.org") or "." not in name]
    own = [name for name in names() if name not in public]
    for wanted, folders in ((own, ["."]), (public, ["etc", "var", "root", "usr/local"])):
        if wanted:
            grep = subprocess.run(["grep", "-rlF", *(f"--regexp={name}" for name in wanted), *folders], cwd=tree,
                                  stdout=subprocess.PIPE, env=ENVIRONMENT)
            if grep.returncode != 1:
                stop("names of this machine's network are in the image: " + " ".join(grep.stdout.decode().split()[:20]), 1)


def nameless(text):
    for name in sorted(names(), key=len, reverse=True):
        text = text.replace(name, "HOST")
    return text
