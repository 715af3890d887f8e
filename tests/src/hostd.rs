//! hostd as a process: its configuration for a [`Machine`], `hostd provision`, `hostd run`, killed, frozen, started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::machine::Machine;
use crate::process::{Daemon, Finished, run, text_at};
use crate::programs::program;
use crate::verifier::Verifier;

/// A machine with a host daemon on it.
#[derive(Debug)]
pub struct Hostd {
    name: String,
    /// The machine.
    pub machine: Machine,
    verifier: String,
    ca_pin: String,
    process: Option<Daemon>,
    more: String,
}

impl Hostd {
    /// A host that knows its verifier and does not run yet.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn new(name: &str, machine: Machine, verifier: &Verifier) -> anyhow::Result<Self> {
        let (url, pin) = (verifier.url(), verifier.ca_pin().to_owned());
        let this =
            Self { name: name.to_owned(), machine, verifier: url, ca_pin: pin, process: None, more: String::new() };
        this.configure()?;
        Ok(this)
    }

    /// Adds lines to hostd.toml, after its tables.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn with(mut self, toml: &str) -> anyhow::Result<Self> {
        self.more = toml.to_owned();
        self.configure()?;
        Ok(self)
    }

    fn configure(&self) -> anyhow::Result<()> {
        let machine = &self.machine;
        let text = format!(
            "verifier = \"{}\"\nca_pin = \"{}\"\ntpm = \"{}\"\nstate_dir = \"{}\"\n\n[source]\nroot = \"{}\"\n\
             boot_log = \"{}\"\nima = \"{}\"\nuserspace_log = \"{}\"\nrun_dir = \"{}\"\nboot_id = \"{}\"\n{}\n",
            self.verifier,
            self.ca_pin,
            machine.tcti(),
            self.state_dir().display(),
            machine.engines().root().display(),
            machine.boot_log().display(),
            machine.ima().display(),
            machine.userspace_log().display(),
            machine.run_dir().display(),
            machine.boot_id(),
            self.more,
        );
        std::fs::write(self.config(), text).with_context(|| self.config().display().to_string())
    }

    /// hostd.toml.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.machine.directory().join("hostd.toml")
    }

    /// Keys, certificate, CA.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.machine.directory().join("state")
    }

    /// The host's name in this test.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `hostd SUBCOMMAND` with this host's configuration.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn command(&self, subcommand: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program("hostd")?);
        command.arg(subcommand).arg("--config").arg(self.config());
        Ok(command)
    }

    /// Runs a subcommand to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn hostd(&self, subcommand: &str, arguments: &[&str]) -> anyhow::Result<Finished> {
        run(self.command(subcommand)?.args(arguments))
    }

    /// `hostd provision`, with a join token or without.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn provision(&self, token: Option<&str>) -> anyhow::Result<Finished> {
        let mut command = self.command("provision")?;
        command.args(["--output", "json"]);
        if let Some(token) = token {
            let file = self.machine.directory().join("token");
            write_secret(&file, token)?;
            command.arg("--token-file").arg(file);
        }
        run(&mut command)
    }

    /// The host id, once provisioned.
    ///
    /// # Errors
    /// When it is not.
    pub fn id(&self) -> anyhow::Result<String> {
        let file = self.state_dir().join("host.json");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let host: serde_json::Value = serde_json::from_str(&text)?;
        text_at(&host, "/identity/host")
    }

    /// `hostd run` in the background.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn run(&mut self) -> anyhow::Result<()> {
        self.run_with(&[])
    }

    /// The same with more options.
    ///
    /// # Errors
    /// As [`Hostd::run`].
    pub fn run_with(&mut self, options: &[&str]) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = self.machine.directory().join("hostd.log");
        let mut command = self.command("run")?;
        command.args(options);
        self.process = Some(Daemon::start(&format!("hostd of {}", self.name), &mut command, &log)?);
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
                bail!("hostd of {} ended with {status} after SIGTERM:\n{}", self.name, process.log());
            }
        }
        Ok(())
    }

    /// The process, while one was started and not stopped.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&mut self) -> anyhow::Result<&mut Daemon> {
        self.process.as_mut().with_context(|| format!("hostd of {} does not run", self.name))
    }

    /// Power off and on: hostd is killed, the TPM reset, the boot log extended again. Does not start hostd.
    ///
    /// # Errors
    /// When the machine does not boot.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.machine.reboot()?;
        self.configure()
    }

    /// `hostd status --output json`.
    ///
    /// # Errors
    /// When hostd does not answer.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.hostd("status", &["--output", "json"])?.json()
    }

    /// Everything hostd wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.directory().join("hostd.log")).unwrap_or_default()
    }
}

/// Writes a file that its owner alone can read.
///
/// # Errors
/// The system's.
pub fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
