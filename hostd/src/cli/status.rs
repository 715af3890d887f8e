//! `hostd status`: what the running daemon knows.

use hostmark_attest::wire::HostState;
use hostmark_hostd::status::{AskError, Status, ask};

use super::{Common, Exit, Failure, Output, print};

/// Options of `hostd status`: none of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let answer = ask(&config.source.socket()).map_err(|error| {
        let exit = match error {
            AskError::NotRunning { .. } => Exit::Unreachable,
            _ => Exit::Usage,
        };
        Failure::new(exit, error)
    })?;
    let proven = answer.get("state") == Some(&serde_json::json!(HostState::Proven));
    match common.output {
        Output::Json => print(&answer.to_string()),
        Output::Table if common.quiet => {}
        Output::Table => match serde_json::from_value::<Status>(answer.clone()) {
            Ok(status) => print(&table(&status)),
            // Others than root and the daemon's own user learn the state alone.
            Err(_) => {
                print(&format!("state  {}", answer.get("state").and_then(|state| state.as_str()).unwrap_or("unknown")))
            }
        },
    }
    Ok(if proven { Exit::Good } else { Exit::Refused })
}

fn table(status: &Status) -> String {
    let state = serde_json::json!(status.state);
    let mut rows = vec![
        ("state", state.as_str().unwrap_or("no round yet").to_owned()),
        ("host", format!("{} ({})", status.node, status.host)),
        ("verifier", status.verifier.clone()),
        ("tpm", status.tpm.clone()),
    ];
    for place in &status.pools {
        rows.push(("pool", format!("{} until {}", place.pool, place.not_after)));
    }
    if let (Some(at), Some(took)) = (&status.last_round, status.last_round_ms) {
        rows.push(("last round", format!("{at}, {took} ms")));
    }
    let optional =
        [("next round", &status.next_round), ("last error", &status.last_error), ("manifest", &status.manifest)];
    rows.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    rows.push(("certificate", format!("until {}", status.certificate_not_after)));
    rows.extend(status.problems.iter().map(|problem| ("problem", problem.clone())));
    rows.extend(status.findings.iter().map(|finding| ("finding", finding.to_string())));
    rows.iter().map(|(name, value)| format!("{name:<11}  {value}")).collect::<Vec<_>>().join("\n")
}
