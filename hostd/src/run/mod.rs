//! The daemon: prove this host again and again, and at once when something measured changes.
//!
//! DESIGN §4, "Time"; SURFACE, `hostd run`. A round is challenge, evidence, outcome. The verifier names the interval; failures are
//! retried with growing pauses, for as long as they last, and never end the daemon. The certificate is renewed by a quote before its
//! end, and after it. hostd decides nothing about trust: it repeats what the verifier said.

mod pace;
mod wake;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostmark_attest::finding::Severity;
use hostmark_attest::wire::{Challenge, EVIDENCE_TYPE, HostState, RoundOutcome};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::collect::{CollectError, Collected, Collector, Measurement};
use crate::config::Config;
use crate::provision::{ProvisionError, Provisioned};
use crate::status::{self, Board, Status};
use crate::tpm::{Identity, Tpm, TpmError};
use pace::{Pace, PerMille};
use wake::{Wake, Wakers};

/// Findings of a bad round that are logged; the status has all.
const FINDINGS_LOGGED: usize = 20;

/// Why the daemon cannot start. Once it runs, nothing but a signal ends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no verifier to prove anything to.
    #[error("this host is not provisioned; run `hostd provision` first")]
    NotProvisioned,
    /// The state directory.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The verifier's address or the certificate cannot be used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What is measured and logged.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The status socket.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a round is not complete.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error("the certificate could not be renewed: {0}")]
    Renewal(#[from] ProvisionError),
    #[error("the verifier asks for whole logs again and again; it knows more about this host than it can use")]
    Resend,
}

/// Runs until `stop`. The caller holds the state directory's lock.
///
/// # Errors
/// [`RunError`], before the first round.
pub async fn run(config: &Config, tpm: Tpm, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let host = Provisioned::load(&config.state_dir)?.ok_or(RunError::NotProvisioned)?;
    let mut daemon = Daemon::start(config, tpm, host).await?;
    let path = config.source.socket();
    let listener = status::listen(&path).map_err(|source| RunError::Socket { path: path.clone(), source })?;
    let server = tokio::spawn(status::serve(listener, daemon.board.clone()));
    tokio::select! {
        () = stop => {}
        () = daemon.forever() => {}
    }
    server.abort();
    // A socket without a daemon refuses connections anyway.
    let _ = std::fs::remove_file(&path);
    tracing::info!("stopped");
    Ok(())
}

struct Daemon {
    state_dir: PathBuf,
    tpm: Tpm,
    keys: Identity,
    host: Provisioned,
    client: Client,
    renew_at: OffsetDateTime,
    collector: Arc<Mutex<Collector>>,
    wakers: Wakers,
    board: Board,
    pace: Pace,
    told: Option<HostState>,
    problems: Vec<String>,
}

impl Daemon {
    async fn start(config: &Config, tpm: Tpm, host: Provisioned) -> Result<Self, RunError> {
        let keys = tpm.open_keys(&config.state_dir)?;
        let client = host.client(&tpm, &keys)?;
        let facts = tpm.facts()?;
        let collector = {
            let (config, tpm) = (config.clone(), tpm.clone());
            tokio::task::spawn_blocking(move || Collector::new(&config, tpm))
                .await
                .map_err(|_| CollectError::Ended)??
        };
        let board = Board::default();
        board.change(|status| {
            *status = Status {
                hostd: env!("CARGO_PKG_VERSION").to_owned(),
                tpm: format!("{} {}, firmware {}, at {}", facts.manufacturer, facts.vendor, facts.firmware, facts.tcti),
                boot_id: collector.boot_id().to_owned(),
                ..Status::default()
            };
        });
        let mut daemon = Self {
            state_dir: config.state_dir.clone(),
            renew_at: renewal_due(&host),
            collector: Arc::new(Mutex::new(collector)),
            wakers: Wakers::none(),
            pace: Pace::new(),
            told: None,
            problems: Vec::new(),
            tpm,
            keys,
            host,
            client,
            board,
        };
        daemon.show_host();
        // Measured and logged before anything is sent: engines may be starting right now.
        let measured = daemon.measure().await?;
        daemon.wakers = Wakers::start(config, &measured.looked_at);
        tracing::info!(
            host = daemon.host.identity.host,
            node = daemon.host.identity.node,
            verifier = daemon.host.verifier,
            "started"
        );
        Ok(daemon)
    }

    async fn forever(&mut self) {
        let mut due = Instant::now();
        loop {
            let wake = self.wakers.until(due, self.pace.failures() > 0).await;
            if wake == Wake::Measured {
                match self.measure().await {
                    Ok(measured) if !measured.changed && !measured.workloads_changed => continue,
                    Ok(measured) if measured.changed => {
                        tracing::info!(manifest = hex::encode(measured.sha256), "what is measured changed");
                    }
                    Ok(_) => tracing::info!("the containers changed"),
                    // The attempt that follows tells the same reason.
                    Err(error) => tracing::debug!(%error, "measuring after a change"),
                }
            }
            self.wakers.attempted();
            let pause = self.attempt().await;
            let now = Instant::now();
            due = now.checked_add(pause).unwrap_or(now);
            let next = OffsetDateTime::now_utc().checked_add(pause.try_into().unwrap_or_default());
            self.board.change(|status| status.next_round = next.and_then(|next| next.format(&Rfc3339).ok()));
        }
    }

    /// One try, told on the board. Returns the pause until the next.
    async fn attempt(&mut self) -> Duration {
        let (start, since_boot) = (Instant::now(), status::since_boot());
        let outcome = self.round().await;
        let left = self.board.lease_left();
        match outcome {
            Ok(outcome) if outcome.resend => {
                let pause = self.pace.after_resend(left, random());
                tracing::info!(?pause, "the verifier asks for whole logs");
                if !pause.is_zero() {
                    self.tell_failure(&RoundError::Resend, pause);
                }
                pause
            }
            Ok(outcome) => {
                let pause = self.pace.after_round(outcome.next_in_ms, random());
                // Counted from before the challenge was asked: never longer than the verifier counts.
                self.board.lease(outcome.state, since_boot.saturating_add(self.pace.lease()));
                self.tell_round(outcome, start.elapsed());
                pause
            }
            Err(error) => {
                let pause = self.pace.after_failure(left, random());
                self.tell_failure(&error, pause);
                pause
            }
        }
    }

    async fn round(&mut self) -> Result<RoundOutcome, RoundError> {
        self.renew_early().await;
        let challenge = match self.challenge().await {
            // The verifier ended this certificate, by time or by hand: a quote gets a new one, or a reason why not.
            Err(error) if error.status() == Some(401) => {
                self.renew().await?;
                self.challenge().await?
            }
            other => other?,
        };
        let collected = self.collect(challenge).await?;
        self.note(&collected);
        let size = collected.evidence.len();
        tracing::debug!(size, "evidence collected");
        let outcome: RoundOutcome = self.client.post_bytes("/v1/evidence", EVIDENCE_TYPE, collected.evidence).await?.1;
        if outcome.result.is_some() {
            self.with_collector(|collector| {
                collector.answered();
                Ok(())
            })
            .await?;
        }
        Ok(outcome)
    }

    async fn challenge(&self) -> Result<Challenge, ClientError> {
        Ok(self.client.post("/v1/challenges", &serde_json::json!({})).await?.1)
    }

    async fn collect(&self, challenge: Challenge) -> Result<Collected, CollectError> {
        self.with_collector(move |collector| collector.collect(&challenge)).await
    }

    async fn measure(&mut self) -> Result<Measurement, CollectError> {
        let measured = self.with_collector(Collector::measure).await?;
        self.note_measurement(&measured);
        Ok(measured)
    }

    /// Works with TPM and files where waiting keeps nobody else waiting.
    async fn with_collector<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Collector) -> Result<T, CollectError> + Send + 'static,
    ) -> Result<T, CollectError> {
        let collector = Arc::clone(&self.collector);
        let work = move || work(&mut collector.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(|_| CollectError::Ended)?
    }

    fn note_measurement(&self, measured: &Measurement) {
        self.wakers.update(&measured.looked_at);
        self.board.change(|status| status.manifest = Some(hex::encode(measured.sha256)));
    }

    fn note(&mut self, collected: &Collected) {
        self.note_measurement(&collected.measurement);
        if self.problems != collected.problems {
            for problem in collected.problems.iter().filter(|problem| !self.problems.contains(problem)) {
                tracing::warn!("{problem}");
            }
            self.problems.clone_from(&collected.problems);
            self.board.change(|status| status.problems.clone_from(&collected.problems));
        }
    }

    /// Renews in good time. A failure costs nothing yet.
    async fn renew_early(&mut self) {
        let now = OffsetDateTime::now_utc();
        if now < self.renew_at {
            return;
        }
        if let Err(error) = self.renew().await {
            self.renew_at = pace::renewal_retry(now, self.host.not_after());
            tracing::warn!(retry = %self.renew_at, "the certificate could not be renewed: {error}");
        }
    }

    async fn renew(&mut self) -> Result<(), ProvisionError> {
        self.host.renew(&self.state_dir, &self.tpm, &self.keys).await?;
        self.client = self.host.client(&self.tpm, &self.keys)?;
        self.renew_at = renewal_due(&self.host);
        self.show_host();
        tracing::info!(not_after = self.host.identity.not_after, "certificate renewed");
        Ok(())
    }

    fn show_host(&self) {
        let (identity, verifier) = (&self.host.identity, &self.host.verifier);
        self.board.change(|status| {
            status.host.clone_from(&identity.host);
            status.node.clone_from(&identity.node);
            status.verifier.clone_from(verifier);
            status.certificate_not_after.clone_from(&identity.not_after);
        });
    }

    fn tell_round(&mut self, outcome: RoundOutcome, took: Duration) {
        let state = outcome.state;
        let pools: Vec<&str> = outcome.pools.iter().map(|place| place.pool.as_str()).collect();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if self.told.replace(state) == Some(state) {
            tracing::debug!(?state, ?pools, took_ms, "round");
        } else {
            tracing::info!(?state, ?pools, took_ms, "the verifier's word on this host changed");
            let weighty = outcome.findings.iter().filter(|finding| finding.severity != Severity::Info);
            for finding in weighty.take(FINDINGS_LOGGED) {
                tracing::warn!("{finding}");
            }
        }
        let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
        self.board.change(|status| {
            status.pools = outcome.pools;
            status.findings = outcome.findings;
            status.last_round = now;
            status.last_round_ms = Some(took_ms);
            status.last_error = None;
        });
    }

    fn tell_failure(&self, error: &RoundError, pause: Duration) {
        let message = error.to_string();
        let known = self.board.read().last_error.as_ref() == Some(&message);
        if known {
            tracing::debug!(?pause, tries = self.pace.failures(), "no round: {message}");
        } else {
            tracing::warn!(?pause, "no round: {message}");
        }
        self.board.change(|status| {
            if let RoundError::Client(ClientError::Refused { body, .. }) = error {
                status.findings.clone_from(&body.findings);
            }
            status.last_error = Some(message);
        });
    }
}

/// When two thirds of the certificate's life are over.
fn renewal_due(host: &Provisioned) -> OffsetDateTime {
    pace::renewal_due(host.not_before().unwrap_or_else(OffsetDateTime::now_utc), host.not_after())
}

/// Spreads hosts over time; nobody gains by guessing it.
fn random() -> PerMille {
    use std::hash::{BuildHasher as _, RandomState};
    PerMille::try_from(RandomState::new().hash_one(0u8) % 1000).unwrap_or_default()
}
