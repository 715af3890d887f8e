//! Which verifier, and as whom: options, then environment, then a file.
//!
//! `client.toml` has the keys `verifier`, `ca` or `ca_pin`, `cert`, `key`; paths in it are relative to it. `verifier init` writes
//! one for its first admin.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::failure::Failure;
use super::input;

/// Options of every command that asks a verifier.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Connection {
    /// The verifier, https://HOST:PORT. Else HOSTMARK_VERIFIER, else the client file.
    #[arg(long, global = true, value_name = "URL", help_heading = "Verifier")]
    verifier: Option<String>,
    /// Its CA certificate, PEM. Else HOSTMARK_CA, else the client file.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "ca_pin", help_heading = "Verifier")]
    ca: Option<PathBuf>,
    /// SHA-256 of its CA certificate, as `verifier init` prints it. Else HOSTMARK_CA_PIN, else the client file.
    #[arg(long, global = true, value_name = "SHA256", help_heading = "Verifier")]
    ca_pin: Option<String>,
    /// Your certificate, PEM. Else HOSTMARK_CERT, else the client file.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Verifier")]
    cert: Option<PathBuf>,
    /// Your private key, PEM. Else HOSTMARK_KEY, else the client file, else the .key beside the certificate.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Verifier")]
    cert_key: Option<PathBuf>,
    /// The client file. Else HOSTMARK_CONFIG, else ~/.config/hostmark/client.toml.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Verifier")]
    config: Option<PathBuf>,
}

/// The client file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    verifier: Option<String>,
    ca: Option<PathBuf>,
    ca_pin: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// What vouches for the server.
#[derive(Debug)]
pub(super) enum Anchor {
    /// Its CA certificate.
    File(PathBuf),
    /// SHA-256 of its CA certificate.
    Pin([u8; 32]),
}

/// Everything that a connection needs.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) verifier: String,
    pub(super) anchor: Anchor,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// Where `verifier init` leaves its admin's client file on its own machine.
const LOCAL: &str = "/var/lib/hostmark/verifier/admin.toml";

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Connection {
    /// Puts options, environment and file together.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let (path, file) = self.file()?;
        let missing = |what: &str, option: &str, variable: &str| {
            Failure::unusable(format!(
                "no {what} is known: give {option}, set {variable}, or name a client file (`verifier init` writes one) with --config"
            ))
        };
        let verifier = self.verifier.clone().or_else(|| env("HOSTMARK_VERIFIER")).or(file.verifier);
        let verifier = verifier.ok_or_else(|| match &path {
            Some(path) => Failure::unusable(format!(
                "{} names no verifier: add verifier = \"https://HOST:PORT\" to it, with the port that `verifier serve` prints, or give --verifier URL",
                path.display()
            )),
            None => missing("verifier", "--verifier URL", "HOSTMARK_VERIFIER"),
        })?;
        // Whoever names one of the two means it: a file's CA never weakens an option's pin.
        let (ca, pin) = match (&self.ca, &self.ca_pin) {
            (None, None) => match (env("HOSTMARK_CA").map(PathBuf::from), env("HOSTMARK_CA_PIN")) {
                (None, None) => (file.ca, file.ca_pin),
                named => named,
            },
            (ca, pin) => (ca.clone(), pin.clone()),
        };
        let anchor = match (ca, pin) {
            (_, Some(pin)) => Anchor::Pin(parse_pin(&pin)?),
            (Some(path), None) => Anchor::File(path),
            (None, None) => return Err(missing("CA", "--ca FILE or --ca-pin SHA256", "HOSTMARK_CA")),
        };
        let named = self.cert.clone().or_else(|| env("HOSTMARK_CERT").map(PathBuf::from));
        let beside = named.as_ref().map(|cert| cert.with_extension("key"));
        let key = self.cert_key.clone().or_else(|| env("HOSTMARK_KEY").map(PathBuf::from));
        let cert = named.or(file.cert).ok_or_else(|| missing("client certificate", "--cert FILE", "HOSTMARK_CERT"))?;
        let key = key.or(beside).or(file.key).unwrap_or_else(|| cert.with_extension("key"));
        Ok(Target { verifier, anchor, cert, key })
    }

    /// The client file, if there is one, and where.
    fn file(&self) -> Result<(Option<PathBuf>, ClientFile), Failure> {
        let named = self.config.clone().or_else(|| env("HOSTMARK_CONFIG").map(PathBuf::from));
        let path = named.or_else(|| {
            let home = env("XDG_CONFIG_HOME").map(PathBuf::from);
            let home = home.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".config")));
            let usual = home.map(|home| home.join("hostmark/client.toml")).into_iter().chain([PathBuf::from(LOCAL)]);
            usual.into_iter().find(|path| path.is_file())
        });
        let file = path.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok((path, file))
    }
}

fn read(path: &Path) -> Result<ClientFile, Failure> {
    let text = input::read_text(path, "a client file", input::SMALL_MAX)?;
    let shown = path.display().to_string();
    let mut file: ClientFile =
        hostmark_attest::policy::parse_toml(&shown, &text).map_err(|error| Failure::policy(&shown, &error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for part in [&mut file.ca, &mut file.cert, &mut file.key].into_iter().flatten() {
        *part = folder.join(&part);
    }
    Ok(file)
}

fn parse_pin(text: &str) -> Result<[u8; 32], Failure> {
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::unusable(format!("`{text}` is no pin: 64 hex digits, as `verifier init` prints them")))
}
