//! The TPM, as hostd uses it.
//!
//! [`Tpm`] is a handle to one thread that owns the connection: commands of one TPM never interleave, and every caller, async or
//! not, waits for its own answer. Everything returned is what the TPM marshalled, unchanged: `hostmark-attest` parses it, here
//! and at the verifier, by the same code.
//!
//! The commands are written and read by this module and not by tss-esapi: that wrapper has neither TPM2_NV_Certify nor
//! TPM2_ReadClock, gives attestations back parsed and marshalled again, and brings C libraries that are loaded at run time into
//! the process whose word the verifier has to weigh. What hostd needs are twenty-one commands.
//!
//! It establishes nothing about the TPM being genuine; that is the verifier's part.

mod command;
mod device;
mod keys;
mod nv;
mod ops;
mod rc;
mod template;
mod transport;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use hostmark_attest::bytes::ParseError;
use hostmark_attest::digest::HashAlg;
use zeroize::Zeroizing;

use self::device::Device;
pub use self::keys::{Ek, Identity, forget_keys};
pub use self::nv::{MAX_TAG, NvPublic, TAG_INDEX};
pub use self::ops::{Activated, Facts, Quoted, TimeInfo};
pub use self::rc::ResponseCode;
pub use self::template::EkKind;
pub use self::transport::{Tcti, UnknownTcti};

/// Why the TPM did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// No connection, or it broke. The command may or may not have been executed.
    #[error("no answer from the TPM at {tcti}: {source}")]
    Unreachable {
        /// Where it was expected.
        tcti: Tcti,
        /// The system's reason.
        source: io::Error,
    },
    /// The TPM refused a command.
    #[error("{command}: {code}")]
    Response {
        /// The command's name in the specification.
        command: &'static str,
        /// The response code.
        code: ResponseCode,
    },
    /// The TPM's response is no response to this command.
    #[error("{command}: the response is malformed {source}")]
    Malformed {
        /// The command's name in the specification.
        command: &'static str,
        /// Where and why.
        source: ParseError,
    },
    /// There is no EK certificate of the kind asked for (None: of any kind).
    #[error("the TPM holds no EK certificate{}; a verifier can only class it `unverified`", kind.map(|kind| format!(" for {kind}")).unwrap_or_default())]
    NoEkCertificate {
        /// The kind asked for.
        kind: Option<EkKind>,
    },
    /// The EK made from the profile's template is not the certified one.
    #[error(
        "the {kind} EK made from the TCG template is not the one in the TPM's certificate; choose another kind with `ek` in hostd.toml"
    )]
    EkMismatch {
        /// Its kind.
        kind: EkKind,
    },
    /// A quote or a read asks for a PCR bank that is not active.
    #[error(
        "PCR bank {bank} is not active in this TPM; activate it in the firmware's settings, or change the policy's `pcrs`"
    )]
    InactiveBank {
        /// The bank.
        bank: HashAlg,
    },
    /// PCRs kept changing between reading and quoting.
    #[error("the PCRs changed between reading and quoting, {tries} times in a row; try again when the host is calmer")]
    PcrsMoving {
        /// How often it was tried.
        tries: u32,
    },
    /// An operation that needs the AK and the TLS key came before they were opened.
    #[error("the host has no keys yet; run `hostd provision`")]
    NoKeys,
    /// The key file cannot be read or written.
    #[error("{}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// An asset tag above what one certification covers.
    #[error("the asset tag has {size} bytes, this TPM certifies at most {limit}")]
    TagTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The thread that owns the TPM has ended.
    #[error("the TPM's thread has ended; restart hostd")]
    Ended,
}

impl TpmError {
    /// The response code, when the TPM gave one.
    #[must_use]
    pub const fn response_code(&self) -> Option<ResponseCode> {
        match self {
            Self::Response { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Authorizations of the hierarchies. Empty unless somebody set them.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// TPM_RH_OWNER: needed for the SRK and to write the asset tag.
    pub owner: Zeroizing<Vec<u8>>,
    /// TPM_RH_ENDORSEMENT: needed for the EK.
    pub endorsement: Zeroizing<Vec<u8>>,
}

type Job = Box<dyn FnOnce(&mut Device) + Send>;

/// A handle to the TPM; clones share it. Calls block until the TPM has answered.
#[derive(Debug, Clone)]
pub struct Tpm {
    jobs: mpsc::Sender<Job>,
}

impl Tpm {
    /// Connects to the TPM and starts the thread that owns it. The thread ends with the last handle.
    ///
    /// # Errors
    /// [`TpmError::Unreachable`], or what the TPM says to its first commands.
    pub fn open(tcti: &Tcti, auth: Auth) -> Result<Self, TpmError> {
        let mut device = Device::open(tcti.clone(), auth)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let serve = move || {
            while let Ok(job) = queue.recv() {
                job(&mut device);
            }
        };
        std::thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(serve)
            .map_err(|source| TpmError::Unreachable { tcti: tcti.clone(), source })?;
        Ok(Self { jobs })
    }

    /// Runs one operation on the TPM's thread and waits for its result.
    fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Device) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job = move |device: &mut Device| {
            // The caller may have gone; its result is of no use to anybody else.
            let _ = reply.send(operation(device));
        };
        self.jobs.send(Box::new(job)).map_err(|_| TpmError::Ended)?;
        answer.recv().map_err(|_| TpmError::Ended)?
    }
}
