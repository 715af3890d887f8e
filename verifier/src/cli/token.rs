//! `hostmark token`: join tokens, each for one enrolment.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::host::{Assignment, cannot_be_judged};
use super::show::{Cell, Mood, Style, facts};
use super::{Outcome, key};
use hostmark_attest::span::Span;

use crate::api::types::{CreateToken, CreatedToken, Token};

/// `hostmark token …`
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a join token. It is printed once; hostd provision reads it from a file.
    ///
    /// It is bound to one TPM (--ek-id), where you know it, or else to a least class of TPMs (--min-class), such as hardware; or to both.
    #[command(group(ArgGroup::new("bound").args(["ek_id", "min_class"]).required(true).multiple(true)))]
    Create {
        #[command(flatten)]
        to: Assignment,
        /// The one TPM that may use it: SHA-256 of its EK's public key (hostd doctor).
        #[arg(long, value_name = "SHA256")]
        ek_id: Option<String>,
        /// The least TPM class that may use it: hardware is best, simulated least.
        #[arg(long, value_name = "CLASS", value_parser = ["hardware", "firmware", "virtual", "unverified", "simulated"])]
        min_class: Option<String>,
        /// How long it lives.
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        expires_in: Span,
        /// Write the token into this new file (mode 0600) instead of printing it.
        #[arg(short = 'o', long = "out", value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke an unused token.
    Revoke {
        /// Its id (hostmark token list).
        id: String,
    },
    /// List tokens, without the tokens themselves.
    List,
}

impl TokenCommand {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        match self {
            Self::Create { to, ek_id, min_class, expires_in, out } => {
                let new = CreateToken { assignment: to.into(), ek_id, min_class, expires_in };
                // The file first: a token that cannot be kept is never made.
                let file = out.map(key::new_secret).transpose()?;
                let made: CreatedToken = client.post(&["v1", "tokens"], &new)?;
                let Some(file) = file else {
                    let aside = cannot_be_judged(Style::plain(), &made.warnings);
                    return Ok(Answer::new(&made, format!("{}\n", made.token))?.product().aside(aside));
                };
                let path = file.keep(format!("{}\n", made.token).as_bytes())?;
                let text = facts([
                    ("token", format!("in {}", path.display())),
                    ("id", made.id.clone()),
                    ("expires", made.expires.clone()),
                ]) + &cannot_be_judged(style, &made.warnings);
                let mut view = serde_json::json!({ "id": made.id, "file": path, "expires": made.expires });
                if let (Some(view), false) = (view.as_object_mut(), made.warnings.is_empty()) {
                    view.insert("warnings".to_owned(), serde_json::json!(made.warnings));
                }
                Answer::new(&view, text)
            }
            Self::Revoke { id } => {
                client.delete(&["v1", "tokens", &id])?;
                Answer::new(&serde_json::json!({ "id": id, "done": "revoke" }), format!("{id} is revoked\n"))
            }
            Self::List => list(&client, style),
        }
    }
}

fn list(client: &Client, style: Style) -> Result<Answer, Failure> {
    let tokens: Vec<Token> = client.get(&["v1", "tokens"])?;
    let rows = tokens.iter().map(|one| {
        let state = match (&one.used_by, one.revoked) {
            (Some(host), _) => Cell::mood(Mood::Quiet, format!("used by {host}")),
            (None, true) => Cell::mood(Mood::Quiet, "revoked"),
            (None, false) => Cell::mood(Mood::Good, "open"),
        };
        let bound = one.ek_id.clone().or_else(|| one.min_class.clone().map(|class| format!("{class} or better")));
        vec![
            one.id.as_str().into(),
            one.assignment.node.as_str().into(),
            one.assignment.label.as_str().into(),
            bound.unwrap_or_default().into(),
            one.expires.as_str().into(),
            one.created_by.as_str().into(),
            state,
        ]
    });
    let text = style.table(&["id", "node", "label", "for", "expires", "by", "state"], rows);
    Answer::new(&tokens, text)
}
