//! `hostmark` without a verifier: the real binary on recorded boots, on tokens made here, on malformed files, and, where
//! HOSTMARK_EVIDENCE names them, on third-party logs and quotes.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hostmark_attest::jws::{self, SoftwareKey};
use hostmark_attest::permit::{AUDIENCE, PERMIT, PermitClaims};
use hostmark_attest::policy::REFERENCES;
use hostmark_verifier::keys::Keys;
use serde_json::{Value, json};

/// The raw qualifyingData of every recorded quote.
const NONCE: &str = "686f73746d61726b2d7265636f7264696e672d6e6f6e63652d303031";

/// What a run of the binary gave.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    /// Stdout is one JSON value and nothing else.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Exit 2, nothing on stdout, one line on stderr that holds every part.
    fn unusable(&self, parts: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert_eq!(self.err.matches('\n').count(), 1, "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part} in {}", self.err);
        }
    }
}

fn run_with(arguments: &[&str], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hostmark"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input closes the pipe first.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(arguments: &[&str]) -> Run {
    run_with(arguments, b"")
}

fn json_run(arguments: &[&str]) -> Run {
    run(&[arguments, &["--output", "json"]].concat())
}

fn recorded(boot: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attest/testdata/recorded").join(boot).join(file);
    path.to_str().unwrap().to_owned()
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

fn write(dir: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = path(dir, name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn ids(json: &Value) -> Vec<&str> {
    json["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

#[test]
fn recorded_boots_are_read() {
    for (boot, secure_boot, entries) in [
        ("plain", "off", 69),
        ("other-cmdline", "off", 69),
        ("secureboot", "on", 69),
        ("systemd", "off", 130),
        ("systemd-again", "off", 130),
    ] {
        let values = std::fs::read_to_string(recorded(boot, "pcrs.quoted.txt")).unwrap();
        let quoted = |pcr: usize| {
            let start = format!("sha256 {pcr} ");
            values.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
        };
        let seen = json_run(&["inspect", "boot-log", &recorded(boot, "boot-log.bin")]);
        let log = seen.json();
        assert_eq!((seen.code, &log["format"], &log["secure_boot"]), (0, &json!("crypto-agile"), &json!(secure_boot)));
        let keys: Vec<&String> = log.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["format", "events", "banks", "secure_boot", "findings"], "{boot}");
        for pcr in (0..8).chain([9]) {
            assert_eq!(log["banks"]["sha256"][pcr.to_string()], quoted(pcr), "{boot} PCR {pcr}");
        }
        let events = log["events"].as_u64().unwrap();
        let all = json_run(&["inspect", "boot-log", "-v", &recorded(boot, "boot-log.bin")]).json();
        assert_eq!(all["event_list"].as_array().unwrap().len() as u64, events, "{boot}");

        for file in ["ima.bin", "ima.txt"] {
            let seen = json_run(&["inspect", "ima", &recorded(boot, file)]);
            let list = seen.json();
            assert_eq!((seen.code, &list["entries"], &list["violations"]), (0, &json!(entries), &json!(0)), "{boot}");
            assert_eq!(list["templates"]["ima-sig"], entries, "{boot}");
            assert_eq!(list["pcr10"]["sha256"], quoted(10), "{boot}");
            assert_eq!(list["pcr10"]["sha1"].as_str().unwrap().len(), 40);
            let all = json_run(&["inspect", "ima", "-v", &recorded(boot, file)]).json();
            let all = all["entry_list"].as_array().unwrap();
            assert_eq!(
                (all.len() as u64, &all[0]["path"]),
                (list["entries"].as_u64().unwrap(), &json!("boot_aggregate"))
            );
            assert!(all[1]["digest"].as_str().unwrap().starts_with("sha256:"), "{}", all[1]);
            let last = all.last().unwrap()["path"].as_str().unwrap();
            assert!(run(&["inspect", "ima", "-v", &recorded(boot, file)]).out.contains(last), "{last}");
        }
    }
}

#[test]
fn an_event_whose_text_was_changed_is_a_warning_with_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = std::fs::read(recorded("systemd", "boot-log.bin")).unwrap();
    let honest = json_run(&["inspect", "boot-log", &recorded("systemd", "boot-log.bin")]).json();
    let about = |log: &Value| {
        let list = log["findings"].as_array().unwrap().clone();
        list.into_iter().find(|one| one["id"] == "boot.event-data-unauthenticated")
    };
    assert_eq!(about(&honest), None);
    let text = b"Calling EFI Application from Boot Option";
    let at = log.windows(text.len()).position(|part| part == text).unwrap();
    log[at] = b'F';
    let forged = write(&dir, "forged", &log);
    let seen = about(&json_run(&["inspect", "boot-log", &forged]).json()).unwrap();
    assert_eq!(seen["severity"], "warning", "{seen}");
    assert!(seen["found"].as_str().unwrap().starts_with("1 EV_EFI_ACTION (first: event "), "{seen}");
    // Without -v too: it is what the reader must not miss.
    let text = run(&["inspect", "boot-log", &forged]).out;
    assert!(text.contains("warning  boot.event-data-unauthenticated"), "{text}");
}

/// Arguments of `verify quote` for a recorded boot.
fn quote(boot: &str) -> Vec<String> {
    let file = |name| recorded(boot, name);
    let options = [
        ("--attest", file("quote.msg")),
        ("--signature", file("quote.sig")),
        ("--ak", file("ak.pub")),
        ("--pcrs", file("quote.pcrs")),
        ("--nonce", NONCE.to_owned()),
    ];
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    ["verify".to_owned(), "quote".to_owned()].into_iter().chain(options).collect()
}

#[test]
fn quotes_are_verified_or_refused_with_the_finding() {
    let dir = tempfile::tempdir().unwrap();
    let flip = |name: &str, from_end: usize| {
        let mut bytes = std::fs::read(recorded("plain", name)).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        write(&dir, name, bytes)
    };
    let selection = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,14";
    let rows: [(&str, String, &[&str]); 7] = [
        ("--select", selection.to_owned(), &[]),
        ("--select", "sha256:0,1,4,7".to_owned(), &["quote.selection"]),
        ("--select", format!("sha1:0+{selection}"), &["quote.selection"]),
        ("--nonce", "00".to_owned(), &["quote.nonce"]),
        ("--nonce", String::new(), &["quote.nonce"]),
        ("--ak", recorded("systemd", "ak.pub"), &["quote.signature"]),
        ("--signature", flip("quote.sig", 1), &["quote.signature"]),
    ];
    for boot in ["plain", "other-cmdline", "secureboot", "systemd", "systemd-again"] {
        let arguments = quote(boot);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let seen = json_run(&arguments);
        assert_eq!((seen.code, &seen.json()["verdict"]), (0, &json!("verified")), "{boot}: {seen:?}");
        // What was verified is said: who signed, over what, and when in the TPM's life.
        let quote = &seen.json()["quote"];
        let name = std::fs::read(recorded(boot, "ak.name")).unwrap();
        assert_eq!(quote["ak_name"], hex::encode(name), "{boot}");
        let values = std::fs::read_to_string(recorded(boot, "pcrs.quoted.txt")).unwrap();
        let pcr7 = values.lines().find_map(|line| line.strip_prefix("sha256 7 ")).unwrap();
        assert_eq!(quote["pcrs"]["sha256"]["7"], pcr7, "{boot}");
        assert!(quote["clock"].as_u64().unwrap() > 0 && quote["reset_count"].is_u64(), "{quote}");
        let text = run(&arguments).out;
        for part in
            ["AK name", "sha256:0,1,", quote["pcr_digest"].as_str().unwrap(), "resets", "restarts", "firmware   0x"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    for (option, value, expect) in rows {
        let mut arguments = quote("plain");
        match arguments.iter().position(|one| *one == option) {
            Some(at) => arguments[at + 1] = value.clone(),
            None => arguments.extend([option.to_owned(), value.clone()]),
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let seen = json_run(&arguments);
        let verdict = seen.json();
        let refusals = verdict["findings"].as_array().unwrap().iter().filter(|one| one["severity"] == "error");
        let refusals: Vec<&str> = refusals.map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(refusals, expect, "{option} {value}");
        assert_eq!(seen.code, i32::from(!expect.is_empty()), "{option} {value}");
        assert_eq!(
            verdict.get("quote").is_some(),
            expect.is_empty(),
            "nothing of a refused quote is shown as verified"
        );
        assert_eq!(verdict["verdict"], if expect.is_empty() { "verified" } else { "refused" });
        for finding in verdict["findings"].as_array().unwrap() {
            let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["id", "severity", "message", "expected", "found", "fix"]);
        }
        // People see the same.
        let text = run(&arguments);
        assert_eq!(text.code, seen.code);
        assert!(expect.iter().all(|id| text.out.contains(id)), "{}", text.out);
        assert!(!text.out.contains('\u{1b}'), "no colour into a pipe");
        assert_eq!(run(&[arguments.as_slice(), &["--quiet"]].concat()).out, "");
    }
}

#[test]
fn any_canonical_event_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    // What systemd-pcrextend writes for the word `ready`: SHA-256 of its five letters.
    let digest = "b24d6d33736ecd5604a4b17bc9c6481039fac362bb7df044ef1c10a2bfd21db6";
    let systemd = format!(
        "\u{1e}{{\"pcr\":11,\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"ready\",\"eventType\":\"phase\"}}}}\n"
    );
    // Number 0, PCR 4, no digest, an event of type 4 with four zeros.
    let tlv = b"\0\0\0\0\x01\0\x01\0\0\0\x01\x04\x03\0\0\0\0\x05\0\0\0\x12\0\0\0\0\x04\0\0\0\x04\x01\0\0\0\x04\0\0\0\0";
    for (bytes, format, index, authenticated) in
        [(systemd.as_bytes(), "cel-json", "pcr 11", "whole"), (tlv, "cel-tlv", "pcr 4", "elsewhere")]
    {
        let file = write(&dir, "log", bytes);
        let seen = json_run(&["inspect", "cel", &file, "-v"]);
        assert_eq!(seen.code, 0, "{}", seen.err);
        let json: Value = serde_json::from_str(&seen.out).unwrap();
        assert_eq!((&json["format"], &json["events"]), (&format.into(), &1.into()));
        assert_eq!(json["event_list"][0]["index"], index);
        assert_eq!(json["event_list"][0]["authenticated"], authenticated);
        assert!(run(&["inspect", "cel", &file, "-v"]).out.contains(index));
    }
    let file = write(&dir, "log", &tlv[..20]);
    run(&["inspect", "cel", &file]).unusable(&[&file, "at byte "]);
}

/// A record as systemd-pcrextend writes it, with some digest.
fn systemd_record(pcr: u8, text: &str) -> String {
    let digest = "00".repeat(32);
    format!(
        "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{text}\"}}}}\n"
    )
}

#[test]
fn a_log_of_another_kind_is_told_with_the_command_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let boot = std::fs::read(recorded("plain", "boot-log.bin")).unwrap();
    let list = std::fs::read(recorded("plain", "ima.bin")).unwrap();
    let systemd = systemd_record(11, "ready");
    let rows: [(&str, &[u8], &str); 6] = [
        ("cel", &boot, "boot-log"),
        ("cel", &list, "ima"),
        ("boot-log", &list, "ima"),
        ("boot-log", systemd.as_bytes(), "cel"),
        ("ima", &boot, "boot-log"),
        ("ima", systemd.as_bytes(), "cel"),
    ];
    for (command, bytes, other) in rows {
        let file = write(&dir, "log", bytes);
        run(&["inspect", command, &file]).unusable(&["at byte ", &format!("hostmark inspect {other} {file}")]);
        assert_eq!(run(&["inspect", other, &file]).code, 0, "{command}");
    }
    // What is broken and of the right kind is not sent around in a circle.
    let file = write(&dir, "log", br#"{"recnum":0,"pcr":13,"digests":[],"content_type":"hostmark","content":""}"#);
    assert!(!run(&["inspect", "cel", &file]).err.contains("hostmark inspect"));
}

#[test]
fn what_is_malformed_is_named_with_its_byte() {
    let dir = tempfile::tempdir().unwrap();
    let log = std::fs::read(recorded("plain", "boot-log.bin")).unwrap();
    let list = std::fs::read(recorded("plain", "ima.bin")).unwrap();
    let cel = r#"{"recnum":0,"pcr":13}"#.to_owned() + "\n";
    let rows: [(&str, &[u8], &str); 8] = [
        ("boot-log", b"", "at byte 0: "),
        ("boot-log", &log[..20], "at byte 8: "),
        ("boot-log", &log[..log.len() - 3], "at byte "),
        ("boot-log", b"#!/bin/sh\necho this is no log, but long enough\n", "at byte "),
        ("ima", &list[..list.len() - 1], "at byte "),
        ("ima", b"10 zz ima-ng sha1:00 /x\n", "at byte "),
        ("cel", cel.as_bytes(), "at byte "),
        ("cel", b"\n", "at byte 0: "),
    ];
    for (what, bytes, at) in rows {
        let file = write(&dir, "input", bytes);
        for output in ["json", "text"] {
            run(&["inspect", what, &file, "--output", output]).unusable(&[&file, at]);
        }
        run_with(&["inspect", what, "-"], bytes).unusable(&["hostmark: -: ", at]);
    }
    for (option, bytes, at) in [
        ("--attest", &b"\xffTCG\x80\x18\x00\x22"[..], "at byte 8: "),
        ("--attest", b"\xffTCG", "at byte 4: "),
        ("--signature", b"\x00", "at byte 0: "),
        ("--ak", b"", "at byte 0: "),
        ("--ak", b"\x00\x01", "at byte "),
        ("--pcrs", b"short", "at byte 0: "),
    ] {
        let file = write(&dir, "input", bytes);
        let mut arguments = quote("plain");
        let at_option = arguments.iter().position(|one| one == option).unwrap();
        arguments[at_option + 1].clone_from(&file);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&arguments).unusable(&[&file, at]);
    }
}

#[test]
fn only_files_are_read_and_only_to_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = path(&dir, "fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let folder = dir.path().to_str().unwrap();
    run(&["inspect", "boot-log", folder]).unusable(&[folder, "is a directory"]);
    run(&["inspect", "boot-log", &fifo]).unusable(&[&fifo, "is a pipe"]);
    run(&["inspect", "ima", "/dev/zero"]).unusable(&["/dev/zero", "is a device"]);
    run(&["inspect", "ima", "/nowhere/at all"]).unusable(&["/nowhere/at all", "No such file"]);
    run(&["inspect", "ima", "/nowhere/a\nb"]).unusable(&["/nowhere/a\\u{a}b"]);
    let big = path(&dir, "big");
    std::fs::File::create(&big).unwrap().set_len(1 << 40).unwrap();
    run(&["inspect", "boot-log", &big]).unusable(&[&big, "at byte 16777216: ", "at most 16777216 bytes"]);
    let log = std::fs::read(recorded("plain", "boot-log.bin")).unwrap();
    assert_eq!(run_with(&["inspect", "boot-log", "-"], &log).code, 0);
    run_with(
        &["verify", "quote", "--attest", "-", "--signature", "-", "--ak", "-", "--pcrs", "-", "--nonce", "00"],
        &log,
    )
    .unusable(&["once"]);
    let usage = run(&["inspect", "boot-log"]);
    assert_eq!((usage.code, usage.out.as_str()), (2, ""));
    assert_eq!(run(&["--help"]).code, 0);
    assert_eq!(run(&["no-such-noun"]).code, 2);
    assert_eq!(run(&["verify", "quote", "--nonce", "zz"]).code, 2);
}

#[test]
fn a_reader_that_leaves_changes_no_verdict() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hostmark"))
        .args(["inspect", "boot-log", "-v", &recorded("systemd", "boot-log.bin")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

/// A verifier's keys, its JWKS file, and a directory for them.
fn verifier_keys(dir: &tempfile::TempDir) -> (Keys, String) {
    let keys = Keys::create(&dir.path().join("state")).unwrap();
    let jwks = write(dir, "jwks.json", json!({ "keys": keys.jwks() }).to_string());
    (keys, jwks)
}

fn permit(issued_at: i64) -> PermitClaims {
    PermitClaims {
        host: "8d9f6b1e-7c3b-4d0e-9a55-9f6f2d1c0b7a".into(),
        node: "node-1".into(),
        pool: "phi-a".into(),
        label: "restricted:phi@hospital-a".parse().unwrap(),
        rule: "phi-strict".into(),
        aud: AUDIENCE.into(),
        issued_at,
        not_after: issued_at + 60_000,
        remaining_ms: 60_000,
        sequence: 1,
    }
}

#[test]
fn a_permit_counts_for_its_node_and_pool_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, jwks) = verifier_keys(&dir);
    let start = 1_800_000_000;
    let token = permit(start * 1000).sign(&keys.permits).unwrap();
    let by_results_key = permit(start * 1000).sign(&keys.results).unwrap();
    let unlimited = {
        let mut claims = serde_json::to_value(permit(start * 1000)).unwrap();
        claims.as_object_mut().unwrap().remove("not_after");
        jws::sign(&PERMIT, &serde_json::to_vec(&claims).unwrap(), &keys.permits).unwrap()
    };
    let file = write(&dir, "permit", format!("{token}\n"));
    let edited = {
        let other = PermitClaims { pool: "phi-b".into(), ..permit(start * 1000) }.sign(&keys.permits).unwrap();
        let (mine, other): (Vec<&str>, Vec<&str>) = (token.split('.').collect(), other.split('.').collect());
        [mine[0], other[1], mine[2]].join(".")
    };
    let rows: [(&str, &str, &[&str], &[&str]); 11] = [
        (&token, "1800000001", &[], &[]),
        (&file, "2027-01-15T08:00:59Z", &["--node", "node-1", "--pool", "phi-a"], &[]),
        (&token, "2027-01-15T09:01:00+01:00", &[], &["permit.expired"]),
        (&token, "1799999990", &[], &["permit.not-yet"]),
        (&token, "1800000001", &["--node", "node-2"], &["permit.node"]),
        (&token, "1800000001", &["--pool", "phi-b"], &["permit.pool"]),
        (&token, "1800000001", &["--node", "x", "--pool", "y"], &["permit.node", "permit.pool"]),
        (&by_results_key, "1800000001", &[], &["permit.key"]),
        (&unlimited, "1800000001", &[], &["permit.claims"]),
        (&edited, "1800000001", &[], &["permit.signature"]),
        ("eyJhbGciOiJub25lIn0.e30.", "1800000001", &[], &["permit.algorithm"]),
    ];
    for (given, at, more, expect) in rows {
        let arguments = [&["verify", "permit", given, "--keys", &jwks, "--at", at][..], more].concat();
        let seen = json_run(&arguments);
        let verdict = seen.json();
        assert_eq!(ids(&verdict), expect, "{arguments:?}");
        assert_eq!(seen.code, i32::from(!expect.is_empty()), "{arguments:?}");
        assert_eq!(verdict.get("permit").is_some(), expect.is_empty());
    }
    let text = run(&["verify", "permit", &token, "--keys", &jwks, "--at", "1800000001"]).out;
    assert!(text.contains("phi-a") && text.contains("2027-01-15T08:01:00Z"), "{text}");

    for (bad, at) in [("x", "at byte 1: "), ("eyJ9.x.y.z", "at byte 8: "), ("a.b c.d", "at byte 3: ")] {
        let file = write(&dir, "bad", bad);
        run(&["verify", "permit", &file, "--keys", &jwks]).unusable(&[&file, at]);
    }
    for (bad, part) in [("{", "at byte "), ("[]", "at byte 0: "), ("{\"keys\":[]}", "no ES256 key for permits")] {
        let file = write(&dir, "bad.json", bad);
        run(&["verify", "permit", &token, "--keys", &file]).unusable(&[&file, part]);
    }
    assert_eq!(run(&["verify", "permit", &token, "--keys", &jwks, "--at", "yesterday"]).code, 2);
    // A permit is no result, nor the other way round.
    let seen = json_run(&["verify", "result", &token, "--keys", &jwks, "--host", "h", "--at", "1800000001"]);
    assert_eq!((seen.code, ids(&seen.json())), (1, vec!["result.purpose"]));
}

#[test]
fn references_are_captured_compared_and_signed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, key) = (path(&dir, "one.toml"), path(&dir, "two.toml"), path(&dir, "signer.pem"));
    let three = path(&dir, "three.toml");
    let capture = |boot: &str, out: &str| {
        let (log, list) = (recorded(boot, "boot-log.bin"), recorded(boot, "ima.bin"));
        assert_eq!(run(&["refs", "capture", "--boot-log", &log, "--ima", &list, "-o", out]).code, 0);
    };
    capture("systemd", &one);
    capture("systemd-again", &two);
    let same = json_run(&["refs", "diff", &one, &two]);
    assert_eq!((same.code, &same.json()["changes"]), (0, &json!([])), "two boots of one image have one reference");
    capture("secureboot", &three);
    let other = json_run(&["refs", "diff", &one, &three]);
    assert_eq!(other.code, 1);
    let changes = other.json()["changes"].to_string();
    assert!(changes.contains("window[0].pcrs.sha256.7"), "{changes}");
    let printed = run(&["refs", "capture", "--boot-log", &recorded("systemd", "boot-log.bin"), "--version", "7", "-q"]);
    assert!(printed.out.starts_with("version = 7\n"), "{printed:?}");
    assert_eq!(run(&["refs", "capture"]).code, 2);
    // systemd's log adds the identity of this one machine, and leaves the image's part of PCR 11 as it is.
    let identity = write(&dir, "tpm2-measure.log", systemd_record(15, "machine-id:0123").as_bytes());
    let four = path(&dir, "four.toml");
    let from = ["refs", "capture", "--boot-log", &recorded("systemd", "boot-log.bin"), "--userspace-log", &identity];
    assert_eq!(run(&[&from[..], &["--ima", &recorded("systemd", "ima.bin"), "-o", &four]].concat()).code, 0);
    let changes = json_run(&["refs", "diff", &one, &four]).json()["changes"].clone();
    assert_eq!(changes.as_array().unwrap().len(), 1, "{changes}");
    assert!(changes.to_string().contains("pcrs.sha256.15"), "{changes}");
    run(&["refs", "capture", "--boot-log", &recorded("systemd", "boot-log.bin"), "--userspace-log", &one])
        .unusable(&[&one, "at byte "]);

    assert_eq!(run(&["key", "create", &key]).code, 0);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    run(&["key", "create", &key]).unusable(&["exists"]);
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let signed = json_run(&["refs", "sign", &one, "--key", &key]);
    assert_eq!(signed.code, 0, "{signed:?}");
    let shown = json_run(&["key", "show", &key]).json();
    assert_eq!(shown["kid"], signed.json()["kid"]);
    assert_eq!(shown["public_pem"], std::fs::read_to_string(format!("{key}.pub")).unwrap());
    let pair = rcgen::KeyPair::from_pem(&String::from_utf8(before).unwrap()).unwrap();
    let public = SoftwareKey::from_pkcs8(pair.serialized_der()).unwrap();
    let mut trusted = jws::KeySet::new();
    trusted.insert(shown["kid"].as_str().unwrap(), public.point());
    let signature = std::fs::read_to_string(format!("{one}.sig")).unwrap();
    let text = std::fs::read(&one).unwrap();
    jws::verify_detached(&REFERENCES, &text, &signature, &trusted).unwrap();
    assert!(jws::verify_detached(&REFERENCES, &text[1..], &signature, &trusted).is_err());

    let public = format!("{key}.pub");
    run(&["refs", "sign", &one, "--key", &public]).unusable(&[
        &public,
        "is the public half",
        &format!("private key, {key}\n"),
    ]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    run(&["refs", "sign", &one, "--key", &key]).unusable(&["chmod 600"]);
    run(&["policy", "sign", &one, "--key", &key]).unusable(&["refs sign"]);
}

#[test]
fn references_name_the_files_of_a_root_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for (name, content) in
        [("usr/lib/libx.so.1", &b"\x7fELF x"[..]), ("etc/docker/daemon.json", b"{}"), ("readme", b"no")]
    {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    let (root, out) = (root.display().to_string(), path(&dir, "files.toml"));
    let written = json_run(&["refs", "ima", &root, "--also", "/etc/docker", "--version", "3", "-o", &out]);
    assert_eq!((written.code, &written.json()["files"]), (0, &2.into()), "{written:?}");
    // What was written is a bundle, and names each file by its path on the host and its digest.
    let text = std::fs::read_to_string(&out).unwrap();
    let digest = hex::encode(hostmark_attest::digest::sha256(&[b"{}"]));
    assert!(text.contains(&format!("\"/etc/docker/daemon.json\" = [\"sha256:{digest}\"]")), "{text}");
    assert!(hostmark_attest::policy::References::parse("files", &text).is_ok(), "{text}");
    run(&["refs", "ima", &root, "--also", "/etc/../x"]).unusable(&["as it is on the host"]);
    run(&["refs", "ima", &root, "--also", "/etc/podman"]).unusable(&["no such file"]);
    run(&["refs", "ima", &path(&dir, "nowhere")]).unusable(&["nowhere"]);
}

#[test]
fn policies_are_checked_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let configs = configs.to_str().unwrap();
    let good = json_run(&["policy", "check", configs]);
    assert_eq!((good.code, &good.json()["valid"]), (0, &json!(true)), "{good:?}");
    let strict = format!("{configs}/admission/phi-strict.toml");
    let text = std::fs::read_to_string(&strict).unwrap();
    let looser = write(&dir, "looser.toml", text.replace("\"affirming\"", "\"warning\""));
    assert_eq!(run(&["policy", "diff", &strict, &strict]).code, 0);
    let changed = json_run(&["policy", "diff", &strict, &looser]);
    assert_eq!(changed.code, 1);
    assert!(changed.json()["changes"][0]["key"].as_str().unwrap().starts_with("tiers."), "{changed:?}");
    run(&["policy", "diff", &strict, &format!("{configs}/pools/lab.toml")]).unusable(&["one kind"]);

    let rows: [(&str, &[&str]); 5] = [
        ("requires_appraisal = \"x\"\nunheard_of = 1\n", &["line 2, column 1", "unheard_of"]),
        ("version = \n", &["line 1, column "]),
        ("a = 1\n", &["cannot tell what it is"]),
        ("version = 1\nreferences = []\npcrs = { sha256 = [0, 1] }\n", &["policy.boot-pcrs"]),
        ("version = 1\n[[window]]\npcrs.sha256.1 = []\n", &["references.invalid", "PCR 1"]),
    ];
    for (text, parts) in rows {
        let file = write(&dir, "bad.toml", text);
        run(&["policy", "check", &file, "-q"]).unusable(&[&[file.as_str()], parts].concat());
        let seen = json_run(&["policy", "check", &file, &strict]);
        let view = seen.json();
        assert_eq!((seen.code, &view["valid"], &view["files"][1]["valid"]), (2, &json!(false), &json!(true)));
    }
    let binary = write(&dir, "bad.toml", b"a = \"\xff\"");
    run(&["policy", "check", &binary, "-q"]).unusable(&["at byte 5: "]);
}

fn evidence() -> Option<PathBuf> {
    let root = std::env::var_os("HOSTMARK_EVIDENCE").map(PathBuf::from);
    if root.is_none() {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
    }
    root
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    list.sort();
    list
}

#[test]
fn third_party_logs_are_read() {
    let Some(root) = evidence() else { return };
    let known: Value =
        serde_json::from_slice(&std::fs::read(root.join("eventlog/_replayed_pcrs.dev.json")).unwrap()).unwrap();
    let (mut logs, mut lists) = (0, 0);
    for file in files(&root.join("eventlog")) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let seen = json_run(&["inspect", "boot-log", file.to_str().unwrap()]);
        let Some(other) = known["logs"].get(format!("eventlog/{name}")) else {
            assert!(matches!(seen.code, 0 | 2), "{seen:?}");
            continue;
        };
        if name.ends_with("-bogus") {
            seen.unusable(&["at byte 32: "]);
            continue;
        }
        assert_eq!(seen.code, 0, "{name}: {}", seen.err);
        let log = seen.json();
        assert_eq!(log["events"], other["events"], "{name}");
        for (bank, values) in log["banks"].as_object().unwrap() {
            for (pcr, value) in values.as_object().unwrap() {
                // The other parser starts PCR 17 to 22 at zero.
                if !(17..23).contains(&pcr.parse::<u8>().unwrap()) {
                    assert_eq!(*value, other["pcrs"][bank][pcr], "{name} {bank} {pcr}");
                }
            }
        }
        logs += 1;
    }
    for file in files(&root.join("ima")) {
        let seen = json_run(&["inspect", "ima", file.to_str().unwrap()]);
        if file.ends_with("keylime__ima_ast_samples") {
            seen.unusable(&["at byte 1971: "]);
            continue;
        }
        assert_eq!(seen.code, 0, "{seen:?}");
        assert!(seen.json()["entries"].as_u64().unwrap() > 0, "{seen:?}");
        lists += 1;
    }
    println!("{logs} boot logs, {lists} IMA lists");
    assert!(logs >= 50 && lists >= 15, "{logs} {lists}");
}

#[test]
fn third_party_quotes_give_their_outcome() {
    let Some(root) = evidence() else { return };
    let folder = root.join("quote");
    let dir = tempfile::tempdir().unwrap();
    let (mut verified, mut refused, mut skipped) = (0, 0, 0);
    for meta in files(&folder) {
        let Some(name) = meta.file_name().unwrap().to_str().unwrap().strip_suffix(".meta.json").map(str::to_owned)
        else {
            continue;
        };
        let meta: Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
        let file = |endings: &[&str]| {
            let path = endings.iter().map(|ending| folder.join(format!("{name}.{ending}"))).find(|path| path.exists());
            path.map(|path| path.to_str().unwrap().to_owned())
        };
        let Some(ak) = file(&["ak.pem"]) else {
            println!("skipped: {name}: no AK is known");
            skipped += 1;
            continue;
        };
        let serialized = file(&["quotepcr.tools.bin", "pcrblob.tools.bin"]);
        let mut values = Vec::new();
        let mut complete = true;
        for one in meta["attest"]["pcrSelect"].as_array().unwrap() {
            let bank = one["bank"].as_str().unwrap();
            for pcr in one["pcrs"].as_array().unwrap() {
                match meta["pcrs"][bank][pcr.to_string()].as_str() {
                    Some(value) => values.extend(hex::decode(value).unwrap()),
                    None => complete = false,
                }
            }
        }
        if !complete && serialized.is_none() {
            println!("skipped: {name}: its PCR values are not known");
            skipped += 1;
            continue;
        }
        let pcrs = serialized.unwrap_or_else(|| write(&dir, "values", &values));
        let nonce = meta["nonce_hex"].as_str().unwrap();
        let (attest, signature) = (file(&["quote.bin"]).unwrap(), file(&["sig.bin", "sig.raw"]).unwrap());
        let arguments = |nonce| {
            json_run(&[
                "verify",
                "quote",
                "--attest",
                &attest,
                "--signature",
                &signature,
                "--ak",
                &ak,
                "--pcrs",
                &pcrs,
                "--nonce",
                nonce,
            ])
        };
        let seen = arguments(nonce);
        let bad = meta["collector_verification"].to_string().contains("signature INVALID");
        let verdict = seen.json();
        assert_eq!(
            (seen.code, verdict["verdict"].as_str().unwrap()),
            if bad { (1, "refused") } else { (0, "verified") },
            "{name}: {seen:?}"
        );
        if bad {
            refused += 1
        } else {
            verified += 1
        }
        let other = arguments(&format!("{nonce}00"));
        assert_eq!(other.code, 1, "{name}");
        assert!(ids(&other.json()).contains(&"quote.nonce"), "{name}");
    }
    println!("{verified} verified, {refused} refused as told, {skipped} skipped");
    assert!(verified >= 12, "{verified}");
}
