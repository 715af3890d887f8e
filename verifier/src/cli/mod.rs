//! `hostmark`: what operators, schedulers and auditors type. One file per noun; each command returns an answer.
//!
//! Exit codes (SURFACE.md): 0 good · 1 refused, or changes pending · 2 usage or unusable input · 3 cannot reach · 4 partial. With
//! `--output json` the answer is the only thing on stdout. Errors are one line on stderr and say what to do.

mod answer;
mod audit;
mod bundle_file;
mod client;
mod connect;
mod document;
mod explain;
mod failure;
mod host;
mod input;
mod inspect;
mod inspect_identity;
mod jwks;
mod key;
mod operator;
mod place;
mod policy;
mod pool;
mod predict;
mod refs;
mod refs_change;
mod refs_import;
mod show;
mod token;
mod toml_diff;
mod tree;
mod verify;
mod verify_evidence;
mod waiver;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use answer::Answer;
use failure::{Exit, Failure};
use show::Style;

type Outcome = Result<Answer, Failure>;

/// Prove hosts, admit them to pools, and explain every verdict.
#[derive(Debug, Parser)]
#[command(name = "hostmark", version, max_term_width = 120, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    connection: connect::Connection,
    #[command(subcommand)]
    noun: Noun,
}

const EXIT_CODES: &str =
    "Exit codes: 0 good · 1 refused, or changes pending · 2 usage or unusable input · 3 cannot reach · 4 partial";

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// How to print the answer.
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT", help_heading = "Output")]
    output: Format,
    /// Print no text answer; the exit code tells. Errors and JSON are still printed.
    #[arg(long, short, global = true, help_heading = "Output")]
    quiet: bool,
    /// Print more: every event, every finding.
    #[arg(long, short, global = true, help_heading = "Output")]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// One JSON value.
    Json,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Hosts: who they are, where they stand and why.
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Join tokens, each for one enrolment.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// People and schedulers that may ask the verifier.
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Pools: who may carry which label, and why.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Hosts that may run a workload now, with permits.
    Place(place::Place),
    /// The chain of changes.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show what a file of evidence says, without judging it.
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Verify a quote, a permit or an Attestation Result from files.
    #[command(subcommand)]
    Verify(verify::Verify),
    /// Reference values: what a good host measures.
    #[command(subcommand)]
    Refs(refs::Refs),
    /// Appraisal policies, admission policies and pools.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Waivers: hosts that need not meet a control until a date.
    #[command(subcommand)]
    Waiver(waiver::WaiverCommand),
    /// An operator's offline signing key, and the verifier's public keys.
    #[command(subcommand)]
    Key(key::Key),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap writes help to stdout and errors to stderr, and a closed pipe does not matter to it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Unusable } else { Exit::Good }.into();
        }
    };
    let Global { output, quiet, verbose } = arguments.global;
    let (style, to) = (Style::of_stdout(verbose), arguments.connection);
    let outcome = match arguments.noun {
        Noun::Host(command) => command.run(&to, style),
        Noun::Token(command) => command.run(&to, style),
        Noun::Operator(command) => command.run(&to, style),
        Noun::Pool(command) => command.run(&to, style),
        Noun::Place(command) => command.run(&to, style),
        Noun::Audit(command) => command.run(&to, style),
        Noun::Inspect(command) => command.run(style),
        Noun::Verify(command) => command.run(style),
        Noun::Refs(command) => command.run(&to, style),
        Noun::Policy(command) => command.run(&to, style),
        Noun::Waiver(command) => command.run(),
        Noun::Key(command) => command.run(&to),
    };
    match outcome.and_then(|answer| answer.print(output == Format::Json, quiet)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(output == Format::Json).into(),
    }
}
