//! The verifier as a process: `verifier init`, `verifier serve` on a free port, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::client::Client;
use crate::operator::OperatorKey;
use crate::process::{Daemon, Finished, run, text_at};
use crate::programs::program;
use crate::wait::until;

/// How long a verifier may take to listen on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// What a test wants of its verifier beyond the defaults.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of verifier.toml. Top-level keys first, then tables.
    pub toml: String,
    /// Root certificates (PEM files) of TPM makers, each with the class it stands for.
    pub ek_roots: Vec<(String, PathBuf)>,
    /// Port to listen on; 0: a free one, chosen once and kept over restarts.
    pub port: u16,
}

/// A verifier with its state directory.
#[derive(Debug)]
pub struct Verifier {
    directory: PathBuf,
    config: PathBuf,
    process: Option<Daemon>,
    address: String,
    ca_pin: String,
    operator: OperatorKey,
    names: u32,
}

impl Verifier {
    /// Makes a verifier in `directory` and serves it.
    ///
    /// # Errors
    /// When one of its programs fails.
    pub fn start(directory: &Path, options: &Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let operator = OperatorKey::generate()?;
        let trust = directory.join("trust");
        for (class, file) in &options.ek_roots {
            let folder = trust.join("ek").join(class);
            std::fs::create_dir_all(&folder)?;
            let name = file.file_name().context("a root certificate is a file")?;
            std::fs::copy(file, folder.join(name)).with_context(|| file.display().to_string())?;
        }
        std::fs::create_dir_all(trust.join("signers"))?;
        std::fs::write(trust.join("signers/operator.pem"), operator.public_pem())?;
        let mut this = Self {
            config: directory.join("verifier.toml"),
            directory,
            process: None,
            address: format!("127.0.0.1:{}", options.port),
            ca_pin: String::new(),
            operator,
            names: 0,
        };
        this.configure(&options.toml)?;
        let made = this.command("init")?.args(["--output", "json"]).output()?;
        if !made.status.success() {
            bail!("verifier init: {}", String::from_utf8_lossy(&made.stderr));
        }
        let made: serde_json::Value = serde_json::from_slice(&made.stdout)?;
        this.ca_pin = text_at(&made, "/ca_pin")?;
        this.serve()?;
        // Later starts take the same port, so that hosts find it again.
        this.configure(&options.toml)?;
        Ok(this)
    }

    fn configure(&self, more: &str) -> anyhow::Result<()> {
        let text = format!(
            "listen = \"{}\"\nstate_dir = \"{}\"\ntrust_dir = \"{}\"\naddress_file = \"{}\"\n{more}\n",
            self.address,
            self.state_dir().display(),
            self.directory.join("trust").display(),
            self.address_file().display(),
        );
        Ok(std::fs::write(&self.config, text)?)
    }

    fn address_file(&self) -> PathBuf {
        self.directory.join("address")
    }

    fn command(&self, subcommand: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program("verifier")?);
        command.arg(subcommand).arg("--config").arg(&self.config);
        Ok(command)
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let file = self.address_file();
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut process = Daemon::start("verifier", &mut self.command("serve")?, &self.directory.join("verifier.log"))?;
        let listening = until("the verifier listens", START, || {
            process.must_run()?;
            Ok(std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')))
        });
        self.address = listening?.0.trim().to_owned();
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate()?;
            if !status.success() {
                bail!("the verifier ended with {status} after SIGTERM:\n{}", process.log());
            }
        }
        Ok(())
    }

    /// Serves again after [`Verifier::kill`] or [`Verifier::stop`], on the same port.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = None;
        self.serve()
    }

    /// A second process on the same state, with a port of its own.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn replica(&self) -> anyhow::Result<Replica> {
        let directory = self.directory.join("replica");
        std::fs::create_dir_all(&directory)?;
        let (config, file) = (directory.join("verifier.toml"), directory.join("address"));
        let text = std::fs::read_to_string(&self.config)?
            .replace(&self.address, "127.0.0.1:0")
            .replace(&self.address_file().display().to_string(), &file.display().to_string());
        std::fs::write(&config, text)?;
        let mut command = Command::new(program("verifier")?);
        command.arg("serve").arg("--config").arg(&config);
        let mut process = Daemon::start("second verifier", &mut command, &directory.join("verifier.log"))?;
        let (address, _) = until("the second verifier listens", START, || {
            process.must_run()?;
            Ok(std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')))
        })?;
        Ok(Replica { process, url: format!("https://{}", address.trim()) })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// SHA-256 of the CA certificate in hex.
    #[must_use]
    pub fn ca_pin(&self) -> &str {
        &self.ca_pin
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.state_dir().join("ca.pem")
    }

    /// Keys, database, audit head.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The first admin's certificate and key, PEM.
    #[must_use]
    pub fn admin(&self) -> (PathBuf, PathBuf) {
        (self.state_dir().join("admin.pem"), self.state_dir().join("admin.key"))
    }

    /// The key whose signatures the verifier accepts on references, policies and tags.
    #[must_use]
    pub const fn operator(&self) -> &OperatorKey {
        &self.operator
    }

    /// The first admin's client.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let (certificate, key) = self.admin();
        Client::from_files(&self.url(), &self.ca(), &certificate, &key)
    }

    /// A client without a certificate.
    ///
    /// # Errors
    /// When the CA cannot be used.
    pub fn stranger(&self) -> anyhow::Result<Client> {
        Client::new(&self.url(), &std::fs::read_to_string(self.ca())?, None)
    }

    /// A client of a new operator with this role.
    ///
    /// # Errors
    /// When the verifier refuses to add it.
    pub fn client_as(&mut self, role: &str) -> anyhow::Result<Client> {
        self.names = self.names.saturating_add(1);
        let name = format!("{role}-{}", self.names);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
        let body = serde_json::json!({ "name": name, "role": role, "csr": csr });
        let added: serde_json::Value = self.client()?.post("/v1/operators", &body)?.read()?;
        let certificate = text_at(&added, "/certificate")?;
        let key = key.serialize_pem();
        let credentials = crate::client::Credentials { certificate: &certificate, key: &key };
        Client::new(&self.url(), &std::fs::read_to_string(self.ca())?, Some(credentials))
    }

    /// Runs `hostmark` as the first admin.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn hostmark(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        run(self.hostmark_command()?.args(arguments))
    }

    /// `hostmark` with the address and the first admin's certificate in its environment.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn hostmark_command(&self) -> anyhow::Result<Command> {
        let (certificate, key) = self.admin();
        let mut command = Command::new(program("hostmark")?);
        command
            .env("HOSTMARK_VERIFIER", self.url())
            .env("HOSTMARK_CA", self.ca())
            .env("HOSTMARK_CERT", certificate)
            .env("HOSTMARK_CERT_KEY", key);
        Ok(command)
    }

    /// Everything the verifier wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("verifier.log")).unwrap_or_default()
    }

    /// The process, while one runs.
    #[must_use]
    pub const fn process(&self) -> Option<&Daemon> {
        self.process.as_ref()
    }
}

/// A second process on a verifier's state.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub process: Daemon,
    /// Its address.
    pub url: String,
}
