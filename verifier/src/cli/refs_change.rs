//! `hostmark refs rebase`: a bundle that changes for a reason from outside. It shows first; nothing is signed here.

use std::path::{Path, PathBuf};

use clap::Args;
use hostmark_attest::policy::rebase::{Difference, Rebased, Terms, rebase};
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::document::write_beside;
use super::failure::{Failure, one_line};
use super::refs::Sources;
use super::show::{Mood, Style, facts};
use super::{Outcome, input, when};

/// `… rebase BUNDLE --boot-log F --model M --change ID --until TIME [--accept]`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("logs").required(true).multiple(true)))]
pub(super) struct Rebase {
    /// The bundle of reference values.
    bundle: PathBuf,
    /// The boot log of a machine after the update.
    #[arg(long, value_name = "FILE", group = "logs")]
    boot_log: Option<PathBuf>,
    /// Its IMA list.
    #[arg(long, value_name = "FILE", group = "logs")]
    ima: Option<PathBuf>,
    /// The hardware model: the bundle's own.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The change's id.
    #[arg(long, value_name = "ID")]
    change: String,
    /// What differs is accepted until then (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: OffsetDateTime,
    /// And from then on. Without it, at once.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    from: Option<OffsetDateTime>,
    /// Add the window to the bundle and raise its version by one. Without it, the difference is shown and nothing is written.
    #[arg(long)]
    accept: bool,
}

#[derive(Debug, Serialize)]
struct RebaseView<'a> {
    bundle: &'a Path,
    model: &'a str,
    change: &'a str,
    differences: &'a [Difference],
    /// Whether the bundle was written.
    accepted: bool,
}

impl Rebase {
    pub(super) fn run(self, style: Style) -> Outcome {
        let before = input::read_text(&self.bundle, "a bundle", input::REFERENCES_MAX)?;
        let captured = Sources::read(self.boot_log.as_deref(), self.ima.as_deref(), &[])?.text(1)?;
        let name = self.bundle.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let terms = Terms { model: self.model, change: self.change, from: self.from, until: self.until };
        let Rebased { differences, text } = rebase(name, &before, &captured, &terms, when::now()?)
            .map_err(|error| Failure::unusable(one_line(&error.to_string())))?;
        let accepted = self.accept && text.is_some();
        if let Some(text) = text.filter(|_| accepted) {
            write_beside(&self.bundle, text.as_bytes())?;
        }
        let mut shown = String::new();
        for one in &differences {
            shown += &format!("{}\n", one_line(&one.what));
            for (mood, sign, values) in [(Mood::Quiet, ' ', &one.accepted), (Mood::Good, '+', &one.captured)] {
                for value in values {
                    shown += &format!("  {}\n", style.paint(mood, &format!("{sign} {}", one_line(value))));
                }
            }
        }
        let path = self.bundle.display();
        shown += &match (differences.len(), accepted) {
            (0, _) => "no difference: every value is accepted already\n".to_owned(),
            (count, false) => format!("{count} to accept: review them, then run this again with --accept\n"),
            (_, true) => facts([
                ("written", path.to_string()),
                ("change", terms.change.clone()),
                ("until", when::from_seconds(terms.until.unix_timestamp())),
                ("next", format!("hostmark refs sign {path} --key KEY")),
            ]),
        };
        let pending = !differences.is_empty() && !accepted;
        let (model, change) = (terms.model.as_str(), terms.change.as_str());
        let view = RebaseView { bundle: &self.bundle, model, change, differences: &differences, accepted };
        Ok(Answer::new(&view, shown)?.refused_if(pending))
    }
}
