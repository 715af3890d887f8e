//! The local socket: what the running daemon knows, for people and tools on this host.
//!
//! SURFACE, `hostd status`; attack row E10. A line of JSON asks, a line of JSON answers. The socket is 0600, so that asking takes the
//! daemon's own uid or root; and if somebody opens it wider, the peer's uid (SO_PEERCRED) still decides: others learn the
//! state and nothing else. Nothing can be changed here. What is told is what the verifier said last: no proof of anything.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostmark_attest::finding::Finding;
use hostmark_attest::wire::{HostState, PoolPlace};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// A question is a few words.
const QUESTION_MAX: u64 = 1024;
/// A status with all findings of a bad host stays below this.
const ANSWER_MAX: u64 = 16 << 20;
/// Who does not ask or read within this time is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at once: local tools ask one after another.
const AT_ONCE: usize = 16;

/// What the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// State as the verifier told it last; `lapsed` once that is older than the lease. None before the first round.
    pub state: Option<HostState>,
    /// Host id, given by the verifier.
    pub host: String,
    /// Node name, given by the approver.
    pub node: String,
    /// The verifier's address.
    pub verifier: String,
    /// Pools that admitted the host in the last round, with the end of each permit.
    pub pools: Vec<PoolPlace>,
    /// When the last complete round ended, RFC 3339.
    pub last_round: Option<String>,
    /// How long it took, from the challenge to the outcome, in milliseconds.
    pub last_round_ms: Option<u64>,
    /// When the next try is due, RFC 3339.
    pub next_round: Option<String>,
    /// Why the last try failed; None after a complete round.
    pub last_error: Option<String>,
    /// What is missing or broken in this host's evidence, as far as the host itself can see.
    pub problems: Vec<String>,
    /// The verifier's findings of the last round.
    pub findings: Vec<Finding>,
    /// End of the host's certificate, RFC 3339.
    pub certificate_not_after: String,
    /// hostd's version.
    pub hostd: String,
    /// Maker and firmware of the TPM, and where it is.
    pub tpm: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// SHA-256 of the engine manifest that was measured last, hex.
    pub manifest: Option<String>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase", deny_unknown_fields)]
enum Question {
    Status {},
}

/// The status that daemon and socket share.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    status: Status,
    /// End of the lease, by the boot-time clock.
    lease_end: Option<Duration>,
}

/// Time since boot, sleep included: a lease does not wait for a host that sleeps.
#[must_use]
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shown.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// Shows a state that holds until the lease's end, by [`since_boot`].
    pub fn lease(&self, state: HostState, end: Duration) {
        let mut shown = self.lock();
        shown.status.state = Some(state);
        shown.lease_end = Some(end);
    }

    /// What is left of the lease.
    #[must_use]
    pub fn lease_left(&self) -> Option<Duration> {
        self.lock().lease_end.and_then(|end| end.checked_sub(since_boot()))
    }

    /// The status now.
    #[must_use]
    pub fn read(&self) -> Status {
        let shown = self.lock();
        let mut status = shown.status.clone();
        let over = shown.lease_end.is_some_and(|end| end <= since_boot());
        if over && status.state == Some(HostState::Proven) {
            status.state = Some(HostState::Lapsed);
            status.pools.clear();
        }
        status
    }
}

/// The answer to one line, for a peer with this uid.
fn answer(line: &str, peer: u32, own: u32, status: &Status) -> serde_json::Value {
    match serde_json::from_str::<Question>(line) {
        Ok(Question::Status {}) if peer == own || peer == 0 => serde_json::json!(status),
        Ok(Question::Status {}) => serde_json::json!({ "state": status.state }),
        Err(_) => serde_json::json!({ "error": "ask {\"what\":\"status\"}" }),
    }
}

/// Listens. A socket that a killed daemon left behind is replaced; the caller holds the state directory's lock.
///
/// # Errors
/// The system's.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        crate::state::directory(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, board: Board) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "status socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let board = board.clone();
        tokio::spawn(async move {
            // A peer that goes away or is too slow has lost only its own answer.
            let _ = tokio::time::timeout(PATIENCE, converse(stream, &board)).await;
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, board: &Board) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = nix::unistd::geteuid().as_raw();
    let (reader, mut writer) = stream.into_split();
    let mut lines = AsyncReader::new(reader.take(QUESTION_MAX)).lines();
    while let Some(line) = lines.next_line().await? {
        let mut text = answer(&line, peer, own, &board.read()).to_string();
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens.
    #[error("hostd does not run here ({}: {source}); start it: systemctl start hostmark-hostd", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket is not ours to ask.
    #[error("{}: {source}; ask as root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something answered that is not hostd.
    #[error("{}: the answer is none of hostd's: {source}", path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// Asks the running daemon. An unprivileged caller gets an object with `state` alone.
///
/// # Errors
/// [`AskError`].
pub fn ask(path: &Path) -> Result<serde_json::Value, AskError> {
    let asked = || -> io::Result<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"{\"what\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
        Ok(line)
    };
    let path = path.to_owned();
    match asked() {
        Ok(line) => serde_json::from_str(&line).map_err(|source| AskError::Malformed { path, source }),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Err(AskError::Denied { path, source }),
        Err(source) => Err(AskError::NotRunning { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven() -> Status {
        Status {
            state: Some(HostState::Proven),
            host: "h-1".into(),
            findings: vec![Finding::error("ima.replay", "secret path")],
            ..Status::default()
        }
    }

    #[test]
    fn e10_others_learn_the_state_and_nothing_else() {
        let question = r#"{"what":"status"}"#;
        let status = proven();
        let all = serde_json::json!(status);
        let state = serde_json::json!({ "state": "proven" });
        // peer, own uid, answer
        for (peer, own, expect) in
            [(0, 0, &all), (0, 990, &all), (990, 990, &all), (1000, 0, &state), (1000, 990, &state)]
        {
            assert_eq!(&answer(question, peer, own, &status), expect, "uid {peer} asks uid {own}");
        }
        for bad in ["", "{}", r#"{"what":"keys"}"#, r#"{"what":"status","x":1}"#, "status"] {
            assert!(answer(bad, 0, 0, &status).get("error").is_some(), "{bad}");
        }
    }

    #[test]
    fn a_lease_ends_without_anybody_saying_so() {
        let board = Board::default();
        board.change(|status| *status = proven());
        let hour = Duration::from_secs(3600);
        for (state, end, expect) in [
            (HostState::Proven, since_boot().saturating_add(hour), HostState::Proven),
            (HostState::Proven, since_boot(), HostState::Lapsed),
            (HostState::Disproven, since_boot(), HostState::Disproven),
        ] {
            board.lease(state, end);
            assert_eq!(board.read().state, Some(expect));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_socket_is_private_answers_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/hostd.sock");
        assert!(matches!(ask(&path), Err(AskError::NotRunning { .. })));
        let board = Board::default();
        board.change(|status| *status = proven());
        for _ in 0..2 {
            let server = tokio::spawn(serve(listen(&path).unwrap(), board.clone()));
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let asked = tokio::task::spawn_blocking({
                let path = path.clone();
                move || ask(&path).unwrap()
            });
            assert_eq!(serde_json::from_value::<Status>(asked.await.unwrap()).unwrap(), proven());
            // What is no question ends the line, not the daemon.
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(&[b'x'; 100_000]).unwrap_or_default();
            drop(stream);
            server.abort();
            let _ = server.await;
        }
        assert!(matches!(ask(&path), Err(AskError::NotRunning { .. })), "the file of a dead daemon is nobody");
    }
}
