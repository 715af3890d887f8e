//! One connection to a TPM: retries, sessions, loaded keys, and what must be flushed.
//!
//! A TPM has as few as three slots for loaded objects. The AK and the TLS key stay loaded (a quote then costs one command); the
//! third slot serves whatever primary key is needed for a moment, and is flushed at once.

use std::time::Duration;

use hostmark_attest::bytes::{ParseError, Reader};

use super::command::{
    Command, FLUSH_CONTEXT, GET_CAPABILITY, POLICY_OR, POLICY_SECRET, RH_ENDORSEMENT, RH_NULL, Response,
    START_AUTH_SESSION, parse_response,
};
use super::keys::StoredKeys;
use super::template::{EkKind, POLICY_A_SHA384, POLICY_C_SHA384};
use super::transport::{Link, Tcti};
use super::{Auth, TpmError};

/// How often a command is sent when the TPM says "again", and the pause between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// TPM_CAP_HANDLES.
const CAP_HANDLES: u32 = 1;
/// Handle ranges of what a client before us may have left loaded: objects, HMAC sessions, policy sessions.
const LEFT_LOADED: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];
/// TPM_SE_POLICY.
const SE_POLICY: u8 = 1;
const ALG_NULL: u16 = 0x0010;
/// Most handles that one capability response lists.
const MAX_HANDLES: u32 = 254;

/// Handles of the two keys that stay loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub(super) ak: u32,
    pub(super) tls: u32,
}

/// The TPM's owner: lives on its thread.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) tcti: Tcti,
    link: Option<Link>,
    pub(super) auth: Auth,
    pub(super) stored: Option<StoredKeys>,
    pub(super) loaded: Option<Loaded>,
    pub(super) nv_chunk: Option<u16>,
}

impl Device {
    pub(super) fn open(tcti: Tcti, auth: Auth) -> Result<Self, TpmError> {
        let mut device = Self { tcti, link: None, auth, stored: None, loaded: None, nv_chunk: None };
        device.handles(LEFT_LOADED[0])?;
        Ok(device)
    }

    /// Sends a command, again while the TPM asks for that.
    ///
    /// After a broken connection the next command connects anew; this one is not repeated, as it may have been executed.
    pub(super) fn run(&mut self, command: &Command) -> Result<Response, TpmError> {
        if self.link.is_none() {
            self.link = Some(self.tcti.connect().map_err(|source| self.unreachable(source))?);
            self.loaded = None;
            if self.tcti.keeps_objects_of_others() {
                self.flush_what_others_left()?;
            }
        }
        let bytes = command.encode();
        let mut tries = 0u32;
        loop {
            let Some(link) = self.link.as_mut() else {
                return Err(self.unreachable(std::io::ErrorKind::NotConnected.into()));
            };
            let response = match link.exchange(&bytes) {
                Ok(response) => response,
                Err(source) => {
                    self.link = None;
                    self.loaded = None;
                    return Err(self.unreachable(source));
                }
            };
            tries = tries.saturating_add(1);
            match parse_response(command.code, &response) {
                Err(TpmError::Response { code, .. }) if code.again() && tries < TRIES => std::thread::sleep(PAUSE),
                outcome => return outcome,
            }
        }
    }

    /// Runs a command and parses its parameters.
    pub(super) fn ask<T>(
        &mut self,
        command: &Command,
        parse: impl FnOnce(&mut Reader<'_>) -> Result<T, ParseError>,
    ) -> Result<T, TpmError> {
        let response = self.run(command)?;
        parse(&mut Reader::new(&response.params))
            .map_err(|source| TpmError::Malformed { command: command.code.0, source })
    }

    fn unreachable(&self, source: std::io::Error) -> TpmError {
        TpmError::Unreachable { tcti: self.tcti.clone(), source }
    }

    /// The handles of a range that exist now.
    pub(super) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let command = Command::new(GET_CAPABILITY).u32(CAP_HANDLES).u32(first).u32(MAX_HANDLES);
        self.ask(&command, |reader| {
            reader.u8("moreData")?;
            reader.be32("capability")?;
            let count = reader.be32("handle count")?.min(MAX_HANDLES);
            (0..count).map(|_| reader.be32("handle")).collect()
        })
    }

    fn flush_what_others_left(&mut self) -> Result<(), TpmError> {
        for range in LEFT_LOADED {
            for handle in self.handles(range)? {
                self.flush(handle);
            }
        }
        Ok(())
    }

    /// Flushes an object or a session. A failure only costs a slot until the connection ends.
    pub(super) fn flush(&mut self, handle: u32) {
        if let Err(error) = self.run(&Command::new(FLUSH_CONTEXT).u32(handle)) {
            tracing::debug!(%error, handle, "could not flush");
        }
    }

    /// Runs `work` with a loaded object and flushes it whatever happens.
    pub(super) fn with_object<T>(
        &mut self,
        handle: u32,
        work: impl FnOnce(&mut Self, u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let outcome = work(self, handle);
        self.flush(handle);
        outcome
    }

    /// Runs `work` with a policy session that satisfies the EK's policy. The command in `work` must use it up.
    pub(super) fn with_ek_session<T>(
        &mut self,
        kind: EkKind,
        work: impl FnOnce(&mut Self, u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let start = Command::new(START_AUTH_SESSION)
            .handle(RH_NULL)
            .handle(RH_NULL)
            .tpm2b(&[0; 16]) // nonceCaller: no HMAC is computed in this session
            .tpm2b(&[])
            .u8(SE_POLICY)
            .u16(ALG_NULL)
            .u16(kind.name_alg());
        let session = self.run(&start)?.handle;
        let outcome = self.satisfy_ek_policy(kind, session).and_then(|()| work(self, session));
        if outcome.is_err() {
            self.flush(session);
        }
        outcome
    }

    fn satisfy_ek_policy(&mut self, kind: EkKind, session: u32) -> Result<(), TpmError> {
        let secret = Command::new(POLICY_SECRET)
            .handle_with_password(RH_ENDORSEMENT, &self.auth.endorsement)
            .handle(session)
            .tpm2b(&[])
            .tpm2b(&[])
            .tpm2b(&[])
            .u32(0);
        self.run(&secret)?;
        if kind == EkKind::EccP384 {
            let branch = |digits: &str| hex::decode(digits).unwrap_or_default();
            let either = Command::new(POLICY_OR)
                .handle(session)
                .u32(2)
                .tpm2b(&branch(POLICY_A_SHA384))
                .tpm2b(&branch(POLICY_C_SHA384));
            self.run(&either)?;
        }
        Ok(())
    }
}
