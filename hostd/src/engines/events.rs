//! Docker's event stream: a container that is made or changed is looked at at once, not only in the next round.
//!
//! Docker Engine API, `GET /events`. Proves nothing and may miss what happens while nobody listens: every round looks as well.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// Containers that are made or changed; what they do afterwards changes nothing of what they reach.
const REQUEST: &[u8] = b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22update%22%5D%7D HTTP/1.0\r\nHost: docker\r\n\r\n";
/// How soon a silent stream sees that nobody wants it any more.
const SILENCE: Duration = Duration::from_millis(500);
/// Between two attempts to reach the daemon: one that restarts is found again soon.
const RETRY: Duration = Duration::from_secs(2);
/// A host that starts a container every moment is looked at this often by events.
const SOONEST: Duration = Duration::from_secs(1);
/// Longest event: one with many labels has some kB.
const LINE_MAX: u64 = 1 << 20;

/// Listens to Docker until it is dropped.
#[derive(Debug)]
pub struct EngineEvents {
    events: mpsc::Receiver<()>,
    stop: Arc<AtomicBool>,
}

impl EngineEvents {
    /// Starts listening on Docker's socket, whether somebody is there or not.
    ///
    /// # Errors
    /// The system's (no thread).
    pub fn start(socket: PathBuf) -> std::io::Result<Self> {
        let (sender, events) = mpsc::channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                let _ = listen(&socket, &sender, &ends);
                std::thread::sleep(RETRY);
            }
        })?;
        Ok(Self { events, stop })
    }

    /// Waits for the next event; several close together are one. None when the listening thread has ended.
    pub async fn next(&mut self) -> Option<()> {
        self.events.recv().await
    }
}

impl Drop for EngineEvents {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// One connection, until its end.
fn listen(socket: &Path, sender: &mpsc::Sender<()>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(REQUEST)?;
    stream.set_read_timeout(Some(SILENCE))?;
    // What happened before the connection was not told: look once.
    let _ = sender.try_send(());
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut limited = std::io::Read::take(&mut reader, LINE_MAX);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if line.first() == Some(&b'{') && line.ends_with(b"\n") => {
                let _ = sender.try_send(());
                std::thread::sleep(SOONEST);
            }
            Ok(_) if !line.ends_with(b"\n") => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn each_event_is_told_and_a_daemon_that_restarts_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut events = EngineEvents::start(socket.clone()).unwrap();
        let (mut daemon, _) = listener.accept().unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), events.next()).await, Ok(Some(())), "connected");
        daemon.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(700), events.next()).await.is_err(), "a header is no event");
        daemon.write_all(b"{\"status\":\"create\"}\n").unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), events.next()).await, Ok(Some(())), "an event");
        drop(daemon);
        let (_daemon, _) = listener.accept().unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), events.next()).await, Ok(Some(())), "connected again");
    }
}
