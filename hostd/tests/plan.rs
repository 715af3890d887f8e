//! `hostd plan` and `hostd explain` as programs: exit codes, tables, JSON, errors. The host is a directory that the test makes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use hostmark_attest::jws::{SoftwareKey, sign_detached};
use hostmark_attest::profile::WAIVER;
use serde_json::Value;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Exit code, standard output, standard error of a command on a root and a directory of profiles.
fn hostd(root: &Path, profiles: &Path, arguments: &[&str]) -> (i32, String, String) {
    let state = root.join("none.toml");
    std::fs::write(&state, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hostd"))
        .args(arguments)
        .arg("--config")
        .arg(&state)
        .arg("--root")
        .arg(root)
        .arg("--profiles")
        .arg(profiles)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Docker, with two settings that baseline and hardened want otherwise.
fn docker(root: &Path) {
    put(root, "usr/sbin/dockerd", "dockerd");
    put(root, "etc/docker/daemon.json", r#"{"iptables": false, "icc": true}"#);
}

/// One control of the shipped baseline for Docker.
fn control(id: &str) -> String {
    let all = std::fs::read_to_string(shipped().join("docker/baseline.toml")).unwrap();
    let start = all.find(&format!("[[control]]\nid = \"{id}\"")).unwrap();
    let end = all[start..].find("\n\n").unwrap();
    all[start..start.saturating_add(end)].to_owned()
}

fn shipped() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/profiles")
}

#[test]
fn a_plan_says_from_and_to_and_its_exit_code_whether_anything_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (root, profiles) = (dir.path().join("root"), dir.path().join("profiles"));
    docker(&root);
    put(&profiles, "docker/baseline.toml", &control("docker.iptables"));

    let (code, table, _) = hostd(&root, &profiles, &["plan", "docker/baseline"]);
    assert_eq!(code, 1, "{table}");
    assert!(table.contains("/etc/docker/daemon.json: iptables: false (/etc/docker/daemon.json) → true"), "{table}");
    assert!(table.contains("engine-restart") && table.contains("1 to change"), "{table}");
    let (code, json, _) = hostd(&root, &profiles, &["plan", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["plan"]["changes"][0]["control"]), (1, &Value::from("docker.iptables")));
    assert_eq!(json["report"]["outcomes"][0]["status"], "fail");

    let (sarif, junit) = (dir.path().join("r.sarif"), dir.path().join("r.xml"));
    let (sarif_name, junit_name) = (sarif.display().to_string(), junit.display().to_string());
    assert_eq!(hostd(&root, &profiles, &["plan", "--sarif", &sarif_name, "--junit", &junit_name]).0, 1);
    let sarif: Value = serde_json::from_str(&std::fs::read_to_string(sarif).unwrap()).unwrap();
    assert_eq!(sarif["runs"][0]["results"][0]["kind"], "fail");
    assert!(std::fs::read_to_string(junit).unwrap().contains("failures=\"1\""));
    let page = dir.path().join("r.html");
    assert_eq!(hostd(&root, &profiles, &["plan", "--html", &page.display().to_string()]).0, 1);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("<h1>{}</h1>", root.display())) && page.contains("One control fails"), "{page}");
    let (code, _, error) = hostd(&root, &profiles, &["plan", "--sarif", "/nonexistent/r.sarif"]);
    assert!(code == 2 && error.contains("/nonexistent/r.sarif"), "{error}");

    put(&root, "etc/docker/daemon.json", r#"{"iptables": true}"#);
    let (code, table, _) = hostd(&root, &profiles, &["plan"]);
    assert_eq!(code, 4, "only a canary can tell: {table}");
    assert!(table.contains("nothing to change"), "{table}");
    assert_eq!(hostd(&root, &profiles, &["plan", "--fail-on", "high"]).0, 1);
    for good in [
        &["plan", "--allow-manual"][..],
        &["plan", "--fail-on", "high", "--allow-manual"],
        &["plan", "--fail-on", "critical"],
    ] {
        assert_eq!(hostd(&root, &profiles, good).0, 0, "{good:?}");
    }
    put(&root, "etc/docker/daemon.json", "{");
    assert_eq!(hostd(&root, &profiles, &["plan"]).0, 4, "what cannot be judged is not good");
    assert_eq!(hostd(&root, &profiles, &["plan", "--fail-on", "high"]).0, 1);
    assert_eq!(hostd(&root, &profiles, &["plan", "--fail-on", "high", "--allow-manual"]).0, 1, "an error is no manual");
    put(
        &profiles,
        "workload/baseline.toml",
        "[[control]]\nid = \"workload.x\"\ntitle = \"t\"\nrefs = []\nrole = \"operator\"\nseverity = \"low\"\nfix = \"evidence\"\nresource = { file = \"/etc/docker\" }\nwant = \"absent\"\nprove = \"file\"\n",
    );
    assert_eq!(
        hostd(&root, &profiles, &["plan", "workload"]).0,
        1,
        "a failure that no change mends is one all the same"
    );
}

#[test]
fn a_plan_tells_each_thing_once_and_where_to_read_on() {
    let dir = tempfile::tempdir().unwrap();
    docker(dir.path());
    let (_, table, _) = hostd(dir.path(), &shipped(), &["plan"]);
    let line = |part: &str| table.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {table}"));
    // What is not installed is said once for all of its controls.
    assert!(line("controls: podman is not installed").starts_with("not-applicable  "), "{table}");
    assert_eq!(table.matches("podman is not installed").count(), 1, "{table}");
    // An audit rule is named once, and the file that lacks it.
    assert!(
        table.contains("        audit -w /etc/docker -p wa: absent (/etc/audit/audit.rules) → present\n"),
        "{table}"
    );
    assert!(!table.contains("audit.rules says"), "{table}");
    let profiles = format!("profiles: {}; more on a control: hostd explain ID", shipped().display());
    assert_eq!(table.lines().last(), Some(profiles.as_str()));

    // What fails and is changed by nothing here says what was wanted.
    let own = dir.path().join("own");
    put(
        &own,
        "workload/baseline.toml",
        "[[control]]\nid = \"workload.x\"\ntitle = \"t\"\nrefs = []\nrole = \"operator\"\nseverity = \"low\"\nfix = \"evidence\"\nresource = { file = \"/etc/docker\" }\nwant = \"absent\"\nprove = \"file\"\n",
    );
    let (code, table, _) = hostd(dir.path(), &own, &["plan", "workload"]);
    assert!(code == 1 && table.contains("wanted /etc/docker: absent"), "{table}");
}

#[test]
fn what_cannot_be_planned_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (root, profiles) = (dir.path().join("root"), dir.path().join("profiles"));
    docker(&root);
    put(&profiles, "docker/baseline.toml", "[[control]]\nid = \"docker.x\"\nshell = \"true\"\n");
    let none = dir.path().join("none");
    // Files are named as they can be opened.
    let unknown =
        format!("{}: line 3, column 1: unknown field `shell`", profiles.join("docker/baseline.toml").display());
    let topless = dir.path().join("topless");
    let hardened = std::fs::read_to_string(shipped().join("docker/hardened.toml")).unwrap();
    put(&topless, "docker/hardened.toml", &hardened);
    let missing = format!("{} is not there, and a higher level", topless.join("docker/baseline.toml").display());
    for (directory, arguments, part) in [
        (&profiles, &["plan"][..], unknown.as_str()),
        (&none, &["plan", "docker"], "no profile there for docker; copy Hostmark's configs/profiles there"),
        (&topless, &["plan", "docker/hardened"], missing.as_str()),
        (&shipped(), &["plan", "paranoid"], "`paranoid` is no level and no part"),
        (&shipped(), &["plan", "hardened", "--level", "baseline"], "two levels"),
        (&shipped(), &["explain", "docker.nothing"], "no control `docker.nothing`; there are docker."),
        (&shipped(), &["explain", "x"], "no control `x`; ids begin with audit"),
    ] {
        let (code, out, error) = hostd(&root, directory, arguments);
        assert_eq!((code, out.as_str(), error.lines().count()), (2, "", 1), "{arguments:?}: {error}");
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn explain_says_what_is_wanted_why_and_what_holds() {
    let dir = tempfile::tempdir().unwrap();
    docker(dir.path());
    let (code, text, _) = hostd(dir.path(), &shipped(), &["explain", "docker.icc"]);
    assert_eq!(code, 1, "{text}");
    for part in
        ["docker.icc  [high, hardened]", "wanted    false", "found     /etc/docker/daemon.json: true", "verdict   fail"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, json, _) = hostd(dir.path(), &shipped(), &["explain", "docker.live-restore", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["control"]["id"]), (1, &Value::from("docker.live-restore")));
}

#[test]
fn e8_a_waiver_counts_only_signed_in_time_and_for_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let (root, profiles) = (dir.path().join("root"), dir.path().join("profiles"));
    docker(&root);
    put(&profiles, "docker/baseline.toml", &control("docker.iptables"));
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = SoftwareKey::from_pkcs8(&pair.serialize_der()).unwrap();
    put(dir.path(), "signers/a.pem", &pair.public_key_pem());
    let waiver = |expires: &str| {
        let text = format!(
            "controls = ['docker.iptables']\nhosts = ['node-7']\nreason = 'an own firewall'\napprover = 'A. Person'\nexpires = '{expires}'\n"
        );
        put(dir.path(), "waivers/w.toml", &text);
        put(dir.path(), "waivers/w.toml.sig", &sign_detached(&WAIVER, text.as_bytes(), &key).unwrap());
    };
    let (waivers, signers) = (dir.path().join("waivers"), dir.path().join("signers"));
    let plan = |host: &str| {
        let (waivers, signers) = (waivers.display().to_string(), signers.display().to_string());
        let more = ["--waivers", &waivers, "--signers", &signers, "--host", host];
        hostd(&root, &profiles, &[&["plan", "docker/baseline"], &more[..]].concat())
    };
    waiver("2999-01-01T00:00:00Z");
    let (code, table, error) = plan("node-7");
    assert_eq!((code, error.as_str()), (0, ""), "{table}");
    assert!(table.contains("1 waived") && table.contains("an own firewall (A. Person, until 2999"), "{table}");
    assert!(table.contains("nothing to change"), "what is waived is not changed: {table}");

    let (code, table, error) = plan("node-8");
    assert!(code == 1 && table.contains("1 fail") && error.contains("is for other hosts"), "{table}{error}");
    put(dir.path(), "waivers/w.toml.sig", "");
    let (code, table, error) = plan("node-7");
    assert!(code == 1 && table.contains("1 fail") && error.contains("hostmark waiver sign"), "{table}{error}");
    waiver("2026-01-01T00:00:00Z");
    let (code, table, error) = plan("node-7");
    assert!(code == 1 && table.contains("1 fail") && error.contains("has ended"), "{table}{error}");
}
