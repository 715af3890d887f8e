//! The table of targets.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::boot_log::{self, BootLog};
use hostmark_attest::ccel::CcEventLog;
use hostmark_attest::cel::{self, userspace::UserspaceLog};
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::evidence::Evidence;
use hostmark_attest::host_log::{Event, HostLog, HostLogContext};
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::nv::NvPublic;
use hostmark_attest::identity::{ak, ek, tag};
use hostmark_attest::ima::signature::FileSignature;
use hostmark_attest::ima::{self, ImaKey, ImaLog};
use hostmark_attest::jws::KeySet;
use hostmark_attest::kernel_parameters::{Lockdown, Words, resumes_from_disk};
use hostmark_attest::label::{Label, Levels};
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::permit::Permit;
use hostmark_attest::policy::predicted::{Validity, bundle};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::pool::Pool;
use hostmark_attest::predict::pe::Image;
use hostmark_attest::predict::{Conditions, Phase, Uki};
use hostmark_attest::result::VerifiedResult;
use hostmark_attest::tools;
use hostmark_attest::tpm::attest::{Attest, Attested};
use hostmark_attest::tpm::name::Name;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signature::Signature;
use hostmark_attest::wire::EnrolmentRequest;
use time::OffsetDateTime;

use crate::{made, uki};

/// A parser under fuzzing.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is mutated.
    pub seeds: &'static [Seed],
    /// Runs the parser, and what reads its result next; a panic is the finding.
    pub run: fn(&[u8]),
}

/// Where a target's seeds come from.
#[derive(Debug, Clone, Copy)]
pub enum Seed {
    /// Every file of that name below a `testdata/` folder.
    Recorded(&'static str),
    /// Every file below `configs/` whose path contains this.
    Config(&'static str),
    /// This text.
    Text(&'static str),
    /// What our own writer makes.
    Made(fn() -> Vec<u8>),
}

/// Every target. A parser that reads foreign bytes and is missing here is a mistake.
pub const TARGETS: &[Target] = &[
    Target { name: "boot-log", seeds: &[Seed::Recorded("boot-log.bin")], run: boot_log },
    Target { name: "ima", seeds: &[Seed::Recorded("ima.bin"), Seed::Recorded("ima.txt")], run: ima },
    Target { name: "attest", seeds: &[Seed::Recorded("quote.msg")], run: |bytes| drop(Attest::parse(bytes)) },
    Target { name: "public", seeds: &[Seed::Recorded("ak.pub"), Seed::Recorded("ek.pub")], run: public },
    Target { name: "signature", seeds: &[Seed::Recorded("quote.sig")], run: signature },
    Target { name: "name", seeds: &[Seed::Recorded("ak.name")], run: |bytes| drop(Name::parse(bytes)) },
    Target {
        name: "cel",
        seeds: &[
            Seed::Made(made::host_log),
            Seed::Made(made::cel_json),
            Seed::Made(made::cel_tlv),
            Seed::Made(made::cel_cbor),
        ],
        run: canonical_event_log,
    },
    Target { name: "ccel", seeds: &[Seed::Recorded("boot-log.bin"), Seed::Made(made::ccel)], run: cc_event_log },
    Target {
        name: "ima-templates",
        seeds: &[Seed::Made(made::ima_templates), Seed::Made(made::ima_templates_ascii)],
        run: ima_files,
    },
    Target {
        name: "ima-key",
        seeds: &[Seed::Recorded("ekcert-rsa.der"), Seed::Recorded("ekcert-ecc384.der")],
        run: ima_key,
    },
    Target { name: "host-log", seeds: &[Seed::Made(made::host_log)], run: host_log },
    Target { name: "evidence", seeds: &[Seed::Made(made::evidence)], run: evidence },
    Target { name: "manifest", seeds: &[Seed::Made(made::manifest)], run: manifest },
    Target { name: "nv-public", seeds: &[Seed::Made(made::nv_public)], run: |bytes| drop(NvPublic::parse(bytes)) },
    Target { name: "tag", seeds: &[Seed::Made(made::tag)], run: provisioned_tag },
    Target { name: "policy", seeds: &[Seed::Text(made::POLICY), Seed::Config("appraisal/")], run: policy },
    Target { name: "admission", seeds: &[Seed::Config("admission/")], run: admission },
    Target { name: "pool", seeds: &[Seed::Config("pools/")], run: pool },
    Target { name: "references", seeds: &[Seed::Text(made::REFERENCES)], run: references },
    Target { name: "label", seeds: &[Seed::Text("restricted:phi,pci@hospital-a"), Seed::Text("public")], run: label },
    Target {
        name: "ek-certificate",
        seeds: &[Seed::Recorded("ekcert-rsa.der"), Seed::Recorded("ekcert-ecc384.der")],
        run: ek_certificate,
    },
    Target {
        name: "tools-files",
        seeds: &[
            Seed::Recorded("ak.pub"),
            Seed::Recorded("swtpm-localca-issuer-cert.pem"),
            Seed::Recorded("quote.pcrs"),
            Seed::Recorded("quote.msg"),
            Seed::Recorded("pcrs.quoted.txt"),
        ],
        run: tools_files,
    },
    Target { name: "kernel-image", seeds: &[Seed::Made(uki::uki), Seed::Made(uki::kernel)], run: kernel_image },
    Target { name: "kernel-parameters", seeds: &[Seed::Recorded("cmdline")], run: kernel_parameters },
    Target { name: "token", seeds: &[Seed::Made(made::token)], run: token },
    Target { name: "enrolment", seeds: &[Seed::Made(made::enrolment)], run: enrolment },
    Target {
        name: "ca-bundle",
        seeds: &[
            Seed::Recorded("swtpm-localca-rootca-cert.pem"),
            Seed::Recorded("swtpm-localca-issuer-cert.pem"),
            Seed::Recorded("ekcert-rsa.der"),
        ],
        run: |bytes| drop(TrustBundle::new().add(TpmClass::Simulated, bytes)),
    },
];

fn boot_log(bytes: &[u8]) {
    let _ = boot_log::inspect(bytes);
    if let Ok(log) = BootLog::parse(bytes) {
        let _ = log.replay();
        for bank in log.banks() {
            let _ = log.claims(bank);
            let _ = log.unauthenticated(bank);
            let _ = log.describe(bank);
            for event in log.events() {
                let _ = event.authenticity(bank);
            }
        }
    }
}

fn canonical_event_log(bytes: &[u8]) {
    let _ = cel::inspect(bytes, true);
    let _ = UserspaceLog::parse(bytes);
}

fn cc_event_log(bytes: &[u8]) {
    if let Ok(log) = CcEventLog::parse(bytes) {
        let _ = (log.findings(), log.replay(HashAlg::Sha384));
    }
}

fn ima_files(bytes: &[u8]) {
    let Ok(log) = ImaLog::parse(bytes) else { return };
    for file in log.entries().filter_map(|entry| entry.measurement()) {
        let _ = file.signature.and_then(FileSignature::parse);
    }
}

fn ima_key(bytes: &[u8]) {
    let _ = ImaKey::issued(bytes, &[]);
    let _ = ImaKey::from_spki(bytes);
    let _ = ImaKey::from_pem(&String::from_utf8_lossy(bytes));
}

fn kernel_image(bytes: &[u8]) {
    if let Ok(image) = Image::parse(bytes) {
        let _ = image.authenticode(HashAlg::Sha256);
    }
    let Ok(uki) = Uki::parse(bytes) else { return };
    let _ = (uki.stub(), uki.kernel_version(), uki.os_name(), uki.command_line());
    for secure_boot in [true, false] {
        let conditions = Conditions { secure_boot, failed_options: 1, phase: Phase::Final, systemd_initrd: true };
        if let Ok(prediction) = uki.predict(HashAlg::Sha256, &conditions) {
            let _ = bundle(&prediction, &Validity::default(), 1);
        }
    }
}

fn kernel_parameters(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let _ = (Lockdown::of(&line), resumes_from_disk(&line));
    let words = Words { has: line.split_whitespace().map(str::to_owned).collect(), lacks: Vec::new() };
    if words.is_sound() {
        let _ = words.accept(&line);
    }
}

fn ima(bytes: &[u8]) {
    let _ = ima::inspect(bytes);
    if let Ok(log) = ImaLog::parse(bytes) {
        for entry in log.entries() {
            let _ = (entry.shape(), entry.name_fits(), entry.unauthenticated_path());
            if let Some(file) = entry.measurement() {
                let _ = (file.file_digest(), file.path_lossy().len());
            }
        }
        let _ = ima::check_boot_aggregate(log.entries().next().as_ref(), &BTreeMap::new());
    }
}

fn public(bytes: &[u8]) {
    for public in [Public::parse(bytes), Public::parse_tpm2b(bytes)].into_iter().flatten() {
        let _ = (ak::verify_ak(&public), public.key().to_spki(), public.key().weakness());
        let _ = ek::verify_ek(&public, None, &[], &TrustBundle::new(), OffsetDateTime::UNIX_EPOCH);
    }
}

fn signature(bytes: &[u8]) {
    if let (Ok(signature), Ok(key)) = (Signature::parse(bytes), Public::parse_tpm2b(made::AK)) {
        let _ = (signature.fits(key.key(), key.scheme()), signature.verify(key.key(), b"message"));
    }
}

fn host_log(bytes: &[u8]) {
    let _ = Event::parse(bytes);
    if let Ok(log) = HostLog::parse(bytes) {
        let start = Digest::zero(HashAlg::Sha256);
        // With the PCR that the log itself gives, so that what comes after the replay is reached too.
        let quoted = log.replay(start);
        let _ = log.verify(&HostLogContext { pcr: log.pcr().unwrap_or(13), start, quoted, boot_id: made::BOOT_ID });
    }
}

fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = Evidence::parse(bytes) {
        assert_eq!(evidence.encode(), bytes, "evidence has one encoding");
    }
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = EngineManifest::parse(bytes) {
        assert_eq!(manifest.to_canonical(), bytes, "a manifest has one encoding");
    }
}

fn provisioned_tag(bytes: &[u8]) {
    let _ = tag::verify_provisioning(bytes, &KeySet::new());
}

fn policy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = AppraisalPolicy::parse("fuzz", text);
    }
}

fn admission(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = AdmissionPolicy::parse("fuzz", text);
    }
}

fn pool(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Pool::parse("fuzz", text, &Levels::default());
    }
}

fn tools_files(bytes: &[u8]) {
    let _ = (tools::read_ak(bytes), tools::unwrap_attest(bytes), tools::read_serialized_pcrs(bytes));
    if let Ok(attest) = Attest::parse(made::QUOTE)
        && let Attested::Quote { selection, .. } = attest.attested
    {
        let _ = tools::read_pcr_values(bytes, &selection);
    }
}

fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut keys = KeySet::new();
        keys.insert(made::KID, made::POINT);
        let _ = (Permit::verify(text, &keys, 0), VerifiedResult::verify(text, &keys, "host", 0));
    }
}

fn enrolment(bytes: &[u8]) {
    let _ = serde_json::from_slice::<EnrolmentRequest>(bytes);
}

fn references(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = References::parse("fuzz", text);
    }
}

fn label(bytes: &[u8]) {
    if let Some(label) = std::str::from_utf8(bytes).ok().and_then(|text| Label::from_str(text).ok()) {
        assert_eq!(Label::from_str(&label.to_string()).as_ref(), Ok(&label), "a label's canonical form is a label");
    }
}

fn ek_certificate(bytes: &[u8]) {
    if let Ok(ek) = Public::parse_tpm2b(made::EK) {
        let mut bundle = TrustBundle::new();
        let _ = bundle.add(TpmClass::Simulated, made::EK_ROOT);
        let _ = ek::verify_ek(&ek, Some(bytes), &[bytes.to_vec()], &bundle, OffsetDateTime::UNIX_EPOCH);
    }
}
