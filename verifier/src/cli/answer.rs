//! What a command answers: one JSON value, the same for people, and an exit code.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::Value;

use super::failure::{Exit, Failure};

/// The answer of a command.
#[derive(Debug)]
pub(super) struct Answer {
    exit: Exit,
    json: Value,
    text: String,
    /// The text is the product itself (a TOML file, a token), so `--quiet` prints it too.
    product: bool,
    /// What a person should know beside the product; JSON has it in itself.
    aside: String,
}

impl Answer {
    /// An answer that is good.
    pub(super) fn new(json: &impl Serialize, text: String) -> Result<Self, Failure> {
        let json = serde_json::to_value(json)
            .map_err(|error| Failure::unusable(format!("cannot be shown as JSON: {error}")))?;
        Ok(Self { exit: Exit::Good, json, text, product: false, aside: String::new() })
    }

    /// Sets the exit code.
    pub(super) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// `Refused` where `condition` holds.
    pub(super) fn refused_if(self, condition: bool) -> Self {
        if condition { self.exit(Exit::Refused) } else { self }
    }

    /// The text is what was asked for, not a message.
    pub(super) fn product(self) -> Self {
        Self { product: true, ..self }
    }

    /// Adds what a person is told on stderr, because stdout is the product alone.
    pub(super) fn aside(self, aside: String) -> Self {
        Self { aside, ..self }
    }

    /// Writes the answer to stdout, and what stands beside it to stderr.
    pub(super) fn print(&self, json: bool, quiet: bool) -> Result<Exit, Failure> {
        let text = if json {
            let mut text = serde_json::to_string_pretty(&self.json).unwrap_or_default();
            text.push('\n');
            text
        } else if quiet && !self.product {
            String::new()
        } else {
            self.text.clone()
        };
        if !json && !quiet {
            // Nobody may be listening; the product still counts.
            let _ = write!(io::stderr(), "{}", self.aside);
        }
        match write(&text) {
            // The reader had enough (`| head`): the verdict stands.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::unusable(format!("cannot write the answer: {error}")))
            }
            _ => Ok(self.exit),
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
