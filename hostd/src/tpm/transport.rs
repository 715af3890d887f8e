//! The way to a TPM: a character device or a software TPM's TCP port.
//!
//! TCG TSS 2.0 TPM Command Transmission Interface, in the names tpm2-tss uses: `device:/dev/tpmrm0`, `swtpm:host=…,port=…`.
//! Moves whole commands and responses as bytes and bounds them; it knows nothing of what they mean, and protects nothing on the
//! wire: a bus interposer is out of scope (DESIGN §3).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// No response of a PC Client TPM is larger (PTP: 4096 bytes); read in one call, as the kernel's driver wants it.
const MAX_RESPONSE: usize = 4096;
/// A software TPM makes an RSA key in a second or two. (A device has no limit here: the kernel's driver has its own.)
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A software TPM listens on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the TPM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tcti {
    /// A character device: `/dev/tpmrm0` (the kernel's resource manager).
    Device(PathBuf),
    /// A software TPM's command port.
    Swtpm {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// A TCTI string that names no transport hostd has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no TPM: write device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321")]
pub struct UnknownTcti(String);

impl FromStr for Tcti {
    type Err = UnknownTcti;

    fn from_str(text: &str) -> Result<Self, UnknownTcti> {
        let unknown = || UnknownTcti(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" if rest.is_empty() => Ok(Self::default()),
            "device" if rest.starts_with('/') => Ok(Self::Device(rest.into())),
            "swtpm" => {
                let (mut host, mut port) = ("127.0.0.1", 2321);
                for option in rest.split(',').filter(|option| !option.is_empty()) {
                    match option.split_once('=') {
                        Some(("host", value)) if !value.is_empty() => host = value,
                        Some(("port", value)) => port = value.parse().map_err(|_| unknown())?,
                        _ => return Err(unknown()),
                    }
                }
                Ok(Self::Swtpm { host: host.to_owned(), port })
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(out, "device:{}", path.display()),
            Self::Swtpm { host, port } => write!(out, "swtpm:host={host},port={port}"),
        }
    }
}

impl Default for Tcti {
    fn default() -> Self {
        Self::Device("/dev/tpmrm0".into())
    }
}

impl Tcti {
    /// Whether objects that an earlier client left loaded are still there (no resource manager in between).
    #[must_use]
    pub fn keeps_objects_of_others(&self) -> bool {
        match self {
            Self::Device(path) => !path.to_string_lossy().contains("tpmrm"),
            Self::Swtpm { .. } => true,
        }
    }

    /// Opens the way to the TPM.
    pub(super) fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Device(path) => Ok(Link::Device(OpenOptions::new().read(true).write(true).open(path)?)),
            Self::Swtpm { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
                            stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
                            return Ok(Link::Swtpm(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// An open way to the TPM. After an error its state is unknown: drop it and connect again.
#[derive(Debug)]
pub(super) enum Link {
    Device(File),
    Swtpm(TcpStream),
}

impl Link {
    /// Sends one command and takes its whole response.
    pub(super) fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut response = vec![0u8; MAX_RESPONSE];
        match self {
            Self::Device(device) => {
                device.write_all(command)?;
                let size = device.read(&mut response)?;
                response.truncate(size);
            }
            Self::Swtpm(stream) => {
                stream.write_all(command)?;
                let (head, body) = response.split_at_mut(10);
                stream.read_exact(head).map_err(say_why)?;
                let size = match head {
                    [_, _, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
                    _ => 0,
                };
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let rest = size.checked_sub(10).and_then(|rest| body.get_mut(..rest)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "the TPM's response size is impossible")
                })?;
                stream.read_exact(rest)?;
                response.truncate(size);
            }
        }
        Ok(response)
    }
}

fn say_why(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            "no response in time; a software TPM serves one client, and `hostd run` may be it",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcti_strings() {
        let rows = [
            ("device:/dev/tpmrm0", Some("device:/dev/tpmrm0")),
            ("device", Some("device:/dev/tpmrm0")),
            ("swtpm:host=127.0.0.1,port=4000", Some("swtpm:host=127.0.0.1,port=4000")),
            ("swtpm:port=4000", Some("swtpm:host=127.0.0.1,port=4000")),
            ("swtpm:port=400000", None),
            ("swtpm:path=/x", None),
            ("device:tpm0", None),
            ("mssim:host=1", None),
            ("", None),
        ];
        for (text, expect) in rows {
            let read = text.parse::<Tcti>().ok().map(|tcti| tcti.to_string());
            assert_eq!(read.as_deref(), expect, "{text}");
        }
        assert!(!Tcti::default().keeps_objects_of_others());
    }
}
