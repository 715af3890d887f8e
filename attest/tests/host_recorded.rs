//! Boots of the host image (images/host): systemd as PID 1, engines, hostd, a container; honest twice and tampered once.
//!
//! What a quote and logs of such a host look like as they come: TCG2 boot log, systemd's boot phases in PCR 11 without a log, and
//! an IMA list that begins under the kernel's `tcb` policy and shows the loading of ours. `appraisal_recorded` judges hosts.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its recordings"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hostmark_attest::boot_log::{BootLog, SecureBoot};
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::ima::{ImaLog, ImaPosition, ImaQuirks, check_boot_aggregate, replay_prefix};
use hostmark_attest::kernel_parameters::Lockdown;
use hostmark_attest::predict::Phase;
use hostmark_attest::quote::{GenuineQuote, QuoteExpectation, verify_quote};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tools::read_serialized_pcrs;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signed::Signer;
use time::OffsetDateTime;
use time::macros::datetime;

const BOOTS: [&str; 3] = ["host", "host-again", "host-tampered"];
const SELECTION: &str = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";
const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
/// What the image adds to the shipped policy: reads from the engine configuration's file system.
const ENGINE_RULE: &str = "measure func=FILE_CHECK mask=MAY_READ fsuuid=6d726b68-6f73-4d00-8000-000000000012\n";

fn read(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn public(boot: &str, file: &str) -> Public {
    Public::parse_tpm2b(&read(&format!("{boot}/{file}"))).unwrap()
}

fn quote(boot: &str) -> GenuineQuote {
    let (ek, ak) = (public(boot, "ek.pub"), public(boot, "ak.pub"));
    let nonce = hex::decode(String::from_utf8(read(&format!("{boot}/nonce"))).unwrap().trim()).unwrap();
    let values = read_serialized_pcrs(&read(&format!("{boot}/quote.pcrs"))).unwrap().unwrap();
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: &ak, ek_name: ek.name() },
        selection: &PcrSelection::from_text(SELECTION).unwrap(),
        qualifying_data: &nonce,
    };
    let (message, signature) = (read(&format!("{boot}/quote.msg")), read(&format!("{boot}/quote.sig")));
    let (quote, findings) = verify_quote(&message, &signature, &values, &expect).unwrap();
    assert!(findings.as_slice().iter().all(|finding| finding.id == "quote.clock-safe"), "{boot}: {findings:?}");
    quote
}

/// Path and digest of each entry; dockerd's probes lie at paths that are new at each start.
fn files(boot: &str) -> Vec<(String, Digest)> {
    let bytes = read(&format!("{boot}/ima.bin"));
    let log = ImaLog::parse(&bytes).unwrap();
    let files = log.entries().map(|entry| {
        let file = entry.measurement().unwrap();
        (file.path_lossy().into_owned(), file.file_digest().unwrap())
    });
    files.collect()
}

#[test]
fn ek_ak_and_quote_are_as_hostd_makes_them() {
    let mut bundle = TrustBundle::new();
    for file in ["host/swtpm-localca-rootca-cert.pem", "host/issuercert.pem"] {
        bundle.add(TpmClass::Simulated, &read(file)).unwrap();
    }
    let mut tpms = BTreeSet::new();
    for boot in BOOTS {
        let certificate = read(&format!("{boot}/ekcert-rsa.der"));
        let ek = verify_ek(&public(boot, "ek.pub"), Some(&certificate), &[], &bundle, NOW).unwrap();
        assert_eq!(ek.class(), TpmClass::Simulated, "{boot}");
        assert!(tpms.insert(*ek.id()), "{boot}: each boot has a TPM of its own");
        assert!(verify_ak(&public(boot, "ak.pub")).is_ok(), "{boot}");
        quote(boot);
    }
}

#[test]
fn the_boot_log_explains_every_pcr_but_the_unlogged_phases() {
    let mut values = BTreeSet::new();
    for boot in BOOTS {
        let log = BootLog::parse(&read(&format!("{boot}/boot-log.bin"))).unwrap();
        let quoted = quote(boot).pcrs()[&HashAlg::Sha256].clone();
        let findings = log.compare(HashAlg::Sha256, &quoted, (0..=15).filter(|index| ![10, 11].contains(index)));
        assert_eq!(findings.as_slice(), [], "{boot}");
        let (claims, findings) = log.claims(HashAlg::Sha256);
        assert_eq!(claims.secure_boot, SecureBoot::Off, "{boot}: {findings:?}");

        let line = String::from_utf8(read(&format!("{boot}/cmdline"))).unwrap();
        assert!(log.confirm_command_line(HashAlg::Sha256, &line).is_some(), "{boot}");
        assert_eq!(Lockdown::of(&line), Lockdown::Integrity);
        assert!(line.contains(" ima_policy=tcb ") && line.contains(" sysctl.kernel.yama.ptrace_scope=3 "), "{line}");

        // A busybox initrd says no word; systemd says two by the time that services run.
        let stub = log.replay_bank(HashAlg::Sha256)[&11];
        let ready = ["sysinit", "ready"]
            .into_iter()
            .fold(stub, |value, word| value.extend(&HashAlg::Sha256.hash(&[word.as_bytes()]).unwrap()).unwrap());
        assert_eq!(quoted[&11], ready, "{boot}");
        assert_eq!(Phase::Ready.words(false).collect::<Vec<_>>(), ["sysinit", "ready"]);
        values.insert(quoted.into_iter().filter(|(index, _)| *index != 10).collect::<Vec<_>>());
    }
    assert_eq!(values.len(), 1, "one disk, three TPMs: what is tampered with at run time shows in no boot PCR");
}

#[test]
fn the_ima_list_shows_its_own_policy_before_anything_that_a_unit_did() {
    let shipped = include_str!("../../configs/ima/container-host.policy");
    let policy = Digest::new(HashAlg::Sha256, &sha256(&[shipped.as_bytes(), ENGINE_RULE.as_bytes()])).unwrap();
    for boot in BOOTS {
        let bytes = read(&format!("{boot}/ima.bin"));
        let log = ImaLog::parse(&bytes).unwrap();
        let quote = quote(boot);
        let pcr10 = BTreeMap::from([(HashAlg::Sha256, quote.pcrs()[&HashAlg::Sha256][&10])]);
        let prefix = replay_prefix(&log, &ImaPosition::default(), &pcr10, ImaQuirks::default()).unwrap();
        assert_eq!((prefix.verified(), prefix.tail()), (log.len(), 0), "{boot}");
        assert_eq!(prefix.findings().as_slice(), [], "{boot}");
        assert_eq!(check_boot_aggregate(prefix.entries().next().as_ref(), quote.pcrs()).as_slice(), [], "{boot}");

        let files = files(boot);
        let (at, digest) =
            files.iter().position(|(path, _)| path == "/etc/ima/ima-policy").map(|at| (at, files[at].1)).unwrap();
        assert_eq!((at, digest), (28, policy), "{boot}");
        // Before it the kernel measured what PID 1 needs, after it only what the policy names: nothing that is merely read, but
        // for the engines' configuration on its own file system.
        let read_only: Vec<&str> =
            files[at + 1..].iter().map(|(path, _)| path.as_str()).filter(|path| path.starts_with("/etc/")).collect();
        assert_eq!(read_only, ["/etc/containerd/config.toml", "/etc/docker/daemon.json"], "{boot}");
    }
}

#[test]
fn run_time_tampering_is_in_the_list_and_its_honest_twin_is_not() {
    let digests = |boot: &str, path: &str| -> Vec<Digest> {
        files(boot).into_iter().filter(|(found, _)| found == path).map(|(_, digest)| digest).collect()
    };
    let honest = digests("host", "/usr/sbin/runc");
    for boot in ["host", "host-again"] {
        assert_eq!(digests(boot, "/dev/shm/dropped"), [], "{boot}");
        assert_eq!(digests(boot, "/usr/sbin/runc"), honest, "{boot}");
    }
    // A copy of a program that is known: its digest alone would not tell.
    let dropped = digests("host-tampered", "/dev/shm/dropped");
    assert_eq!(dropped.len(), 1);
    let runc = digests("host-tampered", "/usr/sbin/runc");
    assert_eq!(
        (runc.len(), runc[0]),
        (2, honest[0]),
        "the true one ran when dockerd started, the other with the container"
    );

    let known: BTreeSet<Digest> = files("host").into_iter().skip(1).map(|(_, digest)| digest).collect();
    let unknown: Vec<String> = files("host-again")
        .into_iter()
        .skip(1)
        .filter(|(_, digest)| !known.contains(digest))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(unknown, Vec::<String>::new(), "two honest boots run the same files");
}
