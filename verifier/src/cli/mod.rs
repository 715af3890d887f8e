//! `hostmark`: what operators, schedulers and auditors type. One file per noun; each command returns an [`Answer`].
//!
//! Exit codes (SURFACE.md): 0 good · 1 refused, or changes pending · 2 usage or unusable input · 3 cannot reach · 4 partial. With
//! `--output json` the answer is the only thing on stdout. Errors are one line on stderr and say what to do.

mod answer;
mod failure;
mod input;
mod inspect;
mod jwks;
mod key;
mod policy;
mod refs;
mod show;
mod toml_diff;
mod verify;
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
    /// An operator's offline signing key.
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
    let style = Style::of_stdout(verbose);
    let outcome = match arguments.noun {
        Noun::Inspect(command) => command.run(style),
        Noun::Verify(command) => command.run(style),
        Noun::Refs(command) => command.run(style),
        Noun::Policy(command) => command.run(style),
        Noun::Key(command) => command.run(style),
    };
    match outcome.and_then(|answer| answer.print(output == Format::Json, quiet)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print().into(),
    }
}
