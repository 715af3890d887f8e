//! Seeds of the formats that are this project's own, made by its own writers, and the fixed other side that some targets need.

pub mod certificates;
pub mod profiles;
pub mod rounds;

use std::collections::BTreeMap;

use hostmark_attest::cel;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::evidence::{Evidence, TagEvidence, Unanchored};
use hostmark_attest::host_log::{Event, Record};
use hostmark_attest::identity::nv::NvPublic;
use hostmark_attest::identity::tag::Tag;
use hostmark_attest::jws::{SignError, Signer};
use hostmark_attest::manifest::{EngineManifest, EngineState, FileDigest, FileState, Mode, Setting, Unreadable};
use hostmark_attest::permit::PermitClaims;
use hostmark_attest::tpm::name::Name;
use hostmark_attest::wire::{B64, EnrolmentRequest, Nonce, SignedAttest};
pub use rounds::{judge, permit_payload, signer};

/// The boot id that made seeds name.
pub const BOOT_ID: &str = "3f1c52a0-7c0e-4b6e-9f0a-5d1f0a3f8b11";
/// A recorded AK, EK, and the root of that EK's certificate.
pub const AK: &[u8] = include_bytes!("../../../attest/testdata/recorded/plain/ak.pub");
/// See [`AK`].
pub const EK: &[u8] = include_bytes!("../../../attest/testdata/recorded/plain/ek.pub");
/// See [`AK`].
pub const EK_ROOT: &[u8] = include_bytes!("../../../attest/testdata/recorded/swtpm-localca-rootca-cert.pem");
/// See [`AK`]: what stands between.
pub const EK_INTERMEDIATE: &[u8] = include_bytes!("../../../attest/testdata/recorded/swtpm-localca-issuer-cert.pem");
/// See [`AK`]: the EK's certificate.
pub const EK_CERTIFICATE: &[u8] = include_bytes!("../../../attest/testdata/recorded/plain/ekcert-rsa.der");
/// A recorded quote.
pub const QUOTE: &[u8] = include_bytes!("../../../attest/testdata/recorded/systemd/quote.msg");
/// See [`QUOTE`]: the key that signed it.
pub const QUOTE_AK: &[u8] = include_bytes!("../../../attest/testdata/recorded/systemd/ak.pub");
/// See [`QUOTE`]: the values that it covers.
pub const QUOTE_PCRS: &[u8] = include_bytes!("../../../attest/testdata/recorded/systemd/quote.pcrs");
/// See [`QUOTE`]: its qualifying data.
pub const QUOTE_NONCE: &[u8] = b"hostmark-recording-nonce-001";
/// Its signature.
pub const QUOTE_SIGNATURE: &[u8] = include_bytes!("../../../attest/testdata/recorded/systemd/quote.sig");
const AK_NAME: &[u8] = include_bytes!("../../../attest/testdata/recorded/plain/ak.name");

/// Every part of an appraisal policy.
pub const POLICY: &str = r#"
version = 7
pcrs = { sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] }
references = ["fw-vendor-model", "debian12-uki"]
quirks = ["pcrphase-unlogged"]
[[rule]]
id = "boot.secure-boot"
claim = "secure_boot"
want = "on"
else = "contraindicated"
[ima]
policy = "container-host"
unknown = "warning"
"#;

/// Every part of a reference bundle.
pub const REFERENCES: &str = r#"
version = 2
[[window]]
from = "2026-01-01T00:00:00Z"
until = "2027-02-01T00:00:00Z"
[window.pcrs.sha256]
4 = ["0000000000000000000000000000000000000000000000000000000000000000"]
[window.ima]
"/usr/bin/runc" = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
"#;

/// The recorded AK with noDA, which it was made without: one that can be enrolled.
#[must_use]
pub fn ak() -> Vec<u8> {
    let mut ak = AK.to_vec();
    // Size, type, nameAlg; then the attributes, noDA being bit 10.
    ak[8] |= 4;
    ak
}

/// Everything that a policy can say of IMA's signers.
#[must_use]
pub fn signers() -> Vec<u8> {
    let root = String::from_utf8_lossy(EK_ROOT);
    format!("{POLICY}signers = ['''{root}''']\n[ima.keyrings]\n\".ima\" = ['''{root}''']\n").into_bytes()
}

/// A Keylime runtime policy with something in each of its parts.
#[must_use]
pub fn keylime() -> Vec<u8> {
    let (digest, longer, weak) = ("01".repeat(32), "02".repeat(48), "03".repeat(20));
    let policy = serde_json::json!({
        "meta": {"version": 1, "generator": 3, "timestamp": "2026-01-01 00:00:00"},
        "release": 0,
        "digests": {"/usr/bin/a": [digest, longer], "/usr/bin/old": [weak], "boot_aggregate": ["00"]},
        "excludes": ["/tmp/.*"],
        "keyrings": {".ima": [digest]},
        "ima-buf": {"dm_table_load": [digest]},
        "ima": {"ignored_keyrings": [], "log_hash_alg": "sha256", "dm_policy": null},
        "verification-keys": "",
    });
    policy.to_string().into_bytes()
}

/// Between two files of one input.
pub const BREAK: &str = "\n# ----\n";

/// A bundle, and one that a machine after an update gives.
#[must_use]
pub fn rebased() -> Vec<u8> {
    let (old, new) = ("00".repeat(32), "01".repeat(32));
    let bundle = |digest: &str| {
        format!(
            "version = 4\nmodel = \"R340\"\n[[window]]\n[window.pcrs.sha256]\n0 = [\"{digest}\"]\n7 = [\"{old}\"]\n[window.ima]\n\"/usr/bin/a\" = [\"sha256:{digest}\"]\n"
        )
    };
    [bundle(&old), bundle(&new)].join(BREAK).into_bytes()
}

/// A boot and two manifests.
#[must_use]
pub fn host_log() -> Vec<u8> {
    let events = [
        Event::Boot { boot_id: BOOT_ID.to_owned(), hostd: "0.1.0".to_owned() },
        Event::Manifest { sha256: sha256(&[b"a"]) },
        Event::Manifest { sha256: sha256(&[b"b"]) },
    ];
    (0..).zip(&events).flat_map(|(number, event)| Record::encode(number, 13, event).0).collect()
}

/// One engine with something in each of its maps.
#[must_use]
pub fn manifest() -> Vec<u8> {
    let text = |text: &str| text.to_owned();
    let file = FileState::File { sha256: FileDigest([7; 32]), size: 9, mode: Mode(0o644), uid: 0, gid: 0 };
    let docker = EngineState {
        installed: true,
        binaries: BTreeMap::from([(text("/usr/bin/dockerd"), file.clone())]),
        configuration: BTreeMap::from([(text("/etc/docker/daemon.json"), file)]),
        runtimes: BTreeMap::from([(text("runc"), text("/usr/bin/runc"))]),
        settings: BTreeMap::from([(text("icc"), BTreeMap::from([(text("live"), Setting::Flag(false))]))]),
        unreadable: [Unreadable { what: text("api:/run/docker.sock"), why: text("absent") }].into(),
        ..EngineState::default()
    };
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::from([(text("docker"), docker)]) }
        .to_canonical()
}

/// A round with every part, the tag among them.
#[must_use]
pub fn evidence() -> Vec<u8> {
    let quote = SignedAttest { attest: B64(QUOTE.to_vec()), signature: B64(QUOTE_SIGNATURE.to_vec()) };
    let unanchored = Unanchored {
        nonce: Nonce([5; 32]),
        boot_id: BOOT_ID.to_owned(),
        hostd: "0.1.0".to_owned(),
        manifest: manifest(),
        facts: BTreeMap::from([
            ("kernel".to_owned(), "6.1.0".to_owned()),
            ("lockdown".to_owned(), "integrity".to_owned()),
        ]),
        sources: vec!["boot-log".to_owned()],
        tag: Some(TagEvidence { nv: tag(), nv_public: nv_public(), certification: quote.clone() }),
        inventory: br#"{"version":1,"engines":{}}"#.to_vec(),
    };
    let values = (0..16).map(|index| (index, Digest::zero(HashAlg::Sha256))).collect();
    let mut evidence = Evidence::new(unanchored, quote, BTreeMap::from([(HashAlg::Sha256, values)]));
    evidence.boot_log = vec![1; 64];
    evidence.ima.list = vec![2; 64];
    evidence.host_log = host_log();
    evidence.userspace_log = vec![3; 64];
    evidence.encode()
}

/// A permit; its signature is of the right shape only.
#[must_use]
pub fn token() -> Vec<u8> {
    let made = || {
        let text = |text: &str| text.to_owned();
        let label = "restricted:phi@hospital-a".parse().ok()?;
        let (host, node, pool, rule) = (text("host"), text("node-1"), text("phi-a"), text("phi-strict"));
        let (aud, issued_at, not_after) = (text(hostmark_attest::permit::AUDIENCE), 0, i64::MAX);
        PermitClaims { host, node, pool, label, rule, aud, issued_at, not_after, remaining_ms: 60_000, sequence: 1 }
            .sign(&Shape)
            .ok()
    };
    made().unwrap_or_default().into_bytes()
}

/// The body of an enrolment request.
#[must_use]
pub fn enrolment() -> Vec<u8> {
    let (ek_public, ak_public) = (B64(EK.to_vec()), B64(AK.to_vec()));
    let request =
        EnrolmentRequest { ek_public, ek_certificate: None, ek_intermediates: Vec::new(), ak_public, token: None };
    serde_json::to_vec(&request).unwrap_or_default()
}

/// TPMS_NV_PUBLIC of a tag's index.
#[must_use]
pub fn nv_public() -> Vec<u8> {
    NvPublic::of_tag(512).to_bytes()
}

/// What NV holds for a tag; its signature is of the right shape only.
#[must_use]
pub fn tag() -> Vec<u8> {
    let made = || {
        let ek = Name::parse(AK_NAME).ok()?;
        let label = "restricted:phi@hospital-a".parse().ok()?;
        let location = "jp-east/rack-7".to_owned();
        Tag { ek, serial: 3, label, location, not_before: 0, not_after: u64::from(u32::MAX) }.sign(&Shape).ok()
    };
    made().unwrap_or_default()
}

/// The key that made tokens name.
pub const KID: &str = "00112233445566778899aabbccddeeff";
/// No point of P-256: nothing verifies under it.
pub const POINT: &[u8] = &[4; 65];

/// Signatures of the right shape that nothing verifies.
struct Shape;

impl Signer for Shape {
    fn kid(&self) -> &str {
        KID
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Ok([9; 64])
    }
}

/// A record of systemd and one of a firmware, in JSON with record separators.
#[must_use]
pub fn cel_json() -> Vec<u8> {
    let digest = hex(&sha256(&[b"ready"]));
    let systemd = format!(
        "\u{1e}{{\"pcr\":11,\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"ready\",\"bootId\":\"x\",\"timestamp\":1,\"eventType\":\"phase\"}}}}\n"
    );
    let firmware = format!(
        "\u{1e}{{\"recnum\":0,\"pcr\":4,\"digests\":[{{\"hashAlg\":\"0x000b\",\"digest\":\"{digest}\"}}],\"content_type\":\"pcclient_std\",\"content\":{{\"event_type\":\"EV_ACTION\",\"event_data\":\"7265616479\"}}}}\n"
    );
    (systemd + &firmware).into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], (value.len() as u32).to_be_bytes().as_slice(), value].concat()
}

/// One record of each content in TLV.
#[must_use]
pub fn cel_tlv() -> Vec<u8> {
    let digests = tlv(3, &tlv(0x0b, &sha256(&[b"ready"])));
    let contents = [
        tlv(4, &tlv(1, &[tlv(0, &[1]), tlv(1, &[0])].concat())),
        tlv(5, &[tlv(0, &5u32.to_be_bytes()), tlv(1, b"ready")].concat()),
        tlv(7, &[tlv(0, b"ima-ng"), tlv(1, b"data")].concat()),
        tlv(80, b"other"),
    ];
    let record = |(number, content): (u64, &Vec<u8>)| {
        [tlv(0, &number.to_be_bytes()), tlv(1, &[4]), digests.clone(), content.clone()].concat()
    };
    (0..).zip(&contents).flat_map(record).collect()
}

/// A record in TLV; None for a content that this writer does not have.
#[must_use]
pub fn record_as_tlv(record: &cel::Record) -> Option<Vec<u8>> {
    let (kind, index) = match record.index {
        cel::Index::Pcr(pcr) => (1, pcr),
        cel::Index::Nv(index) => (2, index),
    };
    let digest = |one: &Digest| tlv(one.alg().to_tpm() as u8, one.as_bytes());
    let digests: Vec<u8> = record.digests.iter().flat_map(digest).collect();
    let (content, value) = match &record.content {
        cel::Content::PcClient { event_type, data } => (5, [tlv(0, &event_type.to_be_bytes()), tlv(1, data)].concat()),
        cel::Content::ImaTemplate { name, data } => (7, [tlv(0, name.as_bytes()), tlv(1, data)].concat()),
        _ => return None,
    };
    let number = tlv(0, &record.recnum?.to_be_bytes());
    Some([number, tlv(kind, &index.to_be_bytes()), tlv(3, &digests), tlv(content, &value)].concat())
}

/// Two records in CBOR, each with the other form of digests.
#[must_use]
pub fn cel_cbor() -> Vec<u8> {
    let digest = [&[0x0b, 0x58, 0x20], sha256(&[b"ready"]).as_slice()].concat();
    let record = |digests: &[u8], content: &[u8]| [&[0xa4, 0, 0, 1, 4, 3], digests, &digest, content].concat();
    let firmware = record(&[0xa1], b"\x05\xa2\x00\x05\x01\x45ready");
    let ima = record(&[0x81, 0x82], b"\x07\xa2\x00\x66ima-ng\x01\x44data");
    [&[0x82], firmware.as_slice(), &ima].concat()
}

/// A header of one SHA-384 bank and a separator in register 1.
#[must_use]
pub fn ccel() -> Vec<u8> {
    let mut log = [[0u8; 4], [3, 0, 0, 0]].concat();
    log.extend([0; 20]);
    log.extend([33, 0, 0, 0]);
    log.extend(b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0c\0\x30\0\0");
    log.extend([1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0x0c, 0]);
    log.extend([7; 48]);
    log.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    log
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [(bytes.len() as u32).to_le_bytes().as_slice(), bytes].concat()
}

/// The templates of more than three fields, with names, formats and fields as the kernel shows them.
fn templates() -> [(&'static str, Vec<Vec<u8>>, String); 4] {
    let hash = sha256(&[b"content"]);
    let (digest, path) = ([b"sha256:\0".as_slice(), &hash].concat(), b"/usr/bin/a b\0".to_vec());
    let sig = vec![3, 2, 4, 1, 2, 3, 4, 0, 3, 9, 9, 9];
    let (hash, shown) = (hex(&hash), hex(&sig));
    let names = b"security.ima|security.selinux\0".to_vec();
    let owner = [vec![0, 0, 0, 0], vec![0, 0, 0, 0], vec![0xed, 0x81]];
    let verity = [b"verity:".as_slice(), &digest].concat();
    [
        ("ima-sigv2", vec![verity, path.clone(), sig.clone()], format!("verity:sha256:{hash} /usr/bin/a b {shown}")),
        (
            "ima-modsig",
            vec![digest.clone(), path.clone(), sig.clone(), digest.clone(), vec![0x30, 0]],
            format!("sha256:{hash} /usr/bin/a b {shown} sha256:{hash} 3000"),
        ),
        (
            "evm-sig",
            [vec![digest.clone(), path.clone(), vec![5, 2], names, vec![1, 0, 0, 0], vec![7]], owner.to_vec()].concat(),
            format!("sha256:{hash} /usr/bin/a b 0502 security.ima|security.selinux 01000000 07 0 0 33261"),
        ),
        ("n-ng|d-ng|iuid", vec![path, digest, vec![0, 0, 0, 0]], format!("/usr/bin/a b sha256:{hash} 0")),
    ]
}

fn template_digest(fields: &[Vec<u8>]) -> Vec<u8> {
    let data: Vec<u8> = fields.iter().flat_map(|one| field(one)).collect();
    HashAlg::Sha1.hash(&[&data]).map(|digest| digest.as_bytes().to_vec()).unwrap_or_default()
}

/// A binary list of these templates.
#[must_use]
pub fn ima_templates() -> Vec<u8> {
    let entry = |(name, fields, _): &(&str, Vec<Vec<u8>>, String)| {
        let data: Vec<u8> = fields.iter().flat_map(|one| field(one)).collect();
        [&[10, 0, 0, 0], template_digest(fields).as_slice(), &field(name.as_bytes()), &field(&data)].concat()
    };
    templates().iter().flat_map(entry).collect()
}

/// The same in ascii.
#[must_use]
pub fn ima_templates_ascii() -> Vec<u8> {
    let line = |(name, fields, words): &(&str, Vec<Vec<u8>>, String)| {
        format!("10 {} {name} {words}\n", hex(&template_digest(fields))).into_bytes()
    };
    templates().iter().flat_map(line).collect()
}

#[cfg(test)]
mod tests {
    use hostmark_attest::ccel::CcEventLog;
    use hostmark_attest::cel::CelLog;
    use hostmark_attest::ima::ImaLog;

    #[test]
    fn made_logs_are_well_formed() {
        for (log, records) in [(super::cel_json(), 2), (super::cel_tlv(), 4), (super::cel_cbor(), 2)] {
            assert_eq!(CelLog::parse(&log).unwrap().records().len(), records);
        }
        assert_eq!(CcEventLog::parse(&super::ccel()).unwrap().events().len(), 2);
        for list in [super::ima_templates(), super::ima_templates_ascii()] {
            let log = ImaLog::parse(&list).unwrap();
            assert_eq!(log.entries().filter_map(|entry| entry.measurement()).count(), 4);
        }
    }
}
