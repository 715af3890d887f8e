//! A private corner of this machine for real engines: namespaces of its own, an overlay over /etc, an empty /run and data roots.
//!
//! A test runs itself again in there (`unshare`), so that engines use their usual paths and hostd judges `/` as on a real host, while nothing of
//! this machine's configuration, network or processes is touched or seen. What is left running ends with the corner.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the corner.
const INSIDE: &str = "HOSTMARK_TEST_CORNER";
/// How long a daemon may take to start on a crowded machine.
const START: Duration = Duration::from_secs(40);
/// What makes the corner, before the test runs in it.
const SETUP: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 corner /run
mkdir -p /run/.corner/upper /run/.corner/work /var/lib/docker /var/lib/containerd /var/lib/containers
mount -t overlay -o lowerdir=/etc,upperdir=/run/.corner/upper,workdir=/run/.corner/work corner /etc
for directory in /var/lib/docker /var/lib/containerd /var/lib/containers; do mount -t tmpfs corner "$directory"; done
if [ -n "$HOSTMARK_ENGINES" ]; then
  mount -t overlay -o lowerdir="$HOSTMARK_ENGINES/usr:/usr" corner /usr
  cp -a "$HOSTMARK_ENGINES/etc/." /etc/
  ldconfig
fi
rm -rf /etc/docker /etc/containerd
mkdir -p /etc/docker /etc/containerd /run/lock
ip link set lo up
exec "$@"
"#;

/// A directory of unpacked packages (`dpkg-deb --extract`) that are laid over this machine's /usr and /etc in there: engines that are not installed.
const ENGINES: &str = "HOSTMARK_ENGINES";

/// Why the test does not run here, when it does not; the test itself goes on only inside.
///
/// Outside, the test `name` is run again inside, and its output is passed on. True: this is the inside.
#[must_use]
pub fn inside(name: &str, needs: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unpacked = std::env::var_os(ENGINES).map(PathBuf::from);
    for program in needs {
        let unpacked = unpacked.as_ref().is_some_and(|root| root.join("usr/bin").join(program).is_file());
        if installed(program).is_none() && !unpacked {
            println!("skipped: {name}: {program} is not installed");
            return false;
        }
    }
    let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let tried = Command::new("unshare").args(namespaces).args(["sh", "-c", SETUP, "sh", "true"]).output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            let why = String::from_utf8_lossy(&tried.stderr).into_owned();
            println!("skipped: {name}: no namespaces of its own: {}", why.lines().next_back().unwrap_or_default());
            return false;
        }
        Err(error) => {
            println!("skipped: {name}: unshare: {error}");
            return false;
        }
    }
    let status = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", SETUP, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside");
    false
}

/// The path of an installed program.
#[must_use]
pub fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// A daemon that the test started: asked to end, then ended, by its id.
#[derive(Debug)]
pub struct Daemon(pub Child);

impl Daemon {
    /// Starts a program that writes to a log, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or does not get ready.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path, ready: impl Fn() -> bool) -> Self {
        let file = std::fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let mut daemon = Self(child);
        let end = Instant::now() + START;
        while Instant::now() < end {
            if ready() {
                return daemon;
            }
            if daemon.0.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{command:?} did not get ready: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
