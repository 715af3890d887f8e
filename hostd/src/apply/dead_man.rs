//! The process that undoes an apply when nobody confirms it, or when the applying process dies.
//!
//! A session of its own (setsid(2)), so that it outlives the terminal through which the host was cut off. The deadline is on CLOCK_BOOTTIME, which
//! counts sleep and no change of the wall clock. It does not outlive the host: another boot's deadline is over, and the next call of hostd, or its
//! daemon's start, undoes it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::receipt::Receipt;
use super::{Applier, ApplyError, Journal};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What it says once it stands on its own.
const READY: &str = "ready";

/// Milliseconds since the boot, sleep included.
///
/// # Errors
/// The system's.
pub fn now_ms() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let whole = u64::try_from(now.tv_sec()).ok().and_then(|seconds| seconds.checked_mul(1000));
    let part = u64::try_from(now.tv_nsec()).ok().map(|nanos| nanos.checked_div(1_000_000).unwrap_or_default());
    whole.zip(part).and_then(|(whole, part)| whole.checked_add(part)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Starts it, and returns when it stands on its own.
pub(super) fn start(command: &[String], receipt: &str) -> io::Result<u32> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(receipt)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim_end() != READY {
        // It is ended by its id; nothing was changed yet.
        let _ = child.kill();
        let _ = child.wait();
        return Err(io::Error::other("it did not start"));
    }
    Ok(child.id())
}

/// Waits for a receipt to be settled, and undoes it when its time is over or the process that applies is gone.
///
/// # Errors
/// [`ApplyError`]: it could not be undone.
pub fn guard(applier: &Applier<'_>, receipt: &str) -> Result<(), ApplyError> {
    // A process that leads its session already stands on its own.
    let _ = nix::unistd::setsid();
    let mut out = io::stdout();
    // Whoever started it may be gone: then there is nobody to tell.
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    let directory = applier.home().join(receipt);
    loop {
        std::thread::sleep(LOOK_EVERY);
        // Held: an apply, a confirmation or a rollback is at work.
        let Ok(_held) = crate::state::lock(&applier.home()) else { continue };
        let steps = Journal::read(&directory).map_err(ApplyError::io(receipt))?;
        let Some(told) = Receipt::of(&steps) else { return Ok(()) };
        if told.is_settled() {
            return Ok(());
        }
        if let Some(why) = applier.over(&told, &steps)? {
            let (mut journal, _) = Journal::open(&directory).map_err(ApplyError::io(receipt))?;
            applier.undo(&mut journal, &why, false)?;
            return Ok(());
        }
    }
}
