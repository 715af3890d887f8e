//! What wakes the daemon before its next round is due.
//!
//! DESIGN §4, "Time": attest at a third of the lease and on event. Events are a change of what is measured (files, units, binaries,
//! Docker's containers), a longer IMA list, and SIGHUP (`systemctl reload`): an operator who wants a verdict now. They only hasten a
//! round; one that is missed is made up for by the next.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::config::Config;
use crate::engines::events::EngineEvents;
use crate::watch::Watcher;

/// Between two looks at the length of the IMA list, which the kernel tells nobody of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A host on which programs start all the time is not attested more often than this for their sake.
const LIST_PAUSE: Duration = Duration::from_secs(3);

/// Why the daemon woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// The round is due.
    Due,
    /// Something that is measured may have changed: measure first.
    Measured,
    /// Attest now, whatever is measured.
    Attest,
}

/// All that can wake it.
#[derive(Debug)]
pub(super) struct Wakers {
    watcher: Option<Watcher>,
    engine: Option<EngineEvents>,
    list: Option<ListLength>,
    hangup: Option<Signal>,
}

impl Wakers {
    pub(super) const fn none() -> Self {
        Self { watcher: None, engine: None, list: None, hangup: None }
    }

    /// Listens to whatever there is to listen to. What cannot be heard is logged, and seen in the next round.
    pub(super) fn start(config: &Config, looked_at: &BTreeSet<PathBuf>) -> Self {
        let watcher = Watcher::start(looked_at)
            .inspect_err(|error| tracing::warn!(%error, "nothing is watched; changes are seen in the next round"));
        let engine = config.engines.socket().and_then(|socket| {
            EngineEvents::start(socket)
                .inspect_err(
                    |error| tracing::warn!(%error, "no events of Docker; containers are seen in the next round"),
                )
                .ok()
        });
        let hangup =
            signal(SignalKind::hangup()).inspect_err(|error| tracing::warn!(%error, "SIGHUP hastens no round"));
        Self { watcher: watcher.ok(), engine, list: ListLength::of(&config.source.ima), hangup: hangup.ok() }
    }

    /// Other files are looked at from now on.
    pub(super) fn update(&self, looked_at: &BTreeSet<PathBuf>) {
        if let Some(watcher) = &self.watcher {
            watcher.update(looked_at);
        }
    }

    /// A round begins: what the list holds now is in it.
    pub(super) fn attempted(&mut self) {
        if let Some(list) = &mut self.list {
            list.attempted();
        }
    }

    /// Waits for `due`, or for what comes before it. While rounds fail (`failing`), a longer list hastens none: it would undo the
    /// growing pauses.
    pub(super) async fn until(&mut self, due: Instant, failing: bool) -> Wake {
        let list = if failing { &mut None } else { &mut self.list };
        tokio::select! {
            biased;
            () = changed(&mut self.watcher) => Wake::Measured,
            () = told(&mut self.engine) => Wake::Measured,
            () = hung_up(&mut self.hangup) => Wake::Attest,
            () = grown(list) => Wake::Attest,
            () = tokio::time::sleep_until(due) => Wake::Due,
        }
    }
}

/// Ends when something that is watched changed; never where nothing is watched.
async fn changed(watcher: &mut Option<Watcher>) {
    if let Some(watching) = watcher {
        if watching.changed().await.is_some() {
            return;
        }
        tracing::warn!("watching ended; changes are seen in the next round");
        *watcher = None;
    }
    std::future::pending().await
}

/// Ends when Docker told of a container; never where nobody listens.
async fn told(events: &mut Option<EngineEvents>) {
    if let Some(listening) = events {
        if listening.next().await.is_some() {
            return;
        }
        *events = None;
    }
    std::future::pending().await
}

/// Ends with a SIGHUP; never where it cannot be heard.
async fn hung_up(hangup: &mut Option<Signal>) {
    if let Some(signal) = hangup {
        if signal.recv().await.is_some() {
            tracing::info!("asked for a round");
            return;
        }
        *hangup = None;
    }
    std::future::pending().await
}

/// Ends when the IMA list is longer than at the last round; never where its length is not told.
async fn grown(list: &mut Option<ListLength>) {
    match list {
        Some(list) => list.grown().await,
        None => std::future::pending().await,
    }
}

/// How many entries the kernel's list has, as the kernel counts them (Linux `ima_fs.c`: runtime_measurements_count).
#[derive(Debug)]
struct ListLength {
    path: PathBuf,
    seen: u64,
    attempted: Instant,
}

impl ListLength {
    /// The counter beside a list. A copy of a list has none.
    fn of(list: &Path) -> Option<Self> {
        let path = list.with_file_name("runtime_measurements_count");
        let seen = count(&path)?;
        Some(Self { path, seen, attempted: Instant::now() })
    }

    fn attempted(&mut self) {
        self.seen = count(&self.path).unwrap_or(self.seen);
        self.attempted = Instant::now();
    }

    async fn grown(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let rested = self.attempted.elapsed() >= LIST_PAUSE;
            if rested && count(&self.path).is_some_and(|count| count != self.seen) {
                return;
            }
        }
    }
}

fn count(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_longer_list_hastens_a_round_but_none_that_failed_or_has_just_begun() {
        const SOON: Duration = Duration::from_millis(1500);
        const LATER: Duration = Duration::from_secs(60);
        let directory = tempfile::tempdir().unwrap();
        let counter = directory.path().join("runtime_measurements_count");
        let list = directory.path().join("binary_runtime_measurements");
        assert!(ListLength::of(&list).is_none(), "a copy of a list");
        std::fs::write(&counter, "7\n").unwrap();
        let mut wakers = Wakers { list: ListLength::of(&list), ..Wakers::none() };
        let within = |time| Instant::now().checked_add(time).unwrap();

        let attempted = Instant::now();
        wakers.attempted();
        std::fs::write(&counter, "8\n").unwrap();
        assert_eq!(wakers.until(within(LIST_PAUSE.saturating_add(SOON)), true).await, Wake::Due, "rounds fail");
        assert_eq!(wakers.until(within(LATER), false).await, Wake::Attest);
        assert!(attempted.elapsed() >= LIST_PAUSE);
        wakers.attempted();
        assert_eq!(wakers.until(within(LIST_PAUSE.saturating_add(SOON)), false).await, Wake::Due, "that round has it");
        std::fs::write(&counter, "9\n").unwrap();
        assert_eq!(wakers.until(within(LATER), false).await, Wake::Attest);
    }

    #[tokio::test]
    async fn sighup_asks_for_a_round() {
        let mut wakers = Wakers { hangup: signal(SignalKind::hangup()).ok(), ..Wakers::none() };
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        let due = Instant::now() + Duration::from_secs(600);
        assert_eq!(wakers.until(due, true).await, Wake::Attest);
    }
}
