//! `hostmark`: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    hostmark_verifier::cli::main()
}
