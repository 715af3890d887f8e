//! Text for people: findings as blocks, lists as tables, colour where a terminal wants it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::tier::Tier;
use serde::Serialize;

use super::failure::one_line;

/// How to write for this reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
    /// Show everything.
    pub(super) verbose: bool,
}

/// What a coloured word means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mood {
    /// Proven, admitted.
    Good,
    /// Reserved, pending.
    Careful,
    /// Refused.
    Bad,
    /// Less important.
    Quiet,
}

impl Style {
    /// Colour only on a terminal that is not dumb and where NO_COLOR (no-color.org) is unset or empty.
    pub(super) fn of_stdout(verbose: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: !refused && !dumb && std::io::stdout().is_terminal(), verbose }
    }

    /// Without colour, for what does not go to stdout.
    pub(super) const fn plain() -> Self {
        Self { colour: false, verbose: false }
    }

    /// Colours a word.
    pub(super) fn paint(self, mood: Mood, text: &str) -> String {
        let code = match mood {
            Mood::Good => "32",
            Mood::Careful => "33",
            Mood::Bad => "31",
            Mood::Quiet => "2",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Findings, the heaviest first. Without `verbose`, of those that only inform just the number.
    pub(super) fn findings(self, findings: &[Finding]) -> String {
        let mut out = String::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            if severity == Severity::Info && !self.verbose {
                continue;
            }
            for finding in findings.iter().filter(|finding| finding.severity == severity) {
                self.finding(&mut out, finding);
            }
        }
        let told = findings.iter().filter(|finding| finding.severity == Severity::Info).count();
        if told > 0 && !self.verbose {
            let _ = writeln!(out, "{}", self.paint(Mood::Quiet, &format!("{told} more for information: -v")));
        }
        out
    }

    /// One line for each: what keeps what was just done from having its effect, and the remedy.
    pub(super) fn warnings(self, list: &[Finding]) -> String {
        let line =
            |one: &Finding| format!("{}: {}\n", self.paint(Mood::Careful, "warning"), one_line(&one.to_string()));
        list.iter().map(line).collect()
    }

    fn finding(self, out: &mut String, finding: &Finding) {
        let (mood, word) = match finding.severity {
            Severity::Error => (Mood::Bad, "refused"),
            Severity::Warning => (Mood::Careful, "warning"),
            _ => (Mood::Quiet, "info   "),
        };
        let _ = writeln!(out, "{}  {}: {}", self.paint(mood, word), finding.id, finding.message);
        let details = [("expected", &finding.expected), ("found", &finding.found), ("fix", &finding.fix)];
        for (name, value) in details {
            if let Some(value) = value {
                let _ = writeln!(out, "         {name:<8}  {value}");
            }
        }
    }
}

/// A cell of a table: its text, and what a coloured text means.
#[derive(Debug, Clone)]
pub(super) struct Cell(String, Option<Mood>);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(one_line(&text.into()), None)
    }
}

impl Cell {
    /// A cell whose text means something.
    pub(super) fn mood(mood: Mood, text: impl Into<String>) -> Self {
        Self(one_line(&text.into()), Some(mood))
    }
}

impl Style {
    /// A table with a header line and without borders. No control character of a host gets into it.
    pub(super) fn table(self, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
        let head = header.iter().map(|name| Cell(name.to_uppercase(), None)).collect();
        let rows: Vec<Vec<Cell>> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut out = String::new();
        for row in &rows {
            let mut line = String::new();
            let mut gap = 0usize;
            for (Cell(text, mood), width) in row.iter().zip(&widths) {
                line.extend(std::iter::repeat_n(' ', gap));
                line += &mood.map_or_else(|| text.clone(), |mood| self.paint(mood, text));
                gap = width.saturating_sub(text.chars().count()).saturating_add(2);
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

/// `name  value` lines with aligned values.
pub(super) fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<(&str, String)> = rows.into_iter().collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<width$}  {}", one_line(&value));
    }
    out
}

/// A tier in its colour.
pub(super) fn tier(tier: Tier) -> Cell {
    let mood = match tier {
        Tier::Affirming => Mood::Good,
        Tier::Warning => Mood::Careful,
        Tier::Contraindicated => Mood::Bad,
        _ => Mood::Quiet,
    };
    Cell::mood(mood, tier.name())
}

/// The JSON name of an enum's value.
pub(super) fn name_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
