//! `hostmark` against a running verifier: what each command answers, its exit code, and that refusals say what to do.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::Running;
use serde_json::{Value, json};

#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the binary while this test's runtime serves.
async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Run {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_hostmark"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .await
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An operator at a verifier.
struct Operator {
    verifier: String,
    config: PathBuf,
}

impl Operator {
    fn admin(verifier: &Running) -> Self {
        Self {
            verifier: format!("https://localhost:{}", verifier.address.port()),
            config: verifier.state.config.state_dir.join("admin.toml"),
        }
    }

    async fn run(&self, arguments: &[&str]) -> Run {
        let config = self.config.to_str().unwrap();
        run(&[], &[&["--verifier", &self.verifier, "--config", config][..], arguments].concat()).await
    }

    async fn good(&self, arguments: &[&str]) -> Value {
        let seen = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert_eq!((seen.code, seen.err.as_str()), (0, ""), "{arguments:?}: {seen:?}");
        let text = self.run(&[&arguments[..1], &["-v"], &arguments[1..]].concat()).await;
        assert!(!text.out.contains('\u{1b}'), "{text:?}");
        seen.json()
    }

    /// Exit code and the one line that says why; no answer on stdout.
    async fn refused(&self, code: i32, parts: &[&str], arguments: &[&str]) {
        let seen = self.run(arguments).await;
        assert_eq!((seen.code, seen.out.as_str()), (code, ""), "{arguments:?}: {seen:?}");
        assert_eq!(seen.err.lines().count(), 1, "{seen:?}");
        for part in parts {
            assert!(seen.err.contains(part), "{part} in {seen:?}");
        }
    }
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_tokens_come_and_go() {
    let verifier = Running::start().await;
    let admin = Operator::admin(&verifier);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let made = admin.run(&["operator", "add", "eve@example.org", "--role", "viewer", "--dir", folder]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let key = dir.path().join("eve@example.org.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let list = admin.good(&["operator", "list"]).await;
    assert_eq!(list[1]["name"], "eve@example.org");
    // A second one of the name is refused, and neither files nor store change.
    let before = std::fs::read(&key).unwrap();
    admin.refused(2, &["exists"], &["operator", "add", "eve@example.org", "--role", "admin", "--dir", folder]).await;
    let other = tempfile::tempdir().unwrap();
    let elsewhere = other.path().to_str().unwrap();
    admin
        .refused(1, &["refused: "], &["operator", "add", "eve@example.org", "--role", "admin", "--dir", elsewhere])
        .await;
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0, "nothing half-made stays");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    // The viewer sees, and may not change.
    let pin = verifier.state.ca.pin();
    let cert = dir.path().join("eve@example.org.pem");
    let viewer = [
        ("HOSTMARK_VERIFIER", admin.verifier.as_str()),
        ("HOSTMARK_CA_PIN", &pin),
        ("HOSTMARK_CERT", cert.to_str().unwrap()),
    ];
    let seen = run(&viewer, &["host", "list", "--output", "json"]).await;
    assert_eq!((seen.code, seen.json()), (0, json!([])), "{seen:?}");
    let forbidden = ["token", "create", "--node", "n", "--label", "internal", "--min-class", "hardware"];
    let seen = run(&viewer, &forbidden).await;
    assert_eq!(seen.code, 1, "{seen:?}");
    assert!(seen.err.contains("auth.role"), "{seen:?}");
    let words = run(&viewer, &[&forbidden[..], &["--output", "json"]].concat()).await;
    assert_eq!((words.code, &words.json()["error"]["severity"]), (1, &json!("error")));
    let seen = run(&viewer, &["place", "internal"]).await;
    assert_eq!(seen.code, 1, "{seen:?}");

    let file = dir.path().join("token");
    let file = file.to_str().unwrap();
    let create =
        ["token", "create", "--node", "node-1", "--scheduler", "swarm-a", "--label", "restricted:phi@hospital-a"];
    let made = admin.run(&[&create[..], &["--min-class", "hardware", "-o", file, "--output", "json"]].concat()).await;
    assert_eq!(made.code, 0, "{made:?}");
    let token = std::fs::read_to_string(file).unwrap();
    assert!(!made.out.contains(token.trim()) && token.len() > 20);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(admin.good(&["token", "list"]).await[0]["id"], *id);
    let printed = admin.run(&[&create[..], &["--min-class", "virtual", "-q"]].concat()).await;
    assert!(printed.code == 0 && printed.out.lines().count() == 1, "{printed:?}");
    // Nobody published the default policy: whoever makes the token is told, beside it.
    assert_eq!(made.json()["warnings"][0]["id"], "policy.unpublished", "{made:?}");
    let told = admin.run(&[&create[..], &["--min-class", "virtual"]].concat()).await;
    assert!(told.code == 0 && told.out.lines().count() == 1, "{told:?}");
    assert!(told.err.contains("warning") && told.err.contains("hostmark policy publish server-uki.toml"), "{told:?}");
    let unbound = admin.run(&create).await;
    assert_eq!(unbound.code, 2, "a token is bound to a TPM or a class");
    assert!(unbound.err.contains("<--ek-id <SHA256>|--min-class <CLASS>>"), "{unbound:?}");
    assert_eq!(admin.run(&["token", "revoke", &id]).await.code, 0);
    let list = admin.good(&["token", "list"]).await;
    let row = list.as_array().unwrap().iter().find(|row| row["id"] == *id).unwrap();
    assert_eq!(row["revoked"], true);
    admin.refused(2, &["request.id"], &["token", "revoke", "../../operators/admin"]).await;

    assert_eq!(admin.run(&["operator", "remove", "eve@example.org"]).await.code, 0);
    let seen = run(&viewer, &["host", "list"]).await;
    assert_eq!(seen.code, 1, "a removed operator counts no more: {seen:?}");
    assert!(seen.err.contains("auth."), "{seen:?}");

    let audit = admin.good(&["audit", "verify"]).await;
    assert_eq!(audit["verdict"], "verified");
    let exported = admin.run(&["audit", "export", "--since", "2020-01-01T00:00:00Z"]).await;
    assert_eq!(exported.out.lines().count() as u64, audit["records"].as_u64().unwrap());
    assert_eq!(admin.run(&["audit", "export", "--since", "2100-01-01T00:00:00Z"]).await.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_published_and_pools_applied() {
    let verifier = Running::start().await;
    let admin = Operator::admin(&verifier);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let key = path("signer.pem");
    assert_eq!(run(&[], &["key", "create", &key]).await.code, 0);
    let recorded = |file: &str| format!("{}/../attest/testdata/recorded/systemd/{file}", env!("CARGO_MANIFEST_DIR"));
    let bundle = path("debian12-uki.toml");
    let captured =
        ["refs", "capture", "--boot-log", &recorded("boot-log.bin"), "--ima", &recorded("ima.bin"), "-o", &bundle];
    assert_eq!(run(&[], &captured).await.code, 0);
    // Before the key is trusted nothing is accepted; without a signature nothing is sent.
    admin.refused(2, &["sign the file first"], &["refs", "publish", &bundle]).await;
    let signers = verifier.state.config.trust_dir.join("signers");
    let place = signers.join("NAME.pem");
    let where_to = ["refused: references.key", place.to_str().unwrap()];
    admin.refused(1, &where_to, &["refs", "publish", &bundle, "--key", &key]).await;
    std::fs::create_dir_all(&signers).unwrap();
    std::fs::copy(format!("{key}.pub"), signers.join("ops.pem")).unwrap();
    // At most once a second the directory is looked at for a key that is not known; nobody waits for the next tick.
    tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    let published = admin.run(&["refs", "publish", &bundle, "--key", &key]).await;
    assert_eq!(published.code, 0, "{published:?}");
    // The same version again is no new one, but a signed file beside works as well.
    let text = std::fs::read_to_string(&bundle).unwrap();
    std::fs::write(&bundle, text.replace("version = 1", "version = 2")).unwrap();
    assert_eq!(run(&[], &["refs", "sign", &bundle, "--key", &key]).await.code, 0);
    let seen = admin.run(&["refs", "publish", &bundle, "--output", "json"]).await;
    assert_eq!((seen.code, &seen.json()["version"]), (0, &json!(2)), "{seen:?}");
    std::fs::write(&bundle, &text).unwrap();
    let seen = admin.run(&["refs", "publish", &bundle, "--key", &key]).await;
    assert_eq!(seen.code, 1, "a version never falls: {seen:?}");
    let configs = configs();
    let configs = configs.to_str().unwrap();
    admin
        .refused(2, &["pool apply"], &["policy", "publish", &format!("{configs}/pools/lab.toml"), "--key", &key])
        .await;
    let published =
        admin.run(&["policy", "publish", &format!("{configs}/appraisal/lab-uki.toml"), "--key", &key]).await;
    assert_eq!(published.code, 0, "{published:?}");

    let pending = admin.run(&["pool", "diff", configs]).await;
    assert_eq!(pending.code, 1, "{pending:?}");
    assert!(pending.out.contains("+ pools/lab"), "{pending:?}");
    assert_eq!(admin.run(&["pool", "apply", "--dry-run", configs]).await.code, 1);
    assert_eq!(admin.good(&["pool", "list"]).await, json!([]));
    let applied = admin.run(&["pool", "apply", configs, "--output", "json"]).await;
    assert_eq!((applied.code, &applied.json()["applied"]), (0, &json!(true)), "{applied:?}");
    // Each policy that judges nobody yet is told with its pools: one waits for references, the other is not published.
    let warnings = applied.json()["warnings"].clone();
    let ids: Vec<&str> = warnings.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["policy.references-missing", "policy.unpublished"], "{warnings}");
    assert!(
        warnings[0]["message"].as_str().unwrap().starts_with("the pools lab, lab-next can admit nobody yet"),
        "{warnings}"
    );
    let again = admin.run(&["pool", "apply", configs]).await;
    assert!(again.out.contains("no change\nwarning: ") && again.out.contains("hostmark policy publish"), "{again:?}");
    admin.refused(2, &["NOSUCHDIR is not there", "pools/ and admission/"], &["pool", "apply", "NOSUCHDIR"]).await;
    assert_eq!(admin.run(&["pool", "diff", configs]).await.code, 0);
    assert_eq!(admin.good(&["pool", "list"]).await.as_array().unwrap().len(), 3);
    assert_eq!(admin.good(&["pool", "show", "lab"]).await["label"], "internal");
    admin.refused(2, &["there is no pool `labs`", "lab"], &["pool", "show", "labs"]).await;
    admin.refused(2, &["no such host"], &["pool", "explain", "node-1", "lab"]).await;
    admin.refused(2, &["no such host"], &["host", "explain", "node-1"]).await;
    let none = admin.run(&["place", "internal", "--count", "2", "--output", "json"]).await;
    assert_eq!((none.code, &none.json()["hosts"]), (1, &json!([])), "{none:?}");
    admin.refused(2, &["label"], &["place", "top-secret"]).await;

    let broken = dir.path().join("broken");
    for part in ["pools", "admission"] {
        std::fs::create_dir_all(broken.join(part)).unwrap();
    }
    std::fs::write(broken.join("pools/x.toml"), "label = ").unwrap();
    let broken = broken.to_str().unwrap();
    admin.refused(2, &["pools/x.toml: line 1, column "], &["pool", "apply", broken]).await;
    assert_eq!(admin.good(&["pool", "list"]).await.as_array().unwrap().len(), 3);

    let list = path("tpms.csv");
    std::fs::write(&list, format!("{},node-7,swarm-a,internal\n", "ab".repeat(32))).unwrap();
    let imported = admin.run(&["host", "import", &list, "--output", "json"]).await;
    assert_eq!((imported.code, &imported.json()["imported"]), (0, &json!(1)), "{imported:?}");
    assert_eq!(imported.json()["warnings"][0]["found"], "server-uki", "{imported:?}");
    std::fs::write(&list, "zz,node-8,swarm-a,internal\n").unwrap();
    admin.refused(2, &["hosts[0]"], &["host", "import", &list]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_or_trusted_is_told() {
    let verifier = Running::start().await;
    let admin = Operator::admin(&verifier);
    let away = Operator { verifier: "https://127.0.0.1:1".into(), config: admin.config.clone() };
    away.refused(3, &["cannot reach the verifier", "is it running"], &["host", "list"]).await;
    let pin = "00".repeat(32);
    let arguments = ["--ca-pin", &pin, "host", "list"];
    admin.refused(3, &["another verifier"], &arguments).await;
    admin.refused(2, &["is no pin"], &["--ca-pin", "00", "host", "list"]).await;
    let plain = Operator { verifier: "http://localhost:1".into(), config: admin.config.clone() };
    plain.refused(2, &["write https://"], &["host", "list"]).await;
    let nothing = run(&[("HOME", "/nonexistent")], &["host", "list"]).await;
    assert!(nothing.code == 2 && nothing.err.contains("--verifier URL"), "{nothing:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.toml");
    std::fs::write(&file, "verifer = \"x\"\n").unwrap();
    let wrong = run(&[], &["--config", file.to_str().unwrap(), "host", "list"]).await;
    assert!(wrong.code == 2 && wrong.err.contains("line 1, column 1"), "{wrong:?}");
    // As `verifier init` writes it where the port is chosen at the start.
    std::fs::write(&file, "# verifier = \"https://localhost:PORT\"\nca = \"ca.pem\"\n").unwrap();
    let portless = run(&[], &["--config", file.to_str().unwrap(), "host", "list"]).await;
    assert!(portless.code == 2 && portless.err.contains("client.toml names no verifier"), "{portless:?}");
    assert!(portless.err.contains("that `verifier serve` prints"), "{portless:?}");
}
