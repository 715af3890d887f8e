//! Waiting for something that another process does.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again until there is an answer; how long that took is returned with it.
///
/// # Errors
/// When `within` has passed, or `ask` fails for good.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok((answer, start.elapsed()));
        }
        if start.elapsed() > within {
            bail!("not seen within {within:?}: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
