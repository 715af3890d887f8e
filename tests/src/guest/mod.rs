//! A booted host: the image of `make image` in QEMU, with a TPM of its own and a root shell for the test.
//!
//! Everything that a host has is real here: firmware, kernel, systemd, engines, hostd. The guest reaches one verifier on this
//! machine's loopback and nothing else. What failed leaves its serial log and its evidence below `target/guest-failures`.

mod disk;
mod image;
mod qemu;
mod shell;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub use disk::Disk;
pub use image::{Image, Layout, Part};
pub use qemu::{VERIFIER_ADDRESS, VERIFIER_PORT};
pub use shell::Output;

use crate::programs::workspace;
use crate::swtpm::{LocalCa, manufacture};
use crate::wait::until;
use qemu::{Boot, Qemu};
use shell::Shell;

/// A boot takes about a minute on an idle machine, and ten on one that is crowded.
const BOOT: Duration = Duration::from_secs(900);
/// A script that does no work of its own.
const SCRIPT: Duration = Duration::from_secs(180);
/// From the request to the emulator's end.
const END: Duration = Duration::from_secs(240);
/// When a test has failed already, what is left to read must come soon.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Evidence of a guest, by the path it has there: kept when a test fails.
const EVIDENCE: [(&str, &str); 3] = [
    ("/sys/kernel/security/tpm0/binary_bios_measurements", "boot-log.bin"),
    ("/sys/kernel/security/ima/binary_runtime_measurements", "ima.bin"),
    ("/run/hostmark/host-log.jsonl", "host-log.jsonl"),
];

/// A guest, switched on or off.
#[derive(Debug)]
pub struct Guest {
    name: String,
    directory: PathBuf,
    /// Below `target/guest-failures`: emptied when the guest ends well.
    logs: PathBuf,
    image: Image,
    disk: Disk,
    secure_boot: bool,
    provision: Option<PathBuf>,
    verifier: Option<u16>,
    boots: u32,
    running: Option<(Qemu, Shell)>,
    started: Instant,
}

impl Guest {
    /// A new machine in `directory`, switched off: a copy of the image, its own firmware variables, its own TPM by `ca`.
    ///
    /// # Errors
    /// When there is no room, or a tool fails.
    pub fn new(name: &str, directory: &Path, image: &Image, ca: &LocalCa) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let disk = Disk::copy_of(image, &directory.join("disk.img"))?;
        manufacture(&directory.join("tpm"), ca)?;
        let logs = logs_of(name);
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&logs)?,
        }
        let mut this = Self {
            name: name.to_owned(),
            directory,
            logs,
            image: image.clone(),
            disk,
            secure_boot: false,
            provision: None,
            verifier: None,
            boots: 0,
            running: None,
            started: Instant::now(),
        };
        this.secure_boot(true)?;
        Ok(this)
    }

    /// Switches Secure Boot on (own keys, the signed kernel image) or off (the unsigned one). The guest must be off.
    ///
    /// # Errors
    /// When the image lacks a file.
    pub fn secure_boot(&mut self, on: bool) -> anyhow::Result<()> {
        self.must_be_off()?;
        self.secure_boot = on;
        let (vars, uki) = if on { ("vars.secure.fd", "uki.signed.efi") } else { ("vars.fd", "uki.efi") };
        let copy = self.vars();
        std::fs::copy(self.image.file(vars), &copy).with_context(|| vars.to_owned())?;
        let mut permissions = std::fs::metadata(&copy)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&copy, permissions)?;
        self.disk.install_uki(&self.image.file(uki))
    }

    /// What the first boot finds in fw_cfg, and the loopback port that the verifier's address leads to.
    ///
    /// # Errors
    /// The system's.
    pub fn provision_at(&mut self, port: u16, ca_pin: &str, token: &str) -> anyhow::Result<()> {
        self.must_be_off()?;
        let input = Zeroizing::new(format!(
            "verifier = \"https://{VERIFIER_ADDRESS}:{VERIFIER_PORT}\"\nca_pin = \"{ca_pin}\"\ntoken = \"{token}\"\n"
        ));
        let file = self.directory.join("provision.toml");
        std::fs::write(&file, input.as_bytes())?;
        self.provision = Some(file);
        self.verifier = Some(port);
        Ok(())
    }

    /// No provisioning input from now on, as on a machine that has been in service for long.
    pub fn forget_provisioning(&mut self) {
        self.provision = None;
    }

    /// The disk, to edit. The guest must be off.
    ///
    /// # Errors
    /// When it is not.
    pub fn disk(&self) -> anyhow::Result<&Disk> {
        self.must_be_off()?;
        Ok(&self.disk)
    }

    /// The image it was made from.
    #[must_use]
    pub const fn image(&self) -> &Image {
        &self.image
    }

    fn vars(&self) -> PathBuf {
        self.directory.join("vars.fd")
    }

    fn tpm(&self) -> PathBuf {
        self.directory.join("tpm")
    }

    fn must_be_off(&self) -> anyhow::Result<()> {
        if self.running.is_some() { bail!("{} is switched on", self.name) } else { Ok(()) }
    }

    fn serial_log(&self) -> PathBuf {
        self.logs.join(format!("serial-{}.log", self.boots))
    }

    /// Switches it on and waits for nothing.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.must_be_off()?;
        self.boots = self.boots.saturating_add(1);
        let qemu = Qemu::start(&Boot {
            directory: &self.directory,
            logs: &self.logs,
            disk: self.disk.path(),
            vars: &self.vars(),
            tpm: &self.tpm(),
            serial: &self.serial_log(),
            secure_boot: self.secure_boot,
            provision: self.provision.as_deref(),
            verifier: self.verifier,
        })?;
        self.started = Instant::now();
        let shell = Shell::connect(qemu.shell())?;
        self.running = Some((qemu, shell));
        Ok(())
    }

    /// Switches it on and waits for its shell. Gives the time that took.
    ///
    /// # Errors
    /// When the shell does not answer.
    pub fn boot(&mut self) -> anyhow::Result<Duration> {
        self.start()?;
        self.wait_shell()
    }

    /// Waits until the shell answers. Gives the time since power-on.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_shell(&mut self) -> anyhow::Result<Duration> {
        let since = self.started;
        self.sh_within("true", BOOT)?.good()?;
        Ok(since.elapsed())
    }

    /// When it was last switched on.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Runs a script as root.
    ///
    /// # Errors
    /// When it does not end within some minutes, or the guest is off.
    pub fn sh(&mut self, script: &str) -> anyhow::Result<Output> {
        self.sh_within(script, SCRIPT)
    }

    /// Runs a script as root, with a deadline.
    ///
    /// # Errors
    /// When it does not end within `within`, or the guest is off or ends.
    pub fn sh_within(&mut self, script: &str, within: Duration) -> anyhow::Result<Output> {
        let name = &self.name;
        let (qemu, shell) = self.running.as_mut().with_context(|| format!("{name} is switched off"))?;
        let output = shell.run(script, within);
        if output.is_err() {
            qemu.process().must_run()?;
        }
        output
    }

    /// A file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let text = self.sh(&format!("base64 -w0 {path}"))?.good()?;
        STANDARD.decode(text.trim()).with_context(|| path.to_owned())
    }

    /// Writes a file: its content changes in place, its mode stays.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let text = STANDARD.encode(content);
        self.sh(&format!("base64 -d >{path} <<'HOSTMARK'\n{text}\nHOSTMARK"))?.good().map(drop)
    }

    /// Plugs the network cable in, or pulls it.
    ///
    /// # Errors
    /// When the guest is off.
    pub fn link(&mut self, up: bool) -> anyhow::Result<()> {
        self.running.as_mut().context("the guest is switched off")?.0.link(up)
    }

    /// Shuts the system down and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        self.end("systemctl poweroff")
    }

    /// Shuts the system down and boots it again: the TPM loses its power in between. Gives the time from power-on to the shell.
    ///
    /// # Errors
    /// When it does not end or does not boot.
    pub fn reboot(&mut self) -> anyhow::Result<Duration> {
        self.end("systemctl reboot")?;
        self.boot()
    }

    fn end(&mut self, script: &str) -> anyhow::Result<()> {
        let (qemu, mut shell) = self.running.take().context("the guest is switched off")?;
        shell.send(script)?;
        let ended = qemu.ended(END);
        ended.with_context(|| format!("{script}; the console's end:\n{}", last_lines(&self.serial(), 40)))
    }

    /// Waits until the machine has ended by itself.
    ///
    /// # Errors
    /// When it has not within `within`.
    pub fn wait_end(&mut self, within: Duration) -> anyhow::Result<()> {
        let (qemu, _) = self.running.take().context("the guest is switched off")?;
        qemu.ended(within)
    }

    /// Cuts the power.
    pub fn kill(&mut self) {
        if let Some((qemu, _)) = self.running.take() {
            qemu.kill();
        }
    }

    /// Everything on this boot's serial console.
    #[must_use]
    pub fn serial(&self) -> String {
        std::fs::read(self.serial_log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits for a text on the serial console. Gives the time since power-on.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_serial(&mut self, text: &str, within: Duration) -> anyhow::Result<Duration> {
        let since = self.started;
        let seen =
            until(&format!("`{text}` on the console"), within, || Ok(self.serial().contains(text).then_some(())));
        seen.with_context(|| last_lines(&self.serial(), 40))?;
        Ok(since.elapsed())
    }

    /// Copies the TPM's state to `to`. The guest must be off.
    ///
    /// # Errors
    /// The system's.
    pub fn snapshot_tpm(&self, to: &Path) -> anyhow::Result<()> {
        self.must_be_off()?;
        copy_files(&self.tpm(), to)
    }

    /// Puts a copied TPM state back. The guest must be off.
    ///
    /// # Errors
    /// The system's.
    pub fn restore_tpm(&self, from: &Path) -> anyhow::Result<()> {
        self.must_be_off()?;
        copy_files(from, &self.tpm())
    }

    /// Keeps the evidence and the journal beside the console's log, below `target/guest-failures/<test>/<guest>`.
    ///
    /// # Errors
    /// When the guest says nothing any more.
    pub fn keep(&mut self) -> anyhow::Result<()> {
        if self.running.is_none() {
            return Ok(());
        }
        for (path, name) in EVIDENCE {
            let said = self.sh_within(&format!("base64 -w0 {path}"), LAST_WORDS)?;
            if said.status == 0 {
                std::fs::write(self.logs.join(name), STANDARD.decode(said.text.trim())?)?;
            }
        }
        let journal = self.sh_within("journalctl -b --no-pager -o short-monotonic | tail -n 1500", LAST_WORDS)?;
        Ok(std::fs::write(self.logs.join("journal.txt"), journal.text)?)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Err(error) = self.keep() {
                eprintln!("--- {}: not everything could be kept: {error:#}", self.name);
            }
            eprintln!("--- {}: console and evidence are in {}", self.name, self.logs.display());
            eprintln!("{}", last_lines(&self.serial(), 30));
            self.kill();
            return;
        }
        self.kill();
        // Nothing failed: nobody will read them.
        let _ = std::fs::remove_dir_all(&self.logs);
        for above in self.logs.ancestors().skip(1).take(2) {
            let _ = std::fs::remove_dir(above);
        }
    }
}

/// Where a test that is killed leaves its guest's console, too.
fn logs_of(guest: &str) -> PathBuf {
    let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
    workspace().join("target/guest-failures").join(test).join(guest)
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
