//! EK, AK and TLS key: found, created, kept, loaded.
//!
//! The private parts are wrapped by the TPM; the key file holds them as the TPM gave them out. The AK is a child of the EK, so
//! that its qualified name shows the EK (DESIGN, Identity and enrolment); the TLS key lives under an owner-hierarchy SRK.

use std::path::Path;

use hostmark_attest::bytes::{ParseError, Reader};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::B64;
use serde::{Deserialize, Serialize};

use super::command::{CREATE, CREATE_PRIMARY, Command, LOAD, RH_ENDORSEMENT, RH_OWNER, size_prefixed};
use super::device::{Device, Loaded};
use super::template::{self, EkKind};
use super::{Tpm, TpmError};
use crate::state;

/// The key file's name in the state directory.
const KEY_FILE: &str = "keys.json";
/// A key file holds four TPM structures; a larger file is not one.
const MAX_KEY_FILE: u64 = 64 * 1024;
/// TPM2B_PRIVATE and TPM2B_PUBLIC of the keys used here stay far below this.
const MAX_BLOB: u16 = 2048;

/// An EK with what certifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ek {
    /// Its kind.
    pub kind: EkKind,
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// DER of its certificate from NV.
    pub certificate: Option<Vec<u8>>,
    /// DER of intermediate CAs from NV (EK Credential Profile 2.2.1.5.2).
    pub intermediates: Vec<Vec<u8>>,
}

/// The keys of this host, public parts only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The EK under which the AK lives.
    pub ek: EkKind,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// TPMT_PUBLIC of the TLS key.
    pub tls_public: Vec<u8>,
}

/// A key as TPM2_Create returned it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Blob {
    /// TPMT_PUBLIC.
    public: B64,
    /// The wrapped private part (content of TPM2B_PRIVATE).
    private: B64,
}

/// The key file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKeys {
    ek: EkKind,
    ak: Blob,
    tls: Blob,
}

impl StoredKeys {
    fn identity(&self) -> Identity {
        Identity { ek: self.ek, ak_public: self.ak.public.0.clone(), tls_public: self.tls.public.0.clone() }
    }
}

impl Tpm {
    /// The EK of the kind asked for, or else the first kind that has a certificate.
    ///
    /// # Errors
    /// [`TpmError::NoEkCertificate`] when there is none of that kind; the verifier then has nothing to class the TPM by.
    pub fn ek(&self, kind: Option<EkKind>) -> Result<Ek, TpmError> {
        self.run(move |device| device.ek(kind))
    }

    /// Opens the keys kept in `directory`. They stay loaded.
    ///
    /// # Errors
    /// [`TpmError::NoKeys`] when there are none, [`TpmError::Response`] when they are another TPM's.
    pub fn open_keys(&self, directory: &Path) -> Result<Identity, TpmError> {
        let path = directory.join(KEY_FILE);
        self.run(move |device| {
            let stored = read_keys(&path)?.ok_or(TpmError::NoKeys)?;
            device.adopt(stored)
        })
    }

    /// Creates an AK under the EK of this kind and a TLS key, and keeps them in `directory`. Existing keys are opened instead.
    ///
    /// # Errors
    /// As [`Tpm::open_keys`]; [`TpmError::KeyFile`] when they cannot be kept.
    pub fn create_keys(&self, directory: &Path, kind: EkKind) -> Result<Identity, TpmError> {
        let path = directory.join(KEY_FILE);
        self.run(move |device| {
            if let Some(stored) = read_keys(&path)? {
                return device.adopt(stored);
            }
            let stored = device.make_keys(kind)?;
            write_keys(&path, &stored)?;
            device.adopt(stored)
        })
    }

    /// Creates a new TLS key beside the same AK and keeps it (renewal with a fresh key).
    ///
    /// # Errors
    /// As [`Tpm::create_keys`].
    pub fn replace_tls_key(&self, directory: &Path) -> Result<Identity, TpmError> {
        let path = directory.join(KEY_FILE);
        self.run(move |device| {
            let mut stored = read_keys(&path)?.ok_or(TpmError::NoKeys)?;
            // TPM2_Create takes a slot for itself beside its parent's.
            device.unload();
            stored.tls = device.make_tls_key()?;
            write_keys(&path, &stored)?;
            device.adopt(stored)
        })
    }
}

/// Forgets the keys kept in `directory`: without the file, nobody can load them again.
///
/// # Errors
/// When the file exists and cannot be removed.
pub fn forget_keys(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join(KEY_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Device {
    fn ek(&mut self, asked: Option<EkKind>) -> Result<Ek, TpmError> {
        let kinds = asked.map_or(EkKind::ALL.to_vec(), |kind| vec![kind]);
        for kind in kinds {
            let Some(certificate) = self.nv_certificate(kind.certificate_index())? else { continue };
            let public = self.with_ek(kind, |_, _, public| Ok(public.to_vec()))?;
            let key = Public::parse(&public)
                .map_err(|source| TpmError::Malformed { command: CREATE_PRIMARY.0, source })?
                .key()
                .key_bytes();
            // Only a hint for the operator, early: the verifier compares the keys themselves.
            if !certificate.windows(key.len()).any(|window| window == key) {
                return Err(TpmError::EkMismatch { kind });
            }
            let intermediates = self.nv_ek_chain()?;
            return Ok(Ek { kind, public, certificate: Some(certificate), intermediates });
        }
        Err(TpmError::NoEkCertificate { kind: asked })
    }

    /// Creates a primary key; the result is its handle and TPMT_PUBLIC.
    fn primary(&mut self, hierarchy: u32, password: &[u8], template: &[u8]) -> Result<(u32, Vec<u8>), TpmError> {
        let command = create_command(Command::new(CREATE_PRIMARY).handle_with_password(hierarchy, password), template);
        let response = self.run(&command)?;
        let public = Reader::new(&response.params)
            .tpm2b(MAX_BLOB, "outPublic")
            .map_err(|source| TpmError::Malformed { command: CREATE_PRIMARY.0, source })?;
        Ok((response.handle, public.to_vec()))
    }

    /// Runs `work` with the EK's handle and public area.
    pub(super) fn with_ek<T>(
        &mut self,
        kind: EkKind,
        work: impl FnOnce(&mut Self, u32, &[u8]) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let password = self.auth.endorsement.clone();
        let (handle, public) = self.primary(RH_ENDORSEMENT, &password, &kind.template())?;
        self.with_object(handle, |device, handle| work(device, handle, &public))
    }

    fn with_srk<T>(&mut self, work: impl FnOnce(&mut Self, u32) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let password = self.auth.owner.clone();
        let (handle, _) = self.primary(RH_OWNER, &password, &template::srk())?;
        self.with_object(handle, work)
    }

    fn make_keys(&mut self, ek: EkKind) -> Result<StoredKeys, TpmError> {
        self.unload();
        let ak = self.with_ek(ek, |device, parent, _| {
            device.with_ek_session(ek, |device, session| {
                device.create(Command::new(CREATE).handle_with_policy(parent, session), &template::ak())
            })
        })?;
        Ok(StoredKeys { ek, ak, tls: self.make_tls_key()? })
    }

    fn make_tls_key(&mut self) -> Result<Blob, TpmError> {
        self.with_srk(|device, parent| {
            device.create(Command::new(CREATE).handle_with_password(parent, &[]), &template::tls_key())
        })
    }

    fn create(&mut self, command: Command, template: &[u8]) -> Result<Blob, TpmError> {
        self.ask(&create_command(command, template), |reader| {
            let private = reader.tpm2b(MAX_BLOB, "outPrivate")?.to_vec();
            let public = reader.tpm2b(MAX_BLOB, "outPublic")?.to_vec();
            Ok(Blob { public: B64(public), private: B64(private) })
        })
    }

    /// Takes these keys as the host's and loads them.
    fn adopt(&mut self, stored: StoredKeys) -> Result<Identity, TpmError> {
        let identity = stored.identity();
        self.unload();
        self.stored = Some(stored);
        self.keys()?;
        Ok(identity)
    }

    fn unload(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            self.flush(loaded.ak);
            self.flush(loaded.tls);
        }
    }

    /// The loaded AK and TLS key; loads them if need be.
    pub(super) fn keys(&mut self) -> Result<Loaded, TpmError> {
        if let Some(loaded) = self.loaded {
            return Ok(loaded);
        }
        let stored = self.stored.clone().ok_or(TpmError::NoKeys)?;
        let ak = self.with_ek(stored.ek, |device, parent, _| {
            device.with_ek_session(stored.ek, |device, session| {
                device.load(Command::new(LOAD).handle_with_policy(parent, session), &stored.ak)
            })
        })?;
        let tls = self
            .with_srk(|device, parent| device.load(Command::new(LOAD).handle_with_password(parent, &[]), &stored.tls));
        match tls {
            Ok(tls) => Ok(*self.loaded.insert(Loaded { ak, tls })),
            Err(error) => {
                self.flush(ak);
                Err(error)
            }
        }
    }

    fn load(&mut self, command: Command, blob: &Blob) -> Result<u32, TpmError> {
        Ok(self.run(&command.tpm2b(&blob.private.0).tpm2b(&blob.public.0))?.handle)
    }

    /// Runs `work` with the loaded keys. If the TPM lost them (a reset, a sleep), loads them again, once.
    pub(super) fn with_keys<T>(
        &mut self,
        work: impl Fn(&mut Self, Loaded) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let loaded = self.keys()?;
        match work(self, loaded) {
            Err(TpmError::Response { code, .. }) if code.no_such_handle() => {
                self.loaded = None;
                let loaded = self.keys()?;
                work(self, loaded)
            }
            outcome => outcome,
        }
    }

    pub(super) fn ek_kind(&self) -> Result<EkKind, TpmError> {
        self.stored.as_ref().map(|stored| stored.ek).ok_or(TpmError::NoKeys)
    }
}

/// The parameters of TPM2_Create and TPM2_CreatePrimary: no authorization value, no data, this template.
fn create_command(command: Command, template: &[u8]) -> Command {
    let no_sensitive = [0u8; 4]; // userAuth and data, both empty
    command.tpm2b(&no_sensitive).bytes(&size_prefixed(template)).tpm2b(&[]).u32(0)
}

fn read_keys(path: &Path) -> Result<Option<StoredKeys>, TpmError> {
    let failed = |source| TpmError::KeyFile { path: path.to_path_buf(), source };
    let Some(bytes) = state::read(path, MAX_KEY_FILE).map_err(failed)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into()))
}

fn write_keys(path: &Path, stored: &StoredKeys) -> Result<(), TpmError> {
    let failed = |source| TpmError::KeyFile { path: path.to_path_buf(), source };
    let bytes = serde_json::to_vec_pretty(stored).map_err(|error| failed(error.into()))?;
    state::write(path, &bytes).map_err(failed)
}

/// Takes a TPM2B apart that must fill its input.
pub(super) fn whole_tpm2b(bytes: &[u8], what: &'static str) -> Result<(), ParseError> {
    let mut reader = Reader::new(bytes);
    reader.tpm2b(MAX_BLOB, what)?;
    reader.finish(what)
}
