//! Between a process and what it speaks to: a relay for TPM commands, and one for the verifier's TCP, that can stop at a chosen step.
//!
//! A daemon that waits for an answer that never comes stands exactly at that step, and can be killed there. TPM commands are told
//! apart by their code (TPM 2.0 Library Part 2, 6.5); of the verifier's TLS nothing is seen but its direction.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;

use crate::wait::until;

/// Commands and responses of a software TPM are far smaller.
const FRAME: usize = 64 * 1024;
/// How often a held relay looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);
/// How long a process may take to get to a step, on a loaded machine.
const STEP: Duration = Duration::from_secs(30);

/// On which side of the TPM's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The TPM does not get the command.
    Before,
    /// The TPM has done its work, and nobody learns that.
    After,
}

/// A step: the `nth` command (from 1) of a TPM_CC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(pub u32, pub u32, pub Moment);

type Reached = Box<dyn FnOnce() -> bool + Send>;

struct Watched {
    step: Step,
    seen: u32,
    reached: Option<Reached>,
}

/// A relay to a software TPM.
pub struct Tap {
    port: u16,
    watched: Arc<Mutex<Option<Watched>>>,
    at: Arc<AtomicBool>,
}

impl Tap {
    /// Serves the TPM of this TCTI under another port.
    ///
    /// # Errors
    /// When the TCTI names no port, or none is free.
    pub fn start(tcti: &str) -> anyhow::Result<Self> {
        let Some(target) = tcti.rsplit_once("port=").and_then(|(_, port)| port.parse::<u16>().ok()) else {
            bail!("no port in {tcti}");
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let watched = Arc::new(Mutex::new(None));
        let at = Arc::new(AtomicBool::new(false));
        let (rule, flag) = (Arc::clone(&watched), Arc::clone(&at));
        // One client at a time, as the TPM itself.
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                // A broken connection is what the tests make.
                let _ =
                    TcpStream::connect((Ipv4Addr::LOCALHOST, target)).and_then(|tpm| relay(client, tpm, &rule, &flag));
            }
        });
        Ok(Self { port, watched, at })
    }

    /// The TCTI for `tpm` in hostd.toml.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Calls `reached` at a step; if it says true, the relay stops there, until the client is gone.
    pub fn at(&self, step: Step, reached: impl FnOnce() -> bool + Send + 'static) {
        self.at.store(false, Ordering::SeqCst);
        let watched = Watched { step, seen: 0, reached: Some(Box::new(reached)) };
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched);
    }

    /// Waits until the step is reached.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait(&self) -> anyhow::Result<()> {
        until("the step at the TPM", STEP, || Ok(self.at.load(Ordering::SeqCst).then_some(())))?;
        Ok(())
    }
}

fn relay(mut client: TcpStream, mut tpm: TcpStream, rule: &Mutex<Option<Watched>>, at: &AtomicBool) -> io::Result<()> {
    client.set_nodelay(true)?;
    tpm.set_nodelay(true)?;
    loop {
        let command = frame(&mut client)?;
        if stops(rule, at, &command, Moment::Before) {
            return gone(client);
        }
        tpm.write_all(&command)?;
        let response = frame(&mut tpm)?;
        if stops(rule, at, &command, Moment::After) {
            return gone(client);
        }
        client.write_all(&response)?;
    }
}

/// One command or response: tag, size, code.
fn frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    from.read_exact(&mut bytes)?;
    let size = usize::try_from(word(&bytes, 2)).unwrap_or(usize::MAX);
    if !(10..=FRAME).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.resize(size, 0);
    from.read_exact(bytes.get_mut(10..).unwrap_or_default())?;
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    four.map_or(0, |four| u32::from_be_bytes(*four))
}

fn stops(rule: &Mutex<Option<Watched>>, at: &AtomicBool, command: &[u8], moment: Moment) -> bool {
    let mut rule = rule.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(watched) = rule.as_mut() else { return false };
    let Step(code, nth, when) = watched.step;
    if word(command, 6) != code || moment != when {
        return false;
    }
    watched.seen = watched.seen.saturating_add(1);
    if watched.seen != nth {
        return false;
    }
    let stop = watched.reached.take().is_some_and(|reached| reached());
    at.store(true, Ordering::SeqCst);
    stop
}

/// Waits until the client hangs up.
fn gone(mut client: TcpStream) -> io::Result<()> {
    client.read(&mut [0; 1]).map(drop)
}

/// What a [`Gate`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Pass {
    /// Everything.
    All = 0,
    /// Nothing from the client.
    NoRequest = 1,
    /// Nothing to the client.
    NoAnswer = 2,
}

/// A relay to the verifier.
#[derive(Debug, Clone)]
pub struct Gate {
    port: u16,
    pass: Arc<AtomicU8>,
}

impl Gate {
    /// Serves `https://127.0.0.1:PORT` under another port.
    ///
    /// # Errors
    /// When the address names no port, or none is free.
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let Some(target) = url.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()) else {
            bail!("no port in {url}");
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate = Self { port: listener.local_addr()?.port(), pass: Arc::default() };
        let pass = Arc::clone(&gate.pass);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                for (from, to, held) in [(&client, &server, Pass::NoRequest), (&server, &client, Pass::NoAnswer)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let pass = Arc::clone(&pass);
                    std::thread::spawn(move || copy(from, to, &pass, held));
                }
            }
        });
        Ok(gate)
    }

    /// The verifier's address through this gate.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Lets this through from now on.
    pub fn set(&self, pass: Pass) {
        self.pass.store(pass as u8, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, pass: &AtomicU8, held: Pass) {
    let mut bytes = vec![0; FRAME];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let was_held = pass.load(Ordering::SeqCst) == held as u8;
        while pass.load(Ordering::SeqCst) == held as u8 {
            std::thread::sleep(LOOK);
        }
        // What was held belongs to a connection that is cut.
        if was_held || to.write_all(bytes.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
