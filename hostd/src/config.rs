//! hostd.toml: where the verifier, the TPM and the measured things are.
//!
//! SURFACE, "Several hosts on one machine". Unknown keys are errors with line and column. Every source that is not the real
//! host's is named to the verifier with each round: only a TPM of class `simulated` may have such sources.

use std::path::{Path, PathBuf};

use hostmark_attest::cel::userspace::PCRS;
use hostmark_attest::policy::{PolicyError, parse_toml};
use serde::{Deserialize, Serialize};

use crate::tpm::{EkKind, Tcti};

/// Where hostd looks for its configuration.
pub const DEFAULT_PATH: &str = "/etc/hostmark/hostd.toml";
/// A configuration is a page of text.
const MAX_SIZE: u64 = 256 * 1024;

/// hostd.toml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The verifier's address, `https://…`.
    pub verifier: Option<String>,
    /// SHA-256 of the verifier's CA certificate in DER, 64 hex digits.
    pub ca_pin: Option<String>,
    /// The TPM: `device:/dev/tpmrm0` or `swtpm:host=…,port=…`.
    pub tpm: String,
    /// A file with the TPM's owner and endorsement authorizations, if they are set.
    pub tpm_auth_file: Option<PathBuf>,
    /// The EK to use; unset: the first kind with a certificate.
    pub ek: Option<EkKind>,
    /// What must survive a reboot: keys, certificate, CA. 0700.
    pub state_dir: PathBuf,
    /// The PCR that the host log extends: the one that the appraisal policy names.
    pub host_log_pcr: u8,
    /// Where evidence comes from.
    pub source: Source,
    /// What of the engines is measured (see `engines`).
    pub engines: crate::engines::EnginesConfig,
    /// How `hostd apply` restarts daemons that systemd does not run.
    pub apply: crate::apply::ApplyConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            verifier: None,
            ca_pin: None,
            tpm: Tcti::default().to_string(),
            tpm_auth_file: None,
            ek: None,
            state_dir: "/var/lib/hostmark/hostd".into(),
            host_log_pcr: 13,
            source: Source::default(),
            engines: crate::engines::EnginesConfig::default(),
            apply: crate::apply::ApplyConfig::default(),
        }
    }
}

/// `[source]`: set in tests and demos only, where several hosts share one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Directory that is measured as if it were `/`.
    pub root: PathBuf,
    /// The firmware's boot log (TCG2 event log).
    pub boot_log: PathBuf,
    /// IMA's binary list.
    pub ima: PathBuf,
    /// systemd's log of what it extends (systemd 255 and later write one).
    pub userspace_log: PathBuf,
    /// What lives until the next boot: the host log, the socket.
    pub run_dir: PathBuf,
    /// The status socket; default: `hostd.sock` in `run_dir`.
    pub socket: Option<PathBuf>,
    /// The boot id; unset: the kernel's.
    pub boot_id: Option<String>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            root: "/".into(),
            boot_log: "/sys/kernel/security/tpm0/binary_bios_measurements".into(),
            ima: "/sys/kernel/security/ima/binary_runtime_measurements".into(),
            userspace_log: "/run/log/systemd/tpm2-measure.log".into(),
            run_dir: "/run/hostmark".into(),
            socket: None,
            boot_id: None,
        }
    }
}

impl Source {
    /// The status socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_dir.join("hostd.sock"))
    }

    /// The kernel's boot id, or the one that stands for it.
    ///
    /// # Errors
    /// When the kernel's cannot be read.
    pub fn boot_id(&self) -> std::io::Result<String> {
        match &self.boot_id {
            Some(id) => Ok(id.clone()),
            None => Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()),
        }
    }
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is no valid configuration.
    #[error(transparent)]
    Invalid(#[from] PolicyError),
    /// A value that parses and makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// The key or option.
        key: &'static str,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

impl Config {
    /// Reads the file. Without `path`, [`DEFAULT_PATH`] if it exists, and the defaults if it does not.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let unreadable = |source| ConfigError::Unreadable { path: file.to_owned(), source };
        match crate::state::read(file, MAX_SIZE).map_err(unreadable)? {
            Some(bytes) => {
                let text = String::from_utf8(bytes)
                    .map_err(|error| unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
                Self::parse(&file.display().to_string(), &text)
            }
            None if path.is_none() => Ok(Self::default()),
            None => Err(unreadable(std::io::ErrorKind::NotFound.into())),
        }
    }

    /// Parses the text of a file called `file`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with line and column; [`ConfigError::Value`].
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = parse_toml(file, text)?;
        config.tcti()?;
        if let Some(pin) = &config.ca_pin {
            parse_pin("ca_pin", pin)?;
        }
        let pcr = config.host_log_pcr;
        if !(8..=15).contains(&pcr) || pcr == 10 || PCRS.contains(&pcr) {
            let problem = format!(
                "PCR {pcr} is the firmware's, IMA's, systemd's or resettable: choose one of 8, 9, 12, 13, 14; 13 unless it is taken"
            );
            return Err(ConfigError::Value { key: "host_log_pcr", problem });
        }
        if config.engines.root_is_default() {
            config.engines.root.clone_from(&config.source.root);
        }
        Ok(config)
    }

    /// The TPM's transport.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn tcti(&self) -> Result<Tcti, ConfigError> {
        self.tpm
            .parse()
            .map_err(|error: crate::tpm::UnknownTcti| ConfigError::Value { key: "tpm", problem: error.to_string() })
    }

    /// Names of the sources that are not the real host's, for the verifier to see.
    #[must_use]
    pub fn unusual_sources(&self) -> Vec<String> {
        let (here, usual) = (&self.source, Source::default());
        let rows = [
            ("root", here.root != usual.root || self.engines.root != usual.root),
            ("engines", self.engines.looks_elsewhere()),
            ("boot-log", here.boot_log != usual.boot_log),
            ("ima", here.ima != usual.ima),
            ("userspace-log", here.userspace_log != usual.userspace_log),
            ("run-dir", here.run_dir != usual.run_dir),
            ("socket", here.socket.is_some()),
            ("boot-id", here.boot_id.is_some()),
            ("tpm", self.tcti().ok() != Some(Tcti::default())),
        ];
        rows.into_iter().filter(|(_, unusual)| *unusual).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Reads a CA pin: 64 hex digits; `sha256:` before it and colons between bytes are tolerated, as other tools write them.
///
/// # Errors
/// [`ConfigError::Value`] that names `key`.
pub fn parse_pin(key: &'static str, text: &str) -> Result<[u8; 32], ConfigError> {
    let digits: String = text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
    hex::decode(&digits).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| ConfigError::Value {
        key,
        problem: "a pin is the SHA-256 of the verifier's CA certificate, 64 hex digits (`verifier init` prints it)"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let rows = [
            ("verifier = \"https://v\"\nca_pinn = \"x\"\n", "hostd.toml: line 2, column 1"),
            ("[source]\nboot_logs = \"x\"\n", "hostd.toml: line 2, column 1"),
            ("ek = \"ecc-p521\"\n", "hostd.toml: line 1, column 6"),
            ("tpm = \"usb\"\n", "tpm: `usb` is no TPM"),
            ("ca_pin = \"12\"\n", "64 hex digits"),
            ("host_log_pcr = 10\n", "host_log_pcr: PCR 10"),
            ("host_log_pcr = 11\n", "host_log_pcr: PCR 11"),
            ("host_log_pcr = 15\n", "host_log_pcr: PCR 15"),
        ];
        for (text, expect) in rows {
            let error = Config::parse("hostd.toml", text).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        }
        assert_eq!(Config::parse("hostd.toml", "").unwrap(), Config::default());
    }

    #[test]
    fn unusual_sources_are_told() {
        assert!(Config::default().unusual_sources().is_empty());
        let text = "tpm = \"swtpm:port=1\"\n[source]\nima = \"/tmp/ima\"\nuserspace_log = \"/tmp/log\"\nroot = \"/tmp/root\"\nboot_id = \"x\"\n";
        let config = Config::parse("hostd.toml", text).unwrap();
        assert_eq!(config.unusual_sources(), ["root", "ima", "userspace-log", "boot-id", "tpm"]);
        assert_eq!(config.engines.root, Path::new("/tmp/root"));
    }

    #[test]
    fn pins_are_read_as_other_tools_write_them() {
        let digits = "ab".repeat(32);
        assert_eq!(parse_pin("x", &digits).unwrap(), [0xAB; 32]);
        assert_eq!(parse_pin("x", &format!("sha256:{digits}")).unwrap(), [0xAB; 32]);
        assert!(parse_pin("x", &digits[1..]).is_err());
    }
}
