//! NV: EK certificates to read, the asset tag to write, read and certify.
//!
//! TPM 2.0 Library Part 3 §31; TCG EK Credential Profile 2.5, 2.2.1. The tag's index is the owner's, so root can rewrite it: it is
//! the signature inside the tag that counts, and TPM2_NV_Certify shows only that the bytes are there now.

use hostmark_attest::evidence::TagEvidence;
pub use hostmark_attest::identity::nv::TAG_INDEX;
use hostmark_attest::identity::nv::{TAG_ATTRIBUTES, TAG_ATTRIBUTES_DEFINED};
use hostmark_attest::identity::tag::NV_MAX;
use hostmark_attest::wire::{B64, DOMAIN_TAG, Nonce, SignedAttest};

use super::command::{
    Command, GET_CAPABILITY, NV_CERTIFY, NV_DEFINE_SPACE, NV_READ, NV_READ_PUBLIC, NV_UNDEFINE_SPACE, NV_WRITE,
    RH_OWNER,
};
use super::device::Device;
use super::ops::{NO_SCHEME, signed_attest};
use super::template::ALG_SHA256;
use super::{Tpm, TpmError};

/// An asset tag is certified in one piece: what the verifier reads at most.
pub const MAX_TAG: usize = NV_MAX;

/// EK certificate chains (EK Credential Profile 2.2.1.5.2).
const EK_CHAIN: std::ops::RangeInclusive<u32> = 0x01C0_0100..=0x01C0_01FF;
const NV_FIRST: u32 = 0x0100_0000;
/// All certificates of a chain together.
const MAX_CHAIN: usize = 32 * 1024;
/// Certificates in a chain; a vendor's has two or three.
const MAX_INTERMEDIATES: usize = 8;

// TPMA_NV (Part 2, 13.4).
const AUTH_READ: u32 = 1 << 18;
const WRITTEN: u32 = 1 << 29;

/// TPM_CAP_TPM_PROPERTIES, TPM_PT_NV_BUFFER_MAX.
const CAP_PROPERTIES: u32 = 6;
const PT_NV_BUFFER_MAX: u32 = 0x12C;
/// What every TPM reads at once, if it does not say more.
const SMALL_CHUNK: u16 = 512;

/// TPMS_NV_PUBLIC, with the index's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// nvIndex.
    pub index: u32,
    /// attributes (TPMA_NV).
    pub attributes: u32,
    /// dataSize.
    pub size: u16,
    /// TPMS_NV_PUBLIC as the TPM marshalled it; the name is its digest.
    pub public: Vec<u8>,
    /// nvName.
    pub name: Vec<u8>,
}

impl NvPublic {
    const fn has(&self, attributes: u32) -> bool {
        self.attributes & attributes == attributes
    }
}

impl Tpm {
    /// The public area of an NV index, if it is defined.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn nv_public(&self, index: u32) -> Result<Option<NvPublic>, TpmError> {
        self.run(move |device| device.nv_public(index))
    }

    /// The content of an NV index, if it is defined and written.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn nv_read(&self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        self.run(move |device| device.nv_read(index))
    }

    /// Writes the asset tag, defining its index anew if it is absent or of another size. Needs the owner's authorization.
    ///
    /// # Errors
    /// [`TpmError::TagTooLarge`]; what the TPM says.
    pub fn write_tag(&self, tag: &[u8]) -> Result<(), TpmError> {
        let tag = tag.to_vec();
        self.run(move |device| device.write_tag(&tag))
    }

    /// The asset tag's bytes, if there is one.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn read_tag(&self) -> Result<Option<Vec<u8>>, TpmError> {
        self.nv_read(TAG_INDEX)
    }

    /// The asset tag with TPM2_NV_Certify by the AK over its whole content, bound to the nonce; None without a tag.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn tag_evidence(&self, nonce: &Nonce) -> Result<Option<TagEvidence>, TpmError> {
        let nonce = *nonce;
        self.run(move |device| {
            let Some(public) = device.nv_public(TAG_INDEX)? else { return Ok(None) };
            let Some(nv) = device.nv_read(TAG_INDEX)? else { return Ok(None) };
            let certification = device.certify_nv(&public, &nonce.bind(DOMAIN_TAG, &nv))?;
            Ok(Some(TagEvidence { nv, nv_public: public.public, certification }))
        })
    }

    /// Removes the asset tag. Needs the owner's authorization.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn remove_tag(&self) -> Result<(), TpmError> {
        self.run(Device::undefine_tag)
    }
}

impl Device {
    fn nv_public(&mut self, index: u32) -> Result<Option<NvPublic>, TpmError> {
        let read = self.ask(&Command::new(NV_READ_PUBLIC).handle(index), |reader| {
            let public = reader.tpm2b(512, "nvPublic")?.to_vec();
            let name = reader.tpm2b(66, "nvName")?.to_vec();
            let mut inner = hostmark_attest::bytes::Reader::new(&public);
            let index = inner.be32("nvIndex")?;
            inner.be16("nameAlg")?;
            let attributes = inner.be32("attributes")?;
            inner.tpm2b(64, "authPolicy")?;
            let size = inner.be16("dataSize")?;
            Ok(NvPublic { index, attributes, size, public, name })
        });
        match read {
            Ok(public) => Ok(Some(public)),
            Err(TpmError::Response { code, .. }) if code.no_such_handle() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Authorizes a command on an index by the index's own empty password, or else by the owner.
    fn nv_reader(&self, command: Command, public: &NvPublic) -> Command {
        if public.has(AUTH_READ) {
            command.handle_with_password(public.index, &[])
        } else {
            command.handle_with_password(RH_OWNER, &self.auth.owner)
        }
    }

    fn nv_read(&mut self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let Some(public) = self.nv_public(index)? else { return Ok(None) };
        if !public.has(WRITTEN) {
            return Ok(None);
        }
        let chunk = self.nv_chunk()?;
        let mut content = Vec::with_capacity(usize::from(public.size));
        let mut offset = 0u16;
        while offset < public.size {
            let size = chunk.min(public.size.saturating_sub(offset));
            let command = self.nv_reader(Command::new(NV_READ), &public).handle(index).u16(size).u16(offset);
            let data = self.ask(&command, |reader| Ok(reader.tpm2b(size, "data")?.to_vec()))?;
            if data.is_empty() {
                break;
            }
            offset = offset.saturating_add(u16::try_from(data.len()).unwrap_or(u16::MAX));
            content.extend(data);
        }
        Ok(Some(content))
    }

    fn nv_chunk(&mut self) -> Result<u16, TpmError> {
        if let Some(chunk) = self.nv_chunk {
            return Ok(chunk);
        }
        let asked = self.property(PT_NV_BUFFER_MAX)?;
        let chunk = asked.and_then(|size| u16::try_from(size).ok()).unwrap_or(SMALL_CHUNK).clamp(1, 2048);
        Ok(*self.nv_chunk.insert(chunk))
    }

    /// One fixed or variable property (TPM_PT), if the TPM has it.
    pub(super) fn property(&mut self, property: u32) -> Result<Option<u32>, TpmError> {
        let command = Command::new(GET_CAPABILITY).u32(CAP_PROPERTIES).u32(property).u32(1);
        self.ask(&command, |reader| {
            reader.u8("moreData")?;
            reader.be32("capability")?;
            if reader.be32("property count")? == 0 {
                return Ok(None);
            }
            let found = reader.be32("property")?;
            let value = reader.be32("value")?;
            Ok((found == property).then_some(value))
        })
    }

    /// A certificate in NV: vendors define larger indices than the DER they write.
    pub(super) fn nv_certificate(&mut self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let Some(content) = self.nv_read(index)? else { return Ok(None) };
        Ok(der_sequence(&content).map(<[u8]>::to_vec))
    }

    /// The intermediate CAs: one stream of DER certificates over consecutive indices.
    pub(super) fn nv_ek_chain(&mut self) -> Result<Vec<Vec<u8>>, TpmError> {
        let mut stream = Vec::new();
        for index in self.handles(*EK_CHAIN.start())?.into_iter().filter(|index| EK_CHAIN.contains(index)) {
            if let Some(content) = self.nv_read(index)?
                && stream.len().saturating_add(content.len()) <= MAX_CHAIN
            {
                stream.extend(content);
            }
        }
        let mut chain = Vec::new();
        let mut rest = stream.as_slice();
        while let Some(one) = der_sequence(rest)
            && chain.len() < MAX_INTERMEDIATES
        {
            chain.push(one.to_vec());
            rest = rest.get(one.len()..).unwrap_or_default();
        }
        Ok(chain)
    }

    fn write_tag(&mut self, tag: &[u8]) -> Result<(), TpmError> {
        let limit = usize::from(self.nv_chunk()?).min(MAX_TAG);
        let size = u16::try_from(tag.len()).ok().filter(|_| !tag.is_empty() && tag.len() <= limit);
        let Some(size) = size else { return Err(TpmError::TagTooLarge { size: tag.len(), limit }) };
        let fits = self
            .nv_public(TAG_INDEX)?
            .is_some_and(|public| public.size == size && (public.attributes | WRITTEN) == TAG_ATTRIBUTES);
        if !fits {
            self.undefine_tag()?;
            let mut public = TAG_INDEX.to_be_bytes().to_vec();
            public.extend(ALG_SHA256.to_be_bytes());
            public.extend(TAG_ATTRIBUTES_DEFINED.to_be_bytes());
            public.extend([0, 0]); // authPolicy
            public.extend(size.to_be_bytes());
            let define = Command::new(NV_DEFINE_SPACE)
                .handle_with_password(RH_OWNER, &self.auth.owner)
                .tpm2b(&[])
                .tpm2b(&public);
            self.run(&define)?;
        }
        let write =
            Command::new(NV_WRITE).handle_with_password(RH_OWNER, &self.auth.owner).handle(TAG_INDEX).tpm2b(tag).u16(0);
        self.run(&write).map(drop)
    }

    fn undefine_tag(&mut self) -> Result<(), TpmError> {
        if self.nv_public(TAG_INDEX)?.is_none() {
            return Ok(());
        }
        let undefine =
            Command::new(NV_UNDEFINE_SPACE).handle_with_password(RH_OWNER, &self.auth.owner).handle(TAG_INDEX);
        self.run(&undefine).map(drop)
    }

    fn certify_nv(&mut self, public: &NvPublic, qualifying: &[u8]) -> Result<SignedAttest, TpmError> {
        self.with_keys(|device, keys| {
            let command = device
                .nv_reader(Command::new(NV_CERTIFY).handle_with_password(keys.ak, &[]), public)
                .handle(public.index)
                .tpm2b(qualifying)
                .u16(NO_SCHEME)
                .u16(public.size)
                .u16(0);
            let (attest, signature) = device.ask(&command, signed_attest)?;
            Ok(SignedAttest { attest: B64(attest), signature: B64(signature) })
        })
    }

    /// Every defined NV index, for `doctor`.
    pub(super) fn nv_indices(&mut self) -> Result<Vec<u32>, TpmError> {
        self.handles(NV_FIRST)
    }
}

/// The DER SEQUENCE at the start of `bytes`, without what follows it.
fn der_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let (head, size) = match bytes {
        [0x30, 0x82, high, low, ..] => (4usize, usize::from(u16::from_be_bytes([*high, *low]))),
        [0x30, 0x81, size, ..] => (3, usize::from(*size)),
        [0x30, size @ 0..=0x7F, ..] => (2, usize::from(*size)),
        _ => return None,
    };
    bytes.get(..head.checked_add(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_where_its_der_ends() {
        let rows: [(&[u8], Option<usize>); 6] = [
            (&[0x30, 2, 1, 2, 0xFF, 0xFF], Some(4)),
            (&[0x30, 0x81, 1, 9, 0], Some(4)),
            (&[0x30, 0x82, 0, 1, 9, 0], Some(5)),
            (&[0x30, 0x82, 1, 1, 9], None),
            (&[0xFF; 8], None),
            (&[], None),
        ];
        for (bytes, expect) in rows {
            assert_eq!(der_sequence(bytes).map(<[u8]>::len), expect, "{bytes:?}");
        }
    }
}
