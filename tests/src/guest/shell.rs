//! The root shell of a guest, over a virtio-serial port that QEMU shows as a socket.
//!
//! One script at a time, framed by a marker that no script can print by accident: what stands before it is the script's
//! output, the number after it its exit status.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long one read waits before the deadline is looked at.
const SLICE: Duration = Duration::from_millis(100);
/// No script says more than an IMA list of some ten thousand entries.
const OUTPUT_MAX: usize = 64 << 20;

/// What a script gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Standard output and standard error as they came.
    pub text: String,
}

impl Output {
    /// Demands exit status 0 and gives the text.
    ///
    /// # Errors
    /// Any other, with what was said.
    pub fn good(self) -> anyhow::Result<String> {
        if self.status == 0 { Ok(self.text) } else { bail!("exit {}: {}", self.status, self.text) }
    }
}

/// A connection to the shell.
#[derive(Debug)]
pub(super) struct Shell {
    stream: UnixStream,
    seen: Vec<u8>,
    scripts: u64,
}

impl Shell {
    /// Connects to the socket. The guest need not have started its shell yet: what is sent waits.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(SLICE))?;
        Ok(Self { stream, seen: Vec::new(), scripts: 0 })
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// When it did not end within `within`, or the guest is gone.
    pub(super) fn run(&mut self, script: &str, within: Duration) -> anyhow::Result<Output> {
        self.scripts = self.scripts.saturating_add(1);
        let marker = format!("hostmark-end-{}-{}", std::process::id(), self.scripts);
        // In a subshell: what it changes of itself ends with it. printf is the shell's own.
        let framed = format!("(\n{script}\n) </dev/null 2>&1\nprintf '\\n%s %d.\\n' {marker} $?\n");
        self.stream.write_all(framed.as_bytes())?;
        let end = format!("\n{marker} ");
        let deadline = Instant::now() + within;
        loop {
            if let Some(output) = self.finished(end.as_bytes())? {
                return Ok(output);
            }
            if Instant::now() > deadline {
                bail!("no end within {within:?} of:\n{script}\nuntil then:\n{}", String::from_utf8_lossy(&self.seen));
            }
            if self.seen.len() > OUTPUT_MAX {
                bail!("more than {OUTPUT_MAX} bytes from:\n{script}");
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the guest ended during:\n{script}"),
                Ok(count) => self.seen.extend(chunk.get(..count).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a script and does not wait: it ends the machine.
    ///
    /// # Errors
    /// When the guest is gone already.
    pub(super) fn send(&mut self, script: &str) -> anyhow::Result<()> {
        Ok(self.stream.write_all(format!("{script}\n").as_bytes())?)
    }

    fn finished(&mut self, end: &[u8]) -> anyhow::Result<Option<Output>> {
        let Some(at) = self.seen.windows(end.len()).position(|window| window == end) else { return Ok(None) };
        let (text, rest) = self.seen.split_at(at);
        let rest = rest.get(end.len()..).unwrap_or_default();
        let Some(stop) = rest.windows(2).position(|window| window == b".\n") else { return Ok(None) };
        let status = std::str::from_utf8(rest.get(..stop).unwrap_or_default())?.parse()?;
        let text = String::from_utf8_lossy(text).into_owned();
        self.seen.clear();
        Ok(Some(Output { status, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    /// A shell of this machine behind a socket, as the guest's is.
    fn local() -> (tempfile::TempDir, Shell, std::process::Child) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let shell = Shell::connect(&socket).unwrap();
        let (end, _) = listener.accept().unwrap();
        let fd = |stream: &UnixStream| Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()));
        let child = Command::new("sh").stdin(fd(&end)).stdout(fd(&end)).stderr(fd(&end)).spawn().unwrap();
        (dir, shell, child)
    }

    #[test]
    fn each_script_gives_its_own_output_and_status() {
        let (_dir, mut shell, mut child) = local();
        let long = Duration::from_secs(20);
        let rows = [
            ("echo a; echo b >&2", 0, "a\nb\n"),
            ("exit 7", 7, ""),
            ("printf 'no end of line'; false", 1, "no end of line"),
            ("cat; echo \"it's $((1 + 1))\"", 0, "it's 2\n"),
            ("printf 'hostmark-end-1 3.\\n'", 0, "hostmark-end-1 3.\n"),
            ("seq 20000 | tail -n 1", 0, "20000\n"),
        ];
        for (script, status, text) in rows {
            let output = shell.run(script, long).unwrap();
            assert_eq!((output.status, output.text.as_str()), (status, text), "{script}");
        }
        let error = shell.run("sleep 5", Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("no end within"), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(shell.run("true", long).is_err());
    }
}
