//! What `hostmark refs capture`, `ima`, `import` and `predict` do where their file exists: the real binary, on files made here.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

mod command;
#[path = "../../attest/tests/common/uki.rs"]
mod uki;

use serde_json::json;

use command::{json_of, run};

#[test]
fn an_existing_bundle_is_replaced_on_demand_under_the_next_version_and_never_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (root, policy, image) = (path("root"), path("policy.json"), path("uki.efi"));
    std::fs::create_dir_all(dir.path().join("root/usr/lib")).unwrap();
    std::fs::write(dir.path().join("root/usr/lib/libx.so.1"), b"\x7fELF x").unwrap();
    let keylime = json!({"meta": {"version": 1}, "digests": {"/usr/bin/a": ["01".repeat(32)]}});
    std::fs::write(&policy, keylime.to_string()).unwrap();
    std::fs::write(&image, uki::uki()).unwrap();
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/../attest/testdata/recorded/systemd/boot-log.bin");
    let out = path("b.toml");
    let old =
        "version = 6\nmodel = \"R340\"\n[[window]]\nuntil = \"2030-01-01T00:00:00Z\"\n[window.ima]\n\"/a\" = []\n";
    let read = || std::fs::read_to_string(&out).unwrap();
    let bundle = || read().parse::<toml::Table>().unwrap();
    let commands: [&[&str]; 4] = [
        &["refs", "capture", "--boot-log", log],
        &["refs", "ima", &root],
        &["refs", "import", &policy],
        &["refs", "predict", &image],
    ];
    for command in commands {
        let with = |more: &[&str]| run(&[command, &["-o", &out], more].concat());
        let refused = |more: &[&str], parts: &[&str]| {
            let before = std::fs::read(&out).unwrap();
            let (code, shown, err) = with(more);
            assert_eq!((code, shown.as_str(), err.matches('\n').count()), (2, "", 1), "{command:?}: {err}");
            for part in parts {
                assert!(err.contains(part), "{command:?}: {part} in {err}");
            }
            assert_eq!(std::fs::read(&out).unwrap(), before, "{command:?} {more:?} wrote");
        };
        // A new file needs nothing, and is version 1.
        assert_eq!(with(&[]).0, 0, "{command:?}");
        assert_eq!(bundle()["version"].as_integer(), Some(1), "{command:?}");

        std::fs::write(&out, old).unwrap();
        refused(&[], &["b.toml: exists", "--replace"]);
        refused(&["--version", "9"], &["exists"]);
        for version in ["6", "1"] {
            refused(&["--replace", "--version", version], &["has version 6", "versions only grow"]);
        }
        assert_eq!(with(&["--replace"]).0, 0, "{command:?}");
        let new = bundle();
        assert_eq!((new["version"].as_integer(), new["model"].as_str()), (Some(7), Some("R340")), "{command:?}");
        assert!(!read().contains("2030"), "{command:?}: replaced, not merged");
        assert_eq!(with(&["--replace", "--version", "20"]).0, 0, "{command:?}");
        assert_eq!(bundle()["version"].as_integer(), Some(20), "{command:?}");
        assert_eq!(json_of(0, &["policy", "check", &out])["files"][0]["version"], json!(20), "{command:?}");

        // What is no bundle is nobody's to replace.
        std::fs::write(&out, "lease = \"60s\"\n").unwrap();
        refused(&["--replace"], &["b.toml"]);
        std::fs::write(&out, "notes").unwrap();
        refused(&["--replace"], &["b.toml"]);
        std::fs::remove_file(&out).unwrap();
        assert_eq!(run(&[command, &["--replace"]].concat()).0, 2, "{command:?}: there is no file to replace");
    }
}
