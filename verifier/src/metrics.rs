//! Prometheus metrics: a handful of counters and gauges, all named here.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Requests by route and status.
pub const REQUESTS: &str = "hostmark_requests_total";
/// Seconds per request by route.
pub const REQUEST_SECONDS: &str = "hostmark_request_seconds";
/// Open connections.
pub const CONNECTIONS: &str = "hostmark_connections";
/// Connections that were turned away, by reason.
pub const CONNECTIONS_REFUSED: &str = "hostmark_connections_refused_total";
/// Enrolments by outcome.
pub const ENROLMENTS: &str = "hostmark_enrolments_total";
/// Attestation rounds by outcome (proven, disproven, refused, error).
pub const ROUNDS: &str = "hostmark_rounds_total";
/// Hosts by state.
pub const HOSTS: &str = "hostmark_hosts";

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Installs the recorder once per process.
    #[must_use]
    pub fn new() -> Self {
        use std::sync::OnceLock;
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics stays empty");
            }
            metrics::describe_counter!(REQUESTS, "requests by route and status");
            metrics::describe_histogram!(REQUEST_SECONDS, "seconds per request by route");
            metrics::describe_gauge!(CONNECTIONS, "open connections");
            metrics::describe_counter!(CONNECTIONS_REFUSED, "connections turned away, by reason");
            metrics::describe_counter!(ENROLMENTS, "enrolments by outcome");
            metrics::describe_counter!(ROUNDS, "attestation rounds by outcome");
            metrics::describe_gauge!(HOSTS, "hosts by state");
            handle
        });
        Self(handle.clone())
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
