//! Builds the program of canary containers, linked statically, for `include_bytes!` in `src/profile/canary/image.rs`.
//!
//! A cargo of its own, because whether a program is linked statically is chosen for a whole build. It uses the same lock file and nothing that
//! hostd itself does not depend on, so it reads no network.

#![allow(clippy::panic, reason = "a build script fails by panicking")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let (out, target) = (PathBuf::from(variable("OUT_DIR")), variable("TARGET"));
    for path in ["canary", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--offline", "--package", "hostmark-canary", "--bin", "canary"])
        .args(["--profile", "canary", "--target", &target, "--target-dir"])
        .arg(out.join("build"))
        .current_dir(root)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Those of the build around it: linters, flags and places of its own.
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(status.success(), "the program of canary containers was not built");
    let built = out.join("build").join(target).join("canary/canary");
    std::fs::copy(&built, out.join("canary")).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
}
