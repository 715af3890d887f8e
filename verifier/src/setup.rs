//! `verifier init`: state, keys, CA, first admin. And loading all of it for `verifier serve`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::auth::Role;
use crate::ca::{Ca, CaError};
use crate::clock::{Clock, Now};
use crate::config::{Config, ConfigError};
use crate::files::write_atomic;
use crate::keys::{KeyError, Keys};
use crate::names;
use crate::refusal::Refusal;
use crate::state::AppState;
use crate::store::{OpenError, Store};
use crate::trust::{Trust, TrustError, stamp};

/// Why a verifier cannot be set up or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Nobody ran `verifier init` for this state directory.
    #[error("{dir} holds no verifier: run `verifier init` with the same --config first, or mend state_dir")]
    Uninitialised {
        /// The state directory.
        dir: PathBuf,
    },
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The trust directory.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A command was refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SetupError {
    let path = path.to_path_buf();
    move |source| SetupError::Io { path, source }
}

/// What `verifier init` made.
#[derive(Debug, Clone)]
pub struct Made {
    /// SHA-256 of the CA certificate's DER: what hosts and operators pin.
    pub ca_pin: String,
    /// The CA certificate.
    pub ca_certificate: PathBuf,
    /// The first admin's certificate and chain, PEM.
    pub admin_certificate: PathBuf,
    /// The first admin's private key, PEM, mode 0600.
    pub admin_key: PathBuf,
    /// The first admin's client file, for `hostmark --config`.
    pub client_file: PathBuf,
    /// Where the client file cannot name it yet, because the port is chosen at the start: the verifier's URL, with PORT in it.
    pub unknown_port: Option<String>,
}

/// The host part of the verifier's URL.
fn url_name(config: &Config) -> String {
    let name = config.names.first().map_or("localhost", String::as_str);
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

/// A client file whose paths are relative to it. A port that is chosen at the start is not known yet.
fn client_file(config: &Config, admin: &str) -> String {
    let name = url_name(config);
    let verifier = match config.listen.port() {
        0 => format!("# verifier = \"https://{name}:PORT\"   (the port that `verifier serve` prints when it listens)"),
        port => format!("verifier = \"https://{name}:{port}\""),
    };
    format!("{verifier}\nca = \"ca.pem\"\ncert = \"{admin}.pem\"\nkey = \"{admin}.key\"\n")
}

/// Makes a new verifier in an empty state directory.
///
/// # Errors
/// [`SetupError`]; nothing that exists is overwritten.
pub fn init(state_dir: &Path, admin: &str, config: &Config) -> Result<Made, SetupError> {
    names::operator("admin", admin)?;
    let now = Clock::new().map_err(io(Path::new("/proc/sys/kernel/random/boot_id")))?.now();
    let keys = Keys::create(state_dir)?;
    let ca_pem = Ca::create(&keys.ca, &now)?;
    let ca_certificate = state_dir.join("ca.pem");
    write_atomic(&ca_certificate, 0o644, ca_pem.as_bytes()).map_err(io(&ca_certificate))?;
    let keys = Arc::new(keys);
    let ca = load_ca(state_dir)?;
    let store = Store::create(&state_dir.join("store.sqlite"), keys)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::from)?;
    let issued = ca.client(&key, Role::Admin, admin, config.operator_certificate.0, &now)?;
    let (admin_certificate, admin_key) =
        (state_dir.join(format!("{admin}.pem")), state_dir.join(format!("{admin}.key")));
    write_atomic(&admin_certificate, 0o600, issued.chain_pem.as_bytes()).map_err(io(&admin_certificate))?;
    let pem = Zeroizing::new(key.serialize_pem());
    write_atomic(&admin_key, 0o600, pem.as_bytes()).map_err(io(&admin_key))?;
    store.add_operator(&now, "verifier", &issued)?;
    let client = state_dir.join(format!("{admin}.toml"));
    write_atomic(&client, 0o644, client_file(config, admin).as_bytes()).map_err(io(&client))?;
    let unknown_port = (config.listen.port() == 0).then(|| format!("https://{}:PORT", url_name(config)));
    Ok(Made { ca_pin: ca.pin(), ca_certificate, admin_certificate, admin_key, client_file: client, unknown_port })
}

fn load_ca(state_dir: &Path) -> Result<Ca, SetupError> {
    // rcgen's issuer owns its key pair, so the CA key is read once more.
    let key = Keys::load(state_dir)?.ca;
    let path = state_dir.join("ca.pem");
    let pem = std::fs::read_to_string(&path).map_err(io(&path))?;
    Ok(Ca::load(&pem, key)?)
}

/// Loads a verifier from its state directory.
///
/// # Errors
/// [`SetupError`].
pub fn load(config: Config) -> Result<AppState, SetupError> {
    let clock = Clock::new().map_err(io(Path::new("/proc/sys/kernel/random/boot_id")))?;
    if !config.state_dir.join("keys").exists() && !config.database().exists() {
        return Err(SetupError::Uninitialised { dir: config.state_dir });
    }
    let keys = Arc::new(Keys::load(&config.state_dir)?);
    let ca = load_ca(&config.state_dir)?;
    let store = Arc::new(Store::open(&config.database(), Arc::clone(&keys))?);
    let stamp = stamp(&config.trust_dir);
    let trust = Trust::load(&config.trust_dir, &config.ek_quirks)?;
    Ok(AppState::new(config, store, keys, ca, clock, (trust, stamp)))
}

/// The time of one-shot commands.
///
/// # Errors
/// [`SetupError::Io`].
pub fn now() -> Result<Now, SetupError> {
    Ok(Clock::new().map_err(io(Path::new("/proc/sys/kernel/random/boot_id")))?.now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_chosen_later_is_told_instead_of_a_command_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        for (port, told) in [(8443, None), (0, Some("https://localhost:PORT".to_owned()))] {
            let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            let config = Config { listen, ..Config::default() };
            let made = init(&dir.path().join(port.to_string()), "admin", &config).unwrap();
            assert_eq!(made.unknown_port, told);
            let text = std::fs::read_to_string(made.client_file).unwrap();
            assert_eq!(text.lines().any(|line| line.starts_with("verifier = ")), port != 0, "{text}");
        }
    }

    #[test]
    fn a_directory_without_a_verifier_is_told_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let config = || Config { state_dir: dir.path().join("state"), ..Config::default() };
        let error = load(config()).unwrap_err().to_string();
        assert!(error.contains("verifier init") && error.contains("state"), "{error}");
        // A database without its keys is no empty directory: nothing invites to make new ones.
        std::fs::create_dir(config().state_dir).unwrap();
        std::fs::write(config().database(), b"").unwrap();
        assert!(matches!(load(config()), Err(SetupError::Key(_))));
    }
}
