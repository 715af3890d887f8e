//! `hostd doctor`.

use hostmark_hostd::doctor::{Check, State, examine};

use super::{Common, Exit, Failure, Output, block_on, print, tpm_auth};

/// Options of `hostd doctor`: none of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let checks = block_on(examine(&config, tpm_auth(&config)?))?;
    match common.output {
        Output::Json => print(&serde_json::json!({ "checks": checks }).to_string()),
        Output::Table => print(&table(&checks, common.quiet)),
    }
    let failed = checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Exit::Refused } else { Exit::Good })
}

fn table(checks: &[Check], quiet: bool) -> String {
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for check in checks.iter().filter(|check| !quiet || check.state == State::Failed) {
        let state = match check.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
            State::Skipped => "skipped",
        };
        lines.push(format!("{state:<7}  {:<width$}  {}", check.id, check.found));
        if !check.fix.is_empty() {
            lines.push(format!("{:<7}  {:<width$}  → {}", "", "", check.fix));
        }
    }
    lines.join("\n")
}
