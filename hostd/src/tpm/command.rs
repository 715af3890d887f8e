//! TPM 2.0 commands and responses as bytes.
//!
//! TPM 2.0 Library Part 1 §18 (headers, authorization areas) and Part 3 (command codes). Authorizations are passwords or policy
//! sessions without session key; there are no HMAC sessions and no parameter encryption: they protect against a bus interposer
//! only, who is out of scope. Responses are parsed by the same bounded reader as evidence.

use hostmark_attest::bytes::{ParseError, Problem, Reader};

use super::{TpmError, rc};

/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS (Part 2, 6.9).
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_RS_PW: a password authorization (Part 2, 7.4).
const RS_PW: u32 = 0x4000_0009;

/// TPM_RH_OWNER.
pub(super) const RH_OWNER: u32 = 0x4000_0001;
/// TPM_RH_NULL.
pub(super) const RH_NULL: u32 = 0x4000_0007;
/// TPM_RH_ENDORSEMENT.
pub(super) const RH_ENDORSEMENT: u32 = 0x4000_000B;

/// The commands hostd uses: name, TPM_CC, whether the response starts with a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) &'static str, u32, bool);

pub(super) const NV_UNDEFINE_SPACE: Code = Code("TPM2_NV_UndefineSpace", 0x122, false);
pub(super) const NV_DEFINE_SPACE: Code = Code("TPM2_NV_DefineSpace", 0x12A, false);
pub(super) const CREATE_PRIMARY: Code = Code("TPM2_CreatePrimary", 0x131, true);
pub(super) const NV_WRITE: Code = Code("TPM2_NV_Write", 0x137, false);
pub(super) const ACTIVATE_CREDENTIAL: Code = Code("TPM2_ActivateCredential", 0x147, false);
pub(super) const CERTIFY: Code = Code("TPM2_Certify", 0x148, false);
pub(super) const NV_READ: Code = Code("TPM2_NV_Read", 0x14E, false);
pub(super) const POLICY_SECRET: Code = Code("TPM2_PolicySecret", 0x151, false);
pub(super) const CREATE: Code = Code("TPM2_Create", 0x153, false);
pub(super) const LOAD: Code = Code("TPM2_Load", 0x157, true);
pub(super) const QUOTE: Code = Code("TPM2_Quote", 0x158, false);
pub(super) const SIGN: Code = Code("TPM2_Sign", 0x15D, false);
pub(super) const FLUSH_CONTEXT: Code = Code("TPM2_FlushContext", 0x165, false);
pub(super) const NV_READ_PUBLIC: Code = Code("TPM2_NV_ReadPublic", 0x169, false);
pub(super) const POLICY_OR: Code = Code("TPM2_PolicyOR", 0x171, false);
pub(super) const START_AUTH_SESSION: Code = Code("TPM2_StartAuthSession", 0x176, true);
pub(super) const GET_CAPABILITY: Code = Code("TPM2_GetCapability", 0x17A, false);
pub(super) const PCR_READ: Code = Code("TPM2_PCR_Read", 0x17E, false);
pub(super) const READ_CLOCK: Code = Code("TPM2_ReadClock", 0x181, false);
pub(super) const PCR_EXTEND: Code = Code("TPM2_PCR_Extend", 0x182, false);
pub(super) const NV_CERTIFY: Code = Code("TPM2_NV_Certify", 0x184, false);

/// A command under construction: handles, one authorization per handle that needs one, parameters.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) code: Code,
    handles: Vec<u8>,
    auths: Vec<u8>,
    params: Vec<u8>,
}

impl Command {
    pub(super) const fn new(code: Code) -> Self {
        Self { code, handles: Vec::new(), auths: Vec::new(), params: Vec::new() }
    }

    /// A handle without authorization.
    pub(super) fn handle(mut self, handle: u32) -> Self {
        self.handles.extend(handle.to_be_bytes());
        self
    }

    /// A handle authorized by its password (often empty).
    pub(super) fn handle_with_password(self, handle: u32, password: &[u8]) -> Self {
        let mut with = self.handle(handle);
        with.auths.extend(RS_PW.to_be_bytes());
        with.auths.extend([0, 0, 0]); // nonceCaller, sessionAttributes
        with.auths.extend(size_prefixed(password));
        with
    }

    /// A handle authorized by a policy session, which ends with this command.
    pub(super) fn handle_with_policy(self, handle: u32, session: u32) -> Self {
        let mut with = self.handle(handle);
        with.auths.extend(session.to_be_bytes());
        with.auths.extend([0, 0, 0, 0, 0]); // nonceCaller, sessionAttributes, hmac
        with
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Bytes that are already in the TPM's form.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.params.extend(bytes);
        self
    }

    /// A TPM2B.
    pub(super) fn tpm2b(self, bytes: &[u8]) -> Self {
        self.bytes(&size_prefixed(bytes))
    }

    /// The command as the TPM reads it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let tag = if self.auths.is_empty() { NO_SESSIONS } else { SESSIONS };
        let mut body = self.handles.clone();
        if tag == SESSIONS {
            body.extend(u32::try_from(self.auths.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(&self.auths);
        }
        body.extend(&self.params);
        let size = u32::try_from(body.len().saturating_add(10)).unwrap_or(u32::MAX);
        let mut out = tag.to_be_bytes().to_vec();
        out.extend(size.to_be_bytes());
        out.extend(self.code.1.to_be_bytes());
        out.extend(body);
        out
    }
}

/// A TPM2B. A field above 65535 bytes gets a size that the TPM refuses.
pub(super) fn size_prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// What a successful command returned.
#[derive(Debug)]
pub(super) struct Response {
    /// The handle, for commands that return one; 0 otherwise.
    pub(super) handle: u32,
    /// The response parameters.
    pub(super) params: Vec<u8>,
}

/// Reads a response's header and frames. `Err` holds the response code of a failed command or a framing error.
pub(super) fn parse_response(code: Code, bytes: &[u8]) -> Result<Response, TpmError> {
    let malformed = |source| TpmError::Malformed { command: code.0, source };
    let mut reader = Reader::new(bytes);
    let (tag, response_code) = header(&mut reader).map_err(malformed)?;
    if response_code != 0 {
        return Err(TpmError::Response { command: code.0, code: rc::ResponseCode(response_code) });
    }
    frames(code, tag, &mut reader).map_err(malformed)
}

fn header(reader: &mut Reader<'_>) -> Result<(u16, u32), ParseError> {
    let whole = reader.left();
    let tag = reader.be16("response tag")?;
    let size = reader.be32("responseSize")?;
    if usize::try_from(size) != Ok(whole) {
        return Err(reader.error(Problem::Malformed { what: "responseSize is not the response's size" }));
    }
    Ok((tag, reader.be32("responseCode")?))
}

fn frames(code: Code, tag: u16, reader: &mut Reader<'_>) -> Result<Response, ParseError> {
    let handle = if code.2 { reader.be32("response handle")? } else { 0 };
    let params = if tag == SESSIONS {
        let size = reader.be32("parameterSize")?;
        reader.take(usize::try_from(size).unwrap_or(usize::MAX), "response parameters")?
    } else {
        reader.rest()
    };
    Ok(Response { handle, params: params.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_framed_as_part_1_says() {
        let plain = Command::new(GET_CAPABILITY).u32(6).u32(0x100).u32(1).encode();
        assert_eq!(hex::encode(plain), "8001000000160000017a000000060000010000000001");
        let authorized = Command::new(PCR_EXTEND).handle_with_password(13, b"").u32(0).encode();
        assert_eq!(hex::encode(authorized), "80020000001f000001820000000d0000000940000009000000000000000000");
    }

    #[test]
    fn a_response_is_checked_before_it_is_believed() {
        let rows: [(&str, &str); 4] = [
            ("8001000000", "needs 4 bytes"),
            ("80010000000b00000000", "responseSize is not"),
            ("80010000000a00000921", "TPM_RC_LOCKOUT"),
            ("80020000001200000000000000ff00000000", "response parameters needs 255"),
        ];
        for (bytes, expect) in rows {
            let error = parse_response(PCR_EXTEND, &hex::decode(bytes).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expect), "{bytes}: {error}");
        }
    }
}
