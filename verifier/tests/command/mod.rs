//! The built `hostmark` as its users run it.

use std::process::Command;

use serde_json::Value;

/// Exit code, stdout, stderr.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hostmark")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Its JSON, with the exit code that is expected.
pub(crate) fn json_of(code: i32, arguments: &[&str]) -> Value {
    let (exit, out, err) = run(&[arguments, &["--output", "json"]].concat());
    assert_eq!(exit, code, "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).unwrap()
}
