//! Waiting for something that another process does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process: its owner wants to clean up.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again until there is an answer; how long that took is returned with it.
///
/// # Errors
/// When `within` has passed, `ask` fails for good, or the process was interrupted.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if interrupted() {
            bail!("interrupted");
        }
        if let Some(answer) = ask()? {
            return Ok((answer, start.elapsed()));
        }
        if start.elapsed() > within {
            bail!("not seen within {within:?}: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
