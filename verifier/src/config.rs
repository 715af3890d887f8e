//! `verifier.toml`. Unknown keys are errors with line and column; every value has a stated default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hostmark_attest::label::Levels;
use hostmark_attest::span::Span;
use serde::Deserialize;

/// The configuration of `verifier serve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; port 0 takes a free port, which is printed.
    pub listen: SocketAddr,
    /// State: keys, database, audit head. Mode 0700.
    pub state_dir: PathBuf,
    /// Trust files: `ek/<class>/*.pem`, `signers/*.pem`.
    pub trust_dir: PathBuf,
    /// Deviations of makers' EK certificates that are tolerated, by name; each use is a finding.
    pub ek_quirks: Vec<String>,
    /// Names and addresses in the server's certificate.
    pub names: Vec<String>,
    /// A file that gets the bound address once the verifier listens.
    pub address_file: Option<PathBuf>,
    /// A second, plain listener for `/metrics` and health only. Loopback only.
    pub metrics_listen: Option<SocketAddr>,
    /// Sensitivity levels, lowest first.
    pub levels: Levels,
    /// Life of a host's certificate.
    pub host_certificate: Span,
    /// Life of an operator's certificate.
    pub operator_certificate: Span,
    /// Life of a nonce.
    pub nonce_life: Span,
    /// Time a host has to answer an enrolment challenge.
    pub enrolment_deadline: Span,
    /// Appraisal policy of hosts whose approver named none.
    pub default_policy: String,
    /// Limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            state_dir: PathBuf::from("/var/lib/hostmark/verifier"),
            trust_dir: PathBuf::from("/etc/hostmark/trust"),
            ek_quirks: Vec::new(),
            names: vec![String::from("localhost"), String::from("127.0.0.1")],
            address_file: None,
            metrics_listen: None,
            levels: Levels::default(),
            host_certificate: Span::hours(24),
            operator_certificate: Span::hours(24 * 365),
            nonce_life: Span::seconds(60),
            enrolment_deadline: Span::seconds(120),
            default_policy: String::from("server-uki"),
            limits: Limits::default(),
        }
    }
}

/// Limits that a larger fleet may raise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections in all. Each costs about 40 KiB.
    pub connections: usize,
    /// Open connections without a client certificate: enrolments, health checks, strangers.
    pub anonymous_connections: usize,
    /// TLS handshake, at most.
    pub handshake: Span,
    /// A request's headers, and an idle connection, at most.
    pub idle: Span,
    /// A whole request, at most.
    pub request: Span,
    /// Challenges per host and minute.
    pub challenges_per_minute: u32,
    /// Requests without a certificate (enrolment, activation, poll, renewal) per address and minute.
    pub enrolments_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            anonymous_connections: 512,
            handshake: Span::seconds(10),
            idle: Span::seconds(60),
            request: Span::seconds(30),
            challenges_per_minute: 120,
            enrolments_per_minute: 600,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not valid; the text names line and column.
    #[error("{path}: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value that is well-formed but cannot be used.
    #[error("{path}: `{key}`: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        problem: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Invalid { path: path.into(), source: Box::new(source) })?;
        let value = |key, problem| Err(ConfigError::Value { path: path.into(), key, problem });
        if config.metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
            return value("metrics_listen", "must be a loopback address: it is neither encrypted nor authenticated");
        }
        if config.names.is_empty() {
            return value("names", "the server's certificate needs at least one name");
        }
        if config.limits.connections == 0 || config.limits.anonymous_connections == 0 {
            return value("limits", "zero connections would shut everybody out");
        }
        if config.nonce_life.0.is_zero() || config.enrolment_deadline.0.is_zero() || config.host_certificate.0.is_zero()
        {
            return value("nonce_life", "lives and deadlines must be above zero");
        }
        Ok(config)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("store.sqlite")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_configuration_is_refused_where_it_stands() {
        let rows = [
            ("", None),
            ("listen = \"127.0.0.1:0\"\nnonce_life = \"30s\"\n[limits]\nconnections = 5", None),
            ("listen = \"127.0.0.1:0\"\nlistne = 1", Some("line 2, column 1")),
            ("[limits]\nconections = 1", Some("line 2, column 1")),
            ("nonce_life = \"1 minute\"", Some("`1 minute` is not a duration")),
            ("nonce_life = \"99999999999d\"", Some("longer than ten years")),
            ("metrics_listen = \"0.0.0.0:9000\"", Some("loopback")),
        ];
        for (text, expect) in rows {
            let outcome =
                Config::parse(Path::new("verifier.toml"), text).map(|_| ()).map_err(|error| error.to_string());
            match expect {
                None => assert_eq!(outcome, Ok(()), "{text}"),
                Some(part) => assert!(outcome.clone().unwrap_err().contains(part), "{text}: {outcome:?}"),
            }
        }
    }
}
