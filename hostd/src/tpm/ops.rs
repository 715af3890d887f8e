//! Operations with the loaded keys, PCRs, counters.
//!
//! TPM 2.0 Library Part 3 §12.5 (ActivateCredential), §18 (attestation), §20 (Sign), §22 (PCRs), §29 (clock). Quotes carry the PCR
//! values that were read around them only when those give the quote's pcrDigest.

use std::time::{Duration, Instant};

use hostmark_attest::bytes::{ParseError, Reader};
use hostmark_attest::digest::{Digest, HashAlg, PcrBanks, sha256};
use hostmark_attest::selection::{BankSelection, PcrSelection};
use hostmark_attest::wire::{B64, SignedAttest};
use zeroize::Zeroizing;

use super::command::{
    ACTIVATE_CREDENTIAL, CERTIFY, Command, GET_CAPABILITY, PCR_EXTEND, PCR_READ, QUOTE, READ_CLOCK, RH_NULL, SIGN,
};
use super::device::Device;
use super::keys::whole_tpm2b;
use super::template::{ALG_ECDSA, ALG_SHA256};
use super::{Tcti, Tpm, TpmError};

/// TPM_ALG_NULL as a scheme: the key's own.
pub(super) const NO_SCHEME: u16 = 0x0010;
/// TPM2B_ATTEST: a quote stays far below it.
const MAX_ATTEST: u16 = 2304;
/// How often a quote is taken when PCRs move meanwhile (SURFACE, Wire).
const MAX_QUOTES: u32 = 3;
/// TPM_ST_HASHCHECK.
const ST_HASHCHECK: u16 = 0x8024;
/// TPM_CAP_PCRS.
const CAP_PCRS: u32 = 5;
/// Banks in one TPML_PCR_SELECTION (TPM2_NUM_PCR_BANKS).
const MAX_BANKS: u32 = 16;

/// A quote and the PCR values that it is over.
#[derive(Debug, Clone)]
pub struct Quoted {
    /// TPMS_ATTEST and TPMT_SIGNATURE.
    pub signed: SignedAttest,
    /// The selected PCRs. Their composite gives the quote's pcrDigest.
    pub pcrs: PcrBanks,
}

/// The secret out of a credential.
pub type Activated = Zeroizing<Vec<u8>>;

/// TPMS_TIME_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TimeInfo {
    /// Milliseconds since the TPM was powered.
    pub time_ms: u64,
    /// Milliseconds that the TPM has been powered, ever.
    pub clock_ms: u64,
    /// TPM resets.
    pub reset_count: u32,
    /// TPM restarts and resumes since the reset.
    pub restart_count: u32,
    /// Whether the clock cannot have been lower than a value it gave before.
    pub safe: bool,
}

/// What a TPM says of itself: for display, never for trust.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Facts {
    /// Where it is.
    pub tcti: String,
    /// TPM_PT_MANUFACTURER as text.
    pub manufacturer: String,
    /// TPM_PT_VENDOR_STRING_1 to 4.
    pub vendor: String,
    /// TPM_PT_FIRMWARE_VERSION_1 and 2.
    pub firmware: String,
    /// Active PCR banks.
    pub banks: Vec<&'static str>,
    /// Whether the owner, endorsement and lockout authorizations are set.
    pub auth_set: [bool; 3],
    /// Whether the TPM is in dictionary-attack lockout.
    pub in_lockout: bool,
    /// Failed authorizations counted, and how many are allowed.
    pub lockout: (u32, u32),
    /// NV indices that are defined.
    pub nv_indices: Vec<u32>,
    /// Clock and counters.
    pub time: TimeInfo,
}

impl Tpm {
    /// TPM2_ActivateCredential with the AK and its EK. Both arguments with their size fields, as the verifier sent them.
    ///
    /// # Errors
    /// [`TpmError::Malformed`] when they are not framed so; the TPM's refusal when they are for another AK or EK.
    pub fn activate_credential(&self, blob: &[u8], secret: &[u8]) -> Result<Activated, TpmError> {
        let (blob, secret) = (blob.to_vec(), secret.to_vec());
        self.run(move |device| device.activate_credential(&blob, &secret))
    }

    /// TPM2_Quote by the AK, with the PCR values it is over.
    ///
    /// # Errors
    /// [`TpmError::InactiveBank`], [`TpmError::PcrsMoving`]; what the TPM says.
    pub fn quote(&self, selection: &PcrSelection, qualifying: &[u8]) -> Result<Quoted, TpmError> {
        let (selection, qualifying) = (selection.clone(), qualifying.to_vec());
        self.run(move |device| device.quote(&selection, &qualifying))
    }

    /// TPM2_PCR_Read of a whole selection.
    ///
    /// # Errors
    /// [`TpmError::InactiveBank`]; what the TPM says.
    pub fn pcr_read(&self, selection: &PcrSelection) -> Result<PcrBanks, TpmError> {
        let selection = selection.clone();
        self.run(move |device| device.pcr_read(&selection))
    }

    /// TPM2_PCR_Extend with one digest per bank.
    ///
    /// # Errors
    /// What the TPM says. After [`TpmError::Unreachable`] the PCR may have been extended: read it.
    pub fn pcr_extend(&self, pcr: u8, digests: &[Digest]) -> Result<(), TpmError> {
        let digests = digests.to_vec();
        self.run(move |device| device.pcr_extend(pcr, &digests))
    }

    /// TPM2_Certify of the TLS key by the AK.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn certify_tls_key(&self, qualifying: &[u8]) -> Result<SignedAttest, TpmError> {
        let qualifying = qualifying.to_vec();
        self.run(move |device| {
            device.with_keys(|device, keys| {
                let command = Command::new(CERTIFY)
                    .handle_with_password(keys.tls, &[])
                    .handle_with_password(keys.ak, &[])
                    .tpm2b(&qualifying)
                    .u16(NO_SCHEME);
                let (attest, signature) = device.ask(&command, signed_attest)?;
                Ok(SignedAttest { attest: B64(attest), signature: B64(signature) })
            })
        })
    }

    /// TPM2_Sign with the TLS key: ECDSA P-256 over a SHA-256 digest, as DER (RFC 3279, 2.2.3).
    ///
    /// # Errors
    /// What the TPM says.
    pub fn sign(&self, digest: [u8; 32]) -> Result<Vec<u8>, TpmError> {
        self.run(move |device| device.sign(&digest))
    }

    /// TPM2_ReadClock.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn time(&self) -> Result<TimeInfo, TpmError> {
        self.run(Device::time)
    }

    /// What the TPM says of itself.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn facts(&self) -> Result<Facts, TpmError> {
        self.run(Device::facts)
    }

    /// Median of `count` signatures with the TLS key (`doctor`).
    ///
    /// # Errors
    /// What the TPM says.
    pub fn signing_time(&self, count: u32) -> Result<Duration, TpmError> {
        self.run(move |device| {
            let mut times = Vec::new();
            for _ in 0..count.max(1) {
                let start = Instant::now();
                device.sign(&[0x48; 32])?;
                times.push(start.elapsed());
            }
            times.sort_unstable();
            Ok(times.get(times.len() / 2).copied().unwrap_or_default())
        })
    }
}

impl Device {
    fn activate_credential(&mut self, blob: &[u8], secret: &[u8]) -> Result<Activated, TpmError> {
        whole_tpm2b(blob, "credentialBlob")
            .and_then(|()| whole_tpm2b(secret, "encryptedSecret"))
            .map_err(|source| TpmError::Malformed { command: ACTIVATE_CREDENTIAL.0, source })?;
        let kind = self.ek_kind()?;
        self.with_keys(|device, keys| {
            device.with_ek(kind, |device, ek, _| {
                device.with_ek_session(kind, |device, session| {
                    let command = Command::new(ACTIVATE_CREDENTIAL)
                        .handle_with_password(keys.ak, &[])
                        .handle_with_policy(ek, session)
                        .bytes(blob)
                        .bytes(secret);
                    device.ask(&command, |reader| Ok(Zeroizing::new(reader.tpm2b(64, "certInfo")?.to_vec())))
                })
            })
        })
    }

    fn quote(&mut self, selection: &PcrSelection, qualifying: &[u8]) -> Result<Quoted, TpmError> {
        for _ in 0..MAX_QUOTES {
            let pcrs = self.pcr_read(selection)?;
            let (attest, signature) = self.with_keys(|device, keys| {
                let command = Command::new(QUOTE)
                    .handle_with_password(keys.ak, &[])
                    .tpm2b(qualifying)
                    .u16(NO_SCHEME)
                    .bytes(&marshal_selection(selection));
                device.ask(&command, signed_attest)
            })?;
            // TPMS_QUOTE_INFO ends with pcrDigest.
            if attest.ends_with(&sha256(&composite(selection, &pcrs))) {
                let signed = SignedAttest { attest: B64(attest), signature: B64(signature) };
                return Ok(Quoted { signed, pcrs });
            }
        }
        Err(TpmError::PcrsMoving { tries: MAX_QUOTES })
    }

    fn pcr_read(&mut self, selection: &PcrSelection) -> Result<PcrBanks, TpmError> {
        let mut values = PcrBanks::new();
        for wanted in selection.banks() {
            let mut rest = *wanted;
            while rest.bitmap != 0 {
                let ask = PcrSelection::new(vec![rest]);
                let command = Command::new(PCR_READ).bytes(&marshal_selection(&ask));
                let (got, digests) = self.ask(&command, |reader| {
                    reader.be32("pcrUpdateCounter")?;
                    let got = selections(reader)?;
                    let count = reader.be32("digest count")?.min(8);
                    let digests: Vec<Vec<u8>> = (0..count)
                        .map(|_| Ok(reader.tpm2b(64, "PCR value")?.to_vec()))
                        .collect::<Result<_, ParseError>>()?;
                    Ok((got, digests))
                })?;
                let read = got.iter().filter(|one| one.0 == rest.bank.to_tpm()).fold(0, |all, one| all | one.1);
                let read = BankSelection { bank: rest.bank, bitmap: read & rest.bitmap };
                for (index, value) in read.indices().zip(&digests) {
                    let value = Digest::new(rest.bank, value).ok_or(TpmError::InactiveBank { bank: rest.bank })?;
                    values.entry(rest.bank).or_default().insert(index, value);
                }
                if read.bitmap == 0 || digests.is_empty() {
                    return Err(TpmError::InactiveBank { bank: rest.bank });
                }
                rest.bitmap &= !read.bitmap;
            }
        }
        Ok(values)
    }

    fn pcr_extend(&mut self, pcr: u8, digests: &[Digest]) -> Result<(), TpmError> {
        let count = u32::try_from(digests.len()).unwrap_or(u32::MAX);
        let mut command = Command::new(PCR_EXTEND).handle_with_password(u32::from(pcr), &[]).u32(count);
        for digest in digests {
            command = command.u16(digest.alg().to_tpm()).bytes(digest.as_bytes());
        }
        self.run(&command).map(drop)
    }

    fn sign(&mut self, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        self.with_keys(|device, keys| {
            let command = Command::new(SIGN)
                .handle_with_password(keys.tls, &[])
                .tpm2b(digest)
                .u16(NO_SCHEME)
                .u16(ST_HASHCHECK)
                .u32(RH_NULL)
                .tpm2b(&[]);
            let (r, s) = device.ask(&command, |reader| {
                expect(reader, ALG_ECDSA, "sigAlg")?;
                expect(reader, ALG_SHA256, "signature hash")?;
                Ok((reader.tpm2b(32, "signatureR")?.to_vec(), reader.tpm2b(32, "signatureS")?.to_vec()))
            })?;
            Ok(ecdsa_der(&r, &s))
        })
    }

    fn time(&mut self) -> Result<TimeInfo, TpmError> {
        self.ask(&Command::new(READ_CLOCK), |reader| {
            Ok(TimeInfo {
                time_ms: reader.be64("time")?,
                clock_ms: reader.be64("clock")?,
                reset_count: reader.be32("resetCount")?,
                restart_count: reader.be32("restartCount")?,
                safe: reader.u8("safe")? != 0,
            })
        })
    }

    fn facts(&mut self) -> Result<Facts, TpmError> {
        let mut word = |property| Ok::<u32, TpmError>(self.property(property)?.unwrap_or(0));
        let manufacturer = text(&[word(0x105)?]);
        let vendor = text(&[word(0x106)?, word(0x107)?, word(0x108)?, word(0x109)?]);
        let firmware = format!("{:08x}.{:08x}", word(0x10B)?, word(0x10C)?);
        let permanent = word(0x200)?;
        let lockout = (word(0x20E)?, word(0x20F)?);
        let banks = self.ask(&Command::new(GET_CAPABILITY).u32(CAP_PCRS).u32(0).u32(1), |reader| {
            reader.u8("moreData")?;
            reader.be32("capability")?;
            selections(reader)
        })?;
        let banks = banks
            .iter()
            .filter(|one| one.1 != 0)
            .filter_map(|one| HashAlg::from_tpm(one.0))
            .map(HashAlg::name)
            .collect();
        Ok(Facts {
            tcti: self.tcti.to_string(),
            manufacturer,
            vendor,
            firmware,
            banks,
            auth_set: [permanent & 1 != 0, permanent & 2 != 0, permanent & 4 != 0],
            in_lockout: permanent & (1 << 9) != 0,
            lockout,
            nv_indices: self.nv_indices()?,
            time: self.time()?,
        })
    }
}

impl Facts {
    /// Whether this TPM is a program and not a chip, by its own words.
    #[must_use]
    pub fn looks_simulated(&self) -> bool {
        self.vendor.starts_with("SW") || self.tcti.parse().is_ok_and(|tcti| matches!(tcti, Tcti::Swtpm { .. }))
    }
}

/// The values in the order in which the TPM hashes them: bank by bank as the selection lists them, each ascending.
fn composite<'a>(selection: &PcrSelection, pcrs: &'a PcrBanks) -> Vec<&'a [u8]> {
    let banks = selection.banks().iter();
    banks
        .flat_map(|one| {
            one.indices().filter_map(|index| Some(pcrs.get(&one.bank)?.get(&index)?.as_bytes())).collect::<Vec<_>>()
        })
        .collect()
}

/// TPML_PCR_SELECTION with three bytes of bitmap per bank.
fn marshal_selection(selection: &PcrSelection) -> Vec<u8> {
    let mut out = u32::try_from(selection.banks().len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    for one in selection.banks() {
        let [first, second, third, _] = one.bitmap.to_le_bytes();
        out.extend(one.bank.to_tpm().to_be_bytes());
        out.extend([3, first, second, third]);
    }
    out
}

/// Reads TPML_PCR_SELECTION as (TPM_ALG_ID, bitmap): banks hostd does not know may be there.
fn selections(reader: &mut Reader<'_>) -> Result<Vec<(u16, u32)>, ParseError> {
    let count = reader.be32("selection count")?.min(MAX_BANKS);
    (0..count)
        .map(|_| {
            let bank = reader.be16("bank")?;
            let size = usize::from(reader.u8("sizeofSelect")?);
            let bitmap = reader.take(size, "pcrSelect")?;
            let mut bytes = [0u8; 4];
            bytes.iter_mut().zip(bitmap).for_each(|(to, from)| *to = *from);
            Ok((bank, u32::from_le_bytes(bytes)))
        })
        .collect()
}

/// TPM2B_ATTEST's content, and TPMT_SIGNATURE: the rest.
pub(super) fn signed_attest(reader: &mut Reader<'_>) -> Result<(Vec<u8>, Vec<u8>), ParseError> {
    Ok((reader.tpm2b(MAX_ATTEST, "attestation")?.to_vec(), reader.rest().to_vec()))
}

fn expect(reader: &mut Reader<'_>, expected: u16, what: &'static str) -> Result<(), ParseError> {
    let here = reader.clone();
    let found = reader.be16(what)?;
    if found == expected {
        return Ok(());
    }
    Err(here.error(hostmark_attest::bytes::Problem::Mismatch {
        what,
        expected: u64::from(expected),
        found: u64::from(found),
    }))
}

/// ECDSA-Sig-Value: SEQUENCE of two INTEGERs. P-256 values keep every length below 128.
fn ecdsa_der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let body = [der_integer(r), der_integer(s)].concat();
    let mut out = vec![0x30, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    out.extend(body);
    out
}

fn der_integer(big_endian: &[u8]) -> Vec<u8> {
    let first = big_endian.iter().position(|byte| *byte != 0).unwrap_or(big_endian.len());
    let mut digits = big_endian.get(first..).unwrap_or_default().to_vec();
    if digits.first().is_none_or(|byte| byte & 0x80 != 0) {
        digits.insert(0, 0);
    }
    let mut out = vec![0x02, u8::try_from(digits.len()).unwrap_or(u8::MAX)];
    out.extend(digits);
    out
}

/// Four characters a word, as TPM properties carry text.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let text: String = bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecdsa_values_become_der_integers() {
        let rows: [(&[u8], &str); 4] =
            [(&[0, 0, 1], "020101"), (&[0x80], "02020080"), (&[0x7F, 1], "02027f01"), (&[0], "020100")];
        for (value, expect) in rows {
            assert_eq!(hex::encode(der_integer(value)), expect);
        }
    }

    #[test]
    fn a_selection_is_marshalled_as_part_2_says() {
        let selection = PcrSelection::from_text("sha256:0,1,10,23").unwrap();
        assert_eq!(hex::encode(marshal_selection(&selection)), "00000001000b03030480");
        let marshalled = marshal_selection(&selection);
        let read = selections(&mut Reader::new(&marshalled)).unwrap();
        assert_eq!(read, vec![(0x000B, 0x0080_0403)]);
    }
}
