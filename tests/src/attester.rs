//! A host in software: EK, AK and TLS key are generated keys, and it can be told to lie in every field.
//!
//! Honest by default: its PCRs, logs and manifest are those of a recorded boot, and it speaks with a running verifier over TLS
//! as hostd does. A test changes a [`Draft`] before the AK signs it, or the [`Evidence`] after. It opens credentials itself
//! (TPM 2.0 Library Part 1, 24), so it can also fail to.

use std::collections::BTreeMap;

use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use aws_lc_rs::{agreement, hmac};
use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, PcrBanks, sha256};
use hostmark_attest::evidence::{Evidence, ImaPart, TagEvidence, Unanchored};
use hostmark_attest::host_log::{Event, Record};
use hostmark_attest::identity::nv::NvPublic;
use hostmark_attest::identity::tag::Tag;
use hostmark_attest::ima::ImaLog;
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tpm::attest::ClockInfo;
use hostmark_attest::tpm::key::{Curve, PublicKey};
use hostmark_attest::tpm::name::Name;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{
    Activation, B64, Challenge, DOMAIN_QUOTE, DOMAIN_TAG, DOMAIN_TLS, EVIDENCE_TYPE, EnrolmentChallenge,
    EnrolmentOutcome, EnrolmentRequest, HostIdentity, Nonce, Renewal, RenewalChallenge, RenewalRequest, RoundOutcome,
    SignedAttest,
};
use rcgen::KeyPair;
use reqwest::Method;

use crate::client::{Answer, Client, Credentials};
use crate::engine_files::EngineFiles;
use crate::forge::{AttestBuilder, SoftwareKey, SoftwareTpm};
use crate::operator::OperatorKey;
use crate::pki::{Ca, EK_ATTRIBUTES, ek_p256};
use crate::recording::Recording;
use crate::verifier::Verifier;

/// The bank that the recorded boots have.
const BANK: HashAlg = HashAlg::Sha256;
/// The host log's PCR.
const HOST_LOG_PCR: u8 = 13;

/// A P-256 EK whose private part lies in memory.
#[derive(Debug)]
pub struct SoftwareEk {
    /// The key.
    pub pair: KeyPair,
    /// TPMT_PUBLIC, as the TCG's template has it.
    pub public: Public,
    /// DER of its certificate; None for a TPM without one.
    pub certificate: Option<Vec<u8>>,
}

impl SoftwareEk {
    /// An EK that `ca` certifies.
    #[must_use]
    pub fn new(ca: &Ca) -> Self {
        let pair = KeyPair::generate().unwrap();
        let certificate = ca.issue(&pair, |_| ());
        Self { public: ek_p256(&pair, EK_ATTRIBUTES), pair, certificate: Some(certificate) }
    }

    /// EK id in hex.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.public.key().id().unwrap())
    }

    /// TPM2_ActivateCredential for a loaded object of this Name. None: the credential is for another EK or object.
    #[must_use]
    pub fn open(&self, challenge: &EnrolmentChallenge, object: &Name) -> Option<Vec<u8>> {
        let (encrypted, _) = tpm2b(&challenge.encrypted_secret.0)?;
        let seed = self.seed(encrypted)?;
        let (id_object, _) = tpm2b(&challenge.credential_blob.0)?;
        let (integrity, identity) = tpm2b(id_object)?;
        let mut outer = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &kdfa(&seed, b"INTEGRITY", &[])));
        outer.update(identity);
        outer.update(object.as_bytes());
        if outer.sign().as_ref() != integrity {
            return None;
        }
        let key = UnboundCipherKey::new(&AES_128, &kdfa_bits(&seed, b"STORAGE", object.as_bytes(), 128)[..16]).unwrap();
        let mut clear = identity.to_vec();
        let iv = DecryptionContext::Iv128([0; 16].into());
        let clear = DecryptingKey::cfb128(key).unwrap().decrypt(&mut clear, iv).unwrap();
        tpm2b(clear).map(|(secret, _)| secret.to_vec())
    }

    fn seed(&self, encrypted: &[u8]) -> Option<Vec<u8>> {
        match self.public.key() {
            PublicKey::Ec { curve: Curve::P256, x, .. } => {
                let (their_x, rest) = tpm2b(encrypted)?;
                let (their_y, _) = tpm2b(rest)?;
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.pair.serialized_der()).ok()?;
                let scalar = pair.private_key().as_be_bytes().ok()?;
                let own = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar.as_ref()).ok()?;
                let point = [&[4], their_x, their_y].concat();
                let theirs = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, point);
                agreement::agree(&own, theirs, (), |z| {
                    Ok(sha256(&[&1u32.to_be_bytes(), z, b"IDENTITY\0", their_x, x]).to_vec())
                })
                .ok()
            }
            _ => None,
        }
    }
}

/// The contents of a leading TPM2B, and what follows it.
fn tpm2b(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}

fn kdfa(seed: &[u8], label: &[u8], context: &[u8]) -> Vec<u8> {
    kdfa_bits(seed, label, context, 256)
}

fn kdfa_bits(seed: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let block = [&1u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), &block).as_ref().to_vec()
}

/// A round before the AK signs it.
#[derive(Clone)]
pub struct Draft {
    /// What no PCR anchors.
    pub unanchored: Unanchored,
    /// The quote; its extraData is bound to the unanchored part as it was then: [`Draft::bind`] binds it again.
    pub attest: AttestBuilder,
    /// The PCR values beside the quote.
    pub values: PcrBanks,
    /// The boot log.
    pub boot_log: Vec<u8>,
    /// The IMA list or its rest.
    pub ima: ImaPart,
    /// The host log.
    pub host_log: Vec<u8>,
    /// systemd's log.
    pub userspace_log: Vec<u8>,
}

impl Draft {
    /// Binds the quote to the nonce and the unanchored part.
    pub fn bind(&mut self) {
        let bound = self.unanchored.nonce.bind(DOMAIN_QUOTE, &self.unanchored.encode());
        self.attest.extra_data = bound.to_vec();
    }
}

/// A host.
pub struct Attester {
    url: String,
    ca: String,
    stranger: Client,
    client: Option<Client>,
    identity: Option<HostIdentity>,
    /// The endorsement key.
    pub ek: SoftwareEk,
    /// The AK and the PCRs.
    pub tpm: SoftwareTpm,
    /// The TLS key.
    pub tls: SoftwareKey,
    /// Clock and counters.
    pub clock: ClockInfo,
    /// The boot log.
    pub boot_log: Vec<u8>,
    /// The whole IMA list.
    pub ima: Vec<u8>,
    /// The host log.
    pub host_log: Vec<u8>,
    /// systemd's log; empty for a systemd that writes none.
    pub userspace_log: Vec<u8>,
    /// This boot's id.
    pub boot_id: String,
    /// The tag in NV, as it was written.
    pub tag: Option<Vec<u8>>,
    /// The workload inventory; empty for a host daemon that asks no engine.
    pub inventory: Vec<u8>,
    command_line: String,
    manifest: Vec<u8>,
}

impl Attester {
    /// A host with this EK that has just booted as `recording` did, and has never spoken to the verifier.
    #[must_use]
    pub fn boot(verifier: &Verifier, ek: SoftwareEk, recording: &Recording) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let manifest = EngineFiles::create(&scratch.path().join("root")).unwrap().manifest();
        let mut tpm = SoftwareTpm::new();
        tpm.ek_name = ek.public.name().clone();
        let mut host = Self {
            url: verifier.url(),
            ca: std::fs::read_to_string(verifier.ca()).unwrap(),
            stranger: verifier.stranger().unwrap(),
            client: None,
            identity: None,
            ek,
            tpm,
            tls: SoftwareKey::tls(),
            clock: ClockInfo { clock: 100_000, reset_count: 7, restart_count: 2, safe: true },
            boot_log: recording.boot_log().unwrap(),
            ima: recording.ima().unwrap(),
            host_log: Vec::new(),
            userspace_log: Vec::new(),
            boot_id: String::new(),
            tag: None,
            inventory: Vec::new(),
            command_line: recording.command_line().unwrap(),
            manifest,
        };
        host.start();
        host
    }

    /// Puts another TPM into the machine: another EK, AK and TLS key.
    pub fn replace_tpm(&mut self, ek: SoftwareEk) {
        self.tpm.ek_name = ek.public.name().clone();
        (self.ek, self.tpm.ak, self.tls) = (ek, SoftwareKey::ak(), SoftwareKey::tls());
    }

    /// Starts the TPM's PCRs and the host log anew, as after a reset.
    fn start(&mut self) {
        let replayed = BootLog::parse(&self.boot_log).unwrap().replay_bank(BANK);
        for index in 0..24 {
            let value = replayed.get(&index).copied().unwrap_or_else(|| Digest::zero(BANK));
            self.tpm.set(BANK, index, value);
        }
        let list = self.ima.clone();
        for entry in ImaLog::parse(&list).unwrap().entries() {
            let digest = if entry.is_violation() { Digest::ones(BANK) } else { entry.template_digest(BANK).unwrap() };
            self.extend(10, digest);
        }
        self.boot_id = format!("00000000-0000-4000-8000-{:012}", self.clock.reset_count);
        self.host_log.clear();
        self.userspace_log.clear();
        self.log(&Event::Boot { boot_id: self.boot_id.clone(), hostd: env!("CARGO_PKG_VERSION").to_owned() });
        self.log(&Event::Manifest { sha256: sha256(&[&self.manifest]) });
    }

    /// Boots again.
    pub fn reboot(&mut self) {
        self.clock.reset_count += 1;
        self.clock.restart_count = 0;
        self.start();
    }

    /// Extends a PCR.
    pub fn extend(&mut self, index: u8, digest: Digest) {
        let value = self.tpm.pcrs[&BANK][&index].extend(&digest).unwrap();
        self.tpm.set(BANK, index, value);
    }

    fn log(&mut self, event: &Event) {
        let number = u64::try_from(self.host_log.iter().filter(|byte| **byte == b'\n').count()).unwrap();
        let (line, digest) = Record::encode(number, HOST_LOG_PCR, event);
        self.host_log.extend(line);
        self.extend(HOST_LOG_PCR, Digest::new(BANK, &digest).unwrap());
    }

    // ---- enrolment ----

    /// What begins an enrolment.
    #[must_use]
    pub fn request(&self, token: Option<&str>) -> EnrolmentRequest {
        EnrolmentRequest {
            ek_public: B64(self.ek.public.as_bytes().to_vec()),
            ek_certificate: self.ek.certificate.clone().map(B64),
            ek_intermediates: Vec::new(),
            ak_public: B64(self.tpm.ak.public.as_bytes().to_vec()),
            token: token.map(str::to_owned),
        }
    }

    /// Asks for an enrolment's challenge.
    #[must_use]
    pub fn begin(&self, token: Option<&str>) -> Answer {
        self.stranger.post("/v1/enrolments", &self.request(token)).unwrap()
    }

    /// A PKCS#10 request of a key.
    #[must_use]
    pub fn csr(&self, key: &SoftwareKey) -> Vec<u8> {
        let request = rcgen::CertificateParams::default().serialize_request(&key_pair(key)).unwrap();
        request.der().to_vec()
    }

    /// Signs an attestation with the AK.
    #[must_use]
    pub fn signed(&self, attest: &AttestBuilder) -> SignedAttest {
        let bytes = attest.build();
        let signature = self.tpm.ak.sign(&bytes);
        SignedAttest { attest: B64(bytes), signature: B64(signature) }
    }

    /// TPM2_Certify of a key for a nonce and a request, not yet signed.
    #[must_use]
    pub fn certify(&self, key: &SoftwareKey, nonce: &Nonce, csr: &[u8]) -> AttestBuilder {
        self.tpm.certify(&key.public, &nonce.bind(DOMAIN_TLS, csr))
    }

    /// The answer to a challenge, for any TLS key and with any lie in its certification.
    #[must_use]
    pub fn activation(
        &self,
        challenge: &EnrolmentChallenge,
        key: &SoftwareKey,
        change: impl FnOnce(&mut AttestBuilder),
    ) -> Activation {
        let csr = self.csr(key);
        let mut certification = self.certify(key, &challenge.nonce, &csr);
        change(&mut certification);
        let secret = self.ek.open(challenge, self.tpm.ak.public.name()).unwrap_or_else(|| vec![0; 32]);
        Activation {
            secret: B64(secret),
            tls_public: B64(key.public.as_bytes().to_vec()),
            csr: B64(csr),
            certification: self.signed(&certification),
        }
    }

    /// Sends the answer to a challenge.
    #[must_use]
    pub fn activate(&self, enrolment: &str, activation: &Activation) -> Answer {
        self.stranger.post(&format!("/v1/enrolments/{enrolment}/activation"), activation).unwrap()
    }

    /// Enrols honestly; the verifier's answer. An approved host has its identity from now on.
    pub fn enrol(&mut self, token: Option<&str>) -> EnrolmentOutcome {
        let challenge: EnrolmentChallenge = self.begin(token).read().unwrap();
        let activation = self.activation(&challenge, &self.tls, |_| ());
        let outcome = self.activate(&challenge.enrolment, &activation).read().unwrap();
        if let EnrolmentOutcome::Approved { host } = &outcome {
            self.become_host(host.clone());
        }
        outcome
    }

    /// Uses this certificate from now on.
    pub fn become_host(&mut self, identity: HostIdentity) {
        let key = key_pair(&self.tls).serialize_pem();
        let credentials = Credentials { certificate: &identity.certificate, key: &key };
        self.client = Some(Client::new(&self.url, &self.ca, Some(credentials)).unwrap());
        self.identity = Some(identity);
    }

    /// Who the verifier said it is.
    #[must_use]
    pub fn identity(&self) -> &HostIdentity {
        self.identity.as_ref().expect("the host is enrolled")
    }

    /// Its client with the host certificate.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the host is enrolled")
    }

    /// Its client without a certificate.
    #[must_use]
    pub const fn stranger(&self) -> &Client {
        &self.stranger
    }

    // ---- rounds ----

    /// Asks for a round's challenge.
    #[must_use]
    pub fn challenge(&self) -> Challenge {
        self.client().post("/v1/challenges", &serde_json::json!({})).unwrap().read().unwrap()
    }

    /// The honest round for a challenge.
    #[must_use]
    pub fn draft(&self, challenge: &Challenge) -> Draft {
        let unanchored = Unanchored {
            nonce: challenge.nonce,
            boot_id: self.boot_id.clone(),
            hostd: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: self.manifest.clone(),
            facts: BTreeMap::from([("cmdline".to_owned(), self.command_line.clone())]),
            sources: Vec::new(),
            tag: self.tag.as_ref().map(|nv| self.held_tag(&challenge.nonce, nv, |_| ())),
            inventory: self.inventory.clone(),
        };
        let entries = ImaLog::parse(&self.ima).unwrap().len();
        let goes_on = challenge.ima_from == entries && challenge.reset_count == self.clock.reset_count;
        let ima = if goes_on {
            ImaPart { from: entries, ..ImaPart::default() }
        } else {
            ImaPart { list: self.ima.clone(), ..ImaPart::default() }
        };
        let mut draft = Draft {
            unanchored,
            attest: self.quote(&challenge.selection),
            values: self.tpm.values(&challenge.selection),
            boot_log: self.boot_log.clone(),
            ima,
            host_log: self.host_log.clone(),
            userspace_log: self.userspace_log.clone(),
        };
        draft.bind();
        draft
    }

    /// A quote of this selection, bound to nothing yet.
    #[must_use]
    pub fn quote(&self, selection: &PcrSelection) -> AttestBuilder {
        AttestBuilder { clock_info: self.clock, ..self.tpm.quote(selection, &[]) }
    }

    /// Signs a round with the AK.
    #[must_use]
    pub fn sign(&self, draft: Draft) -> Evidence {
        let signed = self.signed(&draft.attest);
        let mut evidence = Evidence::new(draft.unanchored, signed, draft.values);
        (evidence.boot_log, evidence.ima, evidence.host_log) = (draft.boot_log, draft.ima, draft.host_log);
        evidence.userspace_log = draft.userspace_log;
        evidence
    }

    /// Sends a round's bytes, whatever they are.
    #[must_use]
    pub fn send(&self, body: Vec<u8>) -> Answer {
        self.client().send(Method::POST, "/v1/evidence", Some((EVIDENCE_TYPE, body))).unwrap()
    }

    /// An honest round.
    #[must_use]
    pub fn round(&self) -> RoundOutcome {
        self.send(self.sign(self.draft(&self.challenge())).encode()).read().unwrap()
    }

    // ---- renewal ----

    /// Asks for a renewal's challenge.
    #[must_use]
    pub fn renewal_challenge(&self) -> RenewalChallenge {
        let request = RenewalRequest { host: self.identity().host.clone() };
        self.stranger.post("/v1/renewals/challenge", &request).unwrap().read().unwrap()
    }

    /// The honest answer to it.
    #[must_use]
    pub fn renewal(&self, challenge: &RenewalChallenge) -> Renewal {
        let csr = self.csr(&self.tls);
        let mut quote = self.quote(&challenge.selection);
        quote.extra_data = challenge.nonce.bind(DOMAIN_QUOTE, &csr).to_vec();
        Renewal {
            host: self.identity().host.clone(),
            nonce: challenge.nonce,
            quote: self.signed(&quote),
            tls_public: B64(self.tls.public.as_bytes().to_vec()),
            certification: self.signed(&self.certify(&self.tls, &challenge.nonce, &csr)),
            csr: B64(csr),
        }
    }

    // ---- the asset tag ----

    /// A tag for this host's EK as an operator signs it.
    #[must_use]
    pub fn sign_tag(&self, operator: &OperatorKey, serial: u64, change: impl FnOnce(&mut Tag)) -> Vec<u8> {
        let mut tag = Tag {
            ek: self.ek.public.name().clone(),
            serial,
            label: crate::lab::LABEL.parse().unwrap(),
            location: "jp-east/rack-7".to_owned(),
            not_before: 0,
            not_after: 1 << 40,
        };
        change(&mut tag);
        tag.sign(operator).unwrap()
    }

    /// What shows that the tag's own index holds `nv`, with a lie in the certification.
    #[must_use]
    pub fn held_tag(&self, nonce: &Nonce, nv: &[u8], change: impl FnOnce(&mut AttestBuilder)) -> TagEvidence {
        self.held_tag_in(&NvPublic::of_tag(u16::try_from(nv.len()).unwrap()), nonce, nv, change)
    }

    /// The same for an index of any shape.
    #[must_use]
    pub fn held_tag_in(
        &self,
        index: &NvPublic,
        nonce: &Nonce,
        nv: &[u8],
        change: impl FnOnce(&mut AttestBuilder),
    ) -> TagEvidence {
        let nv_public = index.to_bytes();
        let name = Name::of(index.name_alg, &nv_public).unwrap();
        let mut attest = self.tpm.nv_certify(name.as_bytes(), 0, nv, &nonce.bind(DOMAIN_TAG, nv));
        change(&mut attest);
        TagEvidence { nv: nv.to_vec(), nv_public, certification: self.signed(&attest) }
    }
}

fn key_pair(key: &SoftwareKey) -> KeyPair {
    KeyPair::try_from(key.pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
}
