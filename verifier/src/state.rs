//! What handlers share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::ca::Ca;
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::keys::Keys;
use crate::limit::Limiter;
use crate::refusal::{Outcome, Refusal};
use crate::standing::Standings;
use crate::store::{self, Store};
use crate::trust::{Stamp, Trust, TrustError, stamp};

/// A set of host ids.
#[derive(Debug, Default)]
pub struct HostSet(Mutex<HashSet<String>>);

impl HostSet {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a host.
    pub fn insert(&self, host: String) {
        self.lock().insert(host);
    }

    /// Takes a host out.
    pub fn remove(&self, host: &str) {
        self.lock().remove(host);
    }

    /// Whether a host is in it.
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        self.lock().contains(host)
    }
}

/// The state of a running verifier; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

/// The parts of [`AppState`].
#[derive(Debug)]
pub struct Inner {
    /// The configuration.
    pub config: Config,
    /// The store.
    pub store: Arc<Store>,
    /// Signing keys.
    pub keys: Arc<Keys>,
    /// The certificate authority.
    pub ca: Ca,
    /// The clocks.
    pub clock: Clock,
    /// Limits challenges per host.
    pub challenges: Limiter,
    /// Limits enrolments per address.
    pub enrolments: Limiter,
    /// Renders the metrics.
    pub metrics: crate::metrics::Metrics,
    /// Where each host stands.
    pub standings: Standings,
    /// Hosts whose last round did not continue from the one before: their next challenge asks for whole logs.
    pub resend: HostSet,
    trust: RwLock<(Arc<Trust>, Stamp)>,
    /// When the trust directory was last looked at for somebody unknown, on the boot clock.
    looked: Mutex<Option<i64>>,
}

/// How often at most strangers may have the trust directory looked at: it costs a stat of each of its files.
const LOOK_EVERY_MS: i64 = 1_000;
/// Refusals of a signer whom the trust directory does not name.
const SIGNERS: [&str; 3] = ["policy.key", "references.key", "tag.provisioning.key"];
/// Refusals that a file which was just put into the trust directory may end.
const UNKNOWN: [&str; 4] = ["policy.key", "references.key", "tag.provisioning.key", "ek.chain"];

impl std::ops::Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl AppState {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: Config,
        store: Arc<Store>,
        keys: Arc<Keys>,
        ca: Ca,
        clock: Clock,
        trust: (Trust, Stamp),
    ) -> Self {
        let challenges = Limiter::new("rate.challenges", config.limits.challenges_per_minute);
        let enrolments = Limiter::new("rate.enrolments", config.limits.enrolments_per_minute);
        let metrics = crate::metrics::Metrics::new();
        let trust = RwLock::new((Arc::new(trust.0), trust.1));
        let (standings, resend) = (Standings::default(), HostSet::default());
        Self(Arc::new(Inner {
            config,
            store,
            keys,
            ca,
            clock,
            challenges,
            enrolments,
            metrics,
            standings,
            resend,
            trust,
            looked: Mutex::new(None),
        }))
    }

    /// Reads the clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Whose TPMs and signatures count now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Reads the trust directory again if a file changed. Returns whether it did.
    ///
    /// # Errors
    /// [`TrustError`]; what was trusted before stays until the files are repaired.
    pub fn reload_trust(&self) -> Result<bool, TrustError> {
        let fresh = stamp(&self.config.trust_dir);
        if self.trust.read().unwrap_or_else(PoisonError::into_inner).1 == fresh {
            return Ok(false);
        }
        let trust = Arc::new(Trust::load(&self.config.trust_dir, &self.config.ek_quirks)?);
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = (trust, fresh);
        Ok(true)
    }

    /// Judges something by whom the trust directory names. Who is not known may have been added a moment ago: then the directory is looked
    /// at again at once, instead of with the next tick, but at most once in [`LOOK_EVERY_MS`].
    ///
    /// # Errors
    /// What the judgement refuses; an unknown signer's finding names the directory where the key must lie.
    pub fn by_trust<T>(&self, now: &Now, judge: impl Fn(&Trust) -> Outcome<T>) -> Outcome<T> {
        let before = self.trust();
        let mut outcome = judge(&before);
        if outcome.as_ref().is_err_and(|refusal| UNKNOWN.iter().any(|id| refusal.names(id))) {
            self.look_again(now);
            let after = self.trust();
            if !Arc::ptr_eq(&before, &after) {
                outcome = judge(&after);
            }
        }
        outcome.map_err(|refusal| self.name_directory(refusal))
    }

    fn look_again(&self, now: &Now) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| now.boot_ms.saturating_sub(at) < LOOK_EVERY_MS) {
            return;
        }
        *looked = Some(now.boot_ms);
        if let Err(error) = self.reload_trust() {
            tracing::error!(%error, "the changed trust directory is unusable; the former trust stays");
        }
    }

    fn name_directory(&self, mut refusal: Refusal) -> Refusal {
        if SIGNERS.contains(&refusal.id()) {
            refusal.first.fix = Some(format!(
                "copy the signer's public key (KEY.pub) to {} on the verifier, or sign with a key that lies there",
                self.config.trust_dir.join("signers").join("NAME.pem").display()
            ));
        }
        refusal
    }

    /// Brings what is known of hosts and rules up to date with the store.
    ///
    /// # Errors
    /// 503 when the store is away: then nothing is granted.
    pub fn refresh(&self, now: &Now) -> Outcome<()> {
        self.standings.refresh(&self.store, &self.keys, &self.trust(), &self.config, now)
    }

    /// Runs blocking work off the async threads.
    ///
    /// # Errors
    /// What the work refuses; 500 `error` when it panicked (nothing is granted then, D20).
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let state = self.clone();
        match tokio::task::spawn_blocking(move || work(&state)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Refusal::internal(error)),
        }
    }

    /// Runs a store command off the async threads.
    ///
    /// # Errors
    /// What the command refuses.
    pub async fn store<T: Send + 'static>(
        &self,
        command: impl FnOnce(&Store) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        store::blocking(&self.store, command).await
    }
}
