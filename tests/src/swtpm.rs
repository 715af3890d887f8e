//! Software TPMs for tests and the demo: real TPM 2.0 commands, real EK certificates, a CA of one's own.
//!
//! A swtpm is manufactured by swtpm_setup (RSA-2048 and ECC P-384 EK certificates, sha256 bank) and served on loopback by one
//! child process, which dies with its [`Swtpm`]. Its keys are as strong as the files they lie in: class `simulated`, nothing else.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a swtpm may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Free ports can be taken by others between finding and using them.
const PORT_TRIES: u32 = 8;

static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// Whether swtpm is installed; if not, prints the skip with its number.
pub fn available(what: &str) -> bool {
    let found = |program: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    if found("swtpm") && found("swtpm_setup") {
        return true;
    }
    let number = SKIPPED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    println!("skipped ({number}): {what}: swtpm is not installed (apt-get install swtpm swtpm-tools)");
    false
}

/// A CA that certifies the EKs of software TPMs. Made by the first TPM that it certifies.
#[derive(Debug, Clone)]
pub struct LocalCa {
    directory: PathBuf,
}

impl LocalCa {
    /// Keeps its keys and certificates in `directory`, nothing elsewhere.
    ///
    /// # Errors
    /// The system's.
    pub fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let at = |name: &str| directory.join(name).display().to_string();
        let localca = format!(
            "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
            directory.display(),
            at("signkey.pem"),
            at("issuercert.pem"),
            at("certserial")
        );
        let options = "--platform-manufacturer Hostmark\n--platform-version 1\n--platform-model test\n";
        let setup = format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n\
             active_pcr_banks = sha256\n",
            at("localca.conf"),
            at("localca.options")
        );
        std::fs::write(directory.join("localca.conf"), localca)?;
        std::fs::write(directory.join("localca.options"), options)?;
        std::fs::write(directory.join("setup.conf"), setup)?;
        Ok(Self { directory })
    }

    /// PEM files of the root and the issuing CA, once a TPM was made.
    #[must_use]
    pub fn certificates(&self) -> [PathBuf; 2] {
        [self.root(), self.directory.join("issuercert.pem")]
    }

    /// PEM file of the root, once a TPM was made.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join("swtpm-localca-rootca-cert.pem")
    }
}

/// A running software TPM.
#[derive(Debug)]
pub struct Swtpm {
    state: PathBuf,
    port: u16,
    control: u16,
    child: Child,
}

impl Swtpm {
    /// Makes a TPM whose state lives in `directory`, with EK certificates by `ca`, and starts it. A TPM that exists there already
    /// is started again.
    ///
    /// # Errors
    /// When a tool fails; its output is in the message.
    pub fn start(directory: &Path, ca: &LocalCa) -> io::Result<Self> {
        let state = manufacture(directory, ca)?;
        let mut last = io::Error::other("swtpm did not start");
        for _ in 0..PORT_TRIES {
            let (port, control) = free_ports()?;
            match serve(&state, port, control) {
                Ok(child) => return Ok(Self { state, port, control, child }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The TCTI string for `--tpm`.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The process id of the child.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Powers the TPM off and on again: PCRs start anew, resetCount rises, the address stays.
    ///
    /// # Errors
    /// When it does not start again.
    pub fn reset(&mut self) -> io::Result<()> {
        self.stop();
        self.child = serve(&self.state, self.port, self.control)?;
        Ok(())
    }

    /// Powers the TPM off. Only [`Swtpm::reset`] brings it back.
    pub fn stop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes a TPM with EK certificates by `ca` in `directory`, if none is there. Gives the absolute path that swtpm needs.
///
/// # Errors
/// What swtpm_setup says.
pub fn manufacture(directory: &Path, ca: &LocalCa) -> io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let state = directory.canonicalize()?;
    if !state.join("tpm2-00.permall").exists() {
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--create-platform-cert", "--pcr-banks", "sha256", "--overwrite"])
            .arg("--tpmstate")
            .arg(&state)
            .arg("--config")
            .arg(ca.directory.join("setup.conf"))
            .stdin(Stdio::null())
            .output()?;
        if !made.status.success() {
            let said = [made.stdout, made.stderr].concat();
            return Err(io::Error::other(format!("swtpm_setup: {}", String::from_utf8_lossy(&said))));
        }
    }
    Ok(state)
}

/// A free port whose successor is free too: tpm2-tools expect the control channel there.
fn free_ports() -> io::Result<(u16, u16)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        let Some(next) = port.checked_add(1) else { continue };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, next)) {
            Ok(_) => return Ok((port, next)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Starts the process and waits until it listens.
fn serve(state: &Path, port: u16, control: u16) -> io::Result<Child> {
    let log = std::fs::File::create(state.join("swtpm.log"))?;
    let mut child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port}"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={control}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(state.join("swtpm.log")).unwrap_or_default();
            return Err(io::Error::other(format!("swtpm ended with {status}: {said}")));
        }
        // The control port is opened last, and a connection there does not occupy the TPM's only client slot.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, control)).is_ok() {
            return Ok(child);
        }
        if start.elapsed() > START_TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, "swtpm does not listen"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
