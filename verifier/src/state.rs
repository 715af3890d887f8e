//! What handlers share.

use std::sync::Arc;

use crate::ca::Ca;
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::keys::Keys;
use crate::limit::Limiter;
use crate::refusal::Outcome;
use crate::store::{self, Store};

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
}

impl std::ops::Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl AppState {
    /// Puts the parts together.
    #[must_use]
    pub fn new(config: Config, store: Arc<Store>, keys: Arc<Keys>, ca: Ca, clock: Clock) -> Self {
        let challenges = Limiter::new("rate.challenges", config.limits.challenges_per_minute);
        let enrolments = Limiter::new("rate.enrolments", config.limits.enrolments_per_minute);
        let metrics = crate::metrics::Metrics::new();
        Self(Arc::new(Inner { config, store, keys, ca, clock, challenges, enrolments, metrics }))
    }

    /// Reads the clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
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
