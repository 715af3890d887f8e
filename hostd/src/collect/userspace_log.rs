//! systemd's log of what it extends, read while systemd does not append.
//!
//! systemd-pcrextend(8): each writer holds `flock(LOCK_EX)` from before its extend until its record is written. With a shared lock from
//! before the quote until the log is read, the log is exactly what the quoted PCRs were extended by. The wait is bounded: a log that somebody
//! keeps locked is read as it is, and told. Judges nothing; what cannot be read is for the verifier to miss.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hostmark_attest::cel::userspace::LOG_MAX;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// How long systemd may hold its log: it does so for one extend, which slow TPMs take a fraction of a second for.
const WAIT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The log, held from before the quote on.
#[derive(Debug)]
pub(super) enum UserspaceLog {
    /// There is none, as with systemd before 255.
    Absent,
    /// It cannot be opened; told already.
    Unreadable,
    /// Nobody appends while this lives.
    Locked(Flock<File>),
    /// Somebody keeps it locked; told already.
    Contended(File),
}

impl UserspaceLog {
    /// Opens and locks it.
    pub(super) fn hold(path: &Path, problems: &mut Vec<String>) -> Self {
        Self::hold_within(path, WAIT, problems)
    }

    fn hold_within(path: &Path, wait: Duration, problems: &mut Vec<String>) -> Self {
        let mut told = |problem: &dyn std::fmt::Display| problems.push(format!("{}: {problem}", path.display()));
        // Neither a link nor a pipe in its place may be waited for.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let regular = opened.and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file")),
        });
        let mut file = match regular {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::Absent,
            Err(error) => {
                told(&error);
                return Self::Unreadable;
            }
        };
        let start = Instant::now();
        loop {
            let (back, errno) = match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(locked) => return Self::Locked(locked),
                Err(refused) => refused,
            };
            let later = matches!(errno, Errno::EWOULDBLOCK | Errno::EINTR);
            if !later || start.elapsed() >= wait {
                told(&format!("read without its lock, so that a round may fail that would not have ({errno})"));
                return Self::Contended(back);
            }
            file = back;
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the log came into being since it was looked for: its first records may be of before the quote.
    pub(super) fn appeared(&self, path: &Path) -> bool {
        matches!(self, Self::Absent) && path.exists()
    }

    /// What it holds now; of a log that is too long one byte more than a verifier reads, for it to say so.
    pub(super) fn read(self, path: &Path, problems: &mut Vec<String>) -> Vec<u8> {
        let bytes = match &self {
            Self::Absent | Self::Unreadable => return Vec::new(),
            Self::Locked(locked) => read(locked),
            Self::Contended(file) => read(file),
        };
        match bytes {
            Ok(bytes) if bytes.len() <= LOG_MAX => bytes,
            Ok(bytes) => {
                problems.push(format!("{}: more than {LOG_MAX} bytes: reboot the host", path.display()));
                bytes
            }
            Err(error) => {
                problems.push(format!("{}: {error}", path.display()));
                Vec::new()
            }
        }
    }
}

fn read(mut file: &File) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(LOG_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_log_is_read_when_its_writer_is_done_and_no_lock_is_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tpm2-measure.log");
        let mut problems = Vec::new();
        let absent = UserspaceLog::hold(&path, &mut problems);
        assert!(matches!(absent, UserspaceLog::Absent) && !absent.appeared(&path));
        std::fs::write(&path, b"one\n").unwrap();
        assert!(absent.appeared(&path), "it came into being meanwhile");
        assert!(absent.read(&path, &mut problems).is_empty() && problems.is_empty());

        // systemd is about to write: the whole record is waited for.
        let appending = || OpenOptions::new().append(true).open(&path).unwrap();
        let writer = Flock::lock(appending(), FlockArg::LockExclusive).unwrap();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            (&*writer).write_all(b"two\n").unwrap();
        });
        let held = UserspaceLog::hold(&path, &mut problems);
        assert!(matches!(held, UserspaceLog::Locked(_)));
        other.join().unwrap();
        // While it is held, no writer gets in; another reader does.
        assert!(Flock::lock(appending(), FlockArg::LockExclusiveNonblock).is_err());
        assert!(Flock::lock(appending(), FlockArg::LockSharedNonblock).is_ok());
        assert_eq!(held.read(&path, &mut problems), b"one\ntwo\n");
        assert!(problems.is_empty(), "{problems:?}");
        // Reading let it go.
        let forever = Flock::lock(appending(), FlockArg::LockExclusiveNonblock).unwrap();
        let held = UserspaceLog::hold_within(&path, Duration::from_millis(30), &mut problems);
        assert_eq!(held.read(&path, &mut problems), b"one\ntwo\n");
        assert!(problems[0].contains("without its lock") && problems.len() == 1, "{problems:?}");
        drop(forever);
    }

    #[test]
    fn what_is_no_log_is_told_and_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link, long) = (dir.path().join("pipe"), dir.path().join("link"), dir.path().join("long"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        std::fs::write(&long, vec![b'\n'; LOG_MAX + 7]).unwrap();
        for (path, length) in [(pipe, 0), (link, 0), (dir.path().to_owned(), 0), (long, LOG_MAX + 1)] {
            let mut problems = Vec::new();
            let held = UserspaceLog::hold(&path, &mut problems);
            assert_eq!(held.read(&path, &mut problems).len(), length, "{}", path.display());
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
    }
}
