//! Where a canary's log line ends up: journald, syslog's files, or only where the engine keeps it.
//!
//! The line is random and said by the container alone, so no other log can have it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{Inspected, Told};
use super::run::Run;

/// How long a line may be on its way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Of a log's end, more than a canary's time can hold on a host that does not drown.
const TAIL: u64 = 4 << 20;
/// Drivers whose log the engine itself keeps in files of its own.
const KEPT: [&str; 3] = ["json-file", "local", "k8s-file"];
/// Where syslog daemons write.
const FILES: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];

/// The place's name; None when the line is nowhere.
pub(super) fn place(
    run: &Run<'_>,
    role: &str,
    canary: &Inspected,
    words: &BTreeMap<String, String>,
) -> Told<Option<String>> {
    let line = words.get("line").filter(|line| line.len() >= 32).ok_or("the canary could not make a line")?;
    let driver = canary.log_driver.as_str();
    if driver == "none" {
        return Ok(None);
    }
    let end = Instant::now().checked_add(PATIENCE).unwrap_or(run.end).min(run.end);
    loop {
        if KEPT.contains(&driver) {
            let file =
                canary.log_path.as_deref().is_some_and(|path| tail(path).is_some_and(|text| text.contains(line)));
            if file || run.engine.log(&run.name(role), run.end).is_ok_and(|text| text.contains(line)) {
                return Ok(Some(driver.to_owned()));
            }
        } else if journal().is_some_and(|text| text.contains(line)) {
            return Ok(Some("journald".to_owned()));
        } else if FILES.iter().any(|path| tail(path).is_some_and(|text| text.contains(line))) {
            return Ok(Some("syslog".to_owned()));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The end of a file.
fn tail(path: &str) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The journal's last minutes.
fn journal() -> Option<String> {
    let mut child = Command::new("/usr/bin/journalctl")
        .args(["--quiet", "--no-pager", "--output=cat", "--since=-3min", "--lines=5000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut bytes = Vec::new();
    let read = child.stdout.take()?.take(TAIL).read_to_end(&mut bytes);
    // Ended, or it has more to say than is wanted.
    let _ = child.kill();
    let _ = child.wait();
    read.ok().map(|_| String::from_utf8_lossy(&bytes).into_owned())
}
