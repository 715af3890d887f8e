//! Findings: what was seen, what was expected, by which rule, and what to do.
//!
//! A bad host is a value, never an error: each stage adds to a [`Findings`] and goes on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::violated;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Info,
    /// Caps the claim it touches at AR4SI "warning".
    Warning,
    /// The evidence is refused, or the claim it touches is contraindicated.
    Error,
}

/// One explained observation.
///
/// `id` is a dotted path, subject first (`quote.signature`, `boot.replay`), and never changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Dotted path, subject first.
    pub id: String,
    /// Its weight.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
    /// What was expected, if that can be said.
    #[serde(default)]
    pub expected: Option<String>,
    /// What was found, if that can be said.
    #[serde(default)]
    pub found: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub fix: Option<String>,
}

impl Finding {
    /// A finding of any weight.
    #[must_use]
    pub fn new(id: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self { id: id.into(), severity, message: on_one_line(message.into()), expected: None, found: None, fix: None }
    }

    /// A finding that refuses or contraindicates.
    #[must_use]
    pub fn error(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, message)
    }

    /// A finding that caps at "warning".
    #[must_use]
    pub fn warning(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, message)
    }

    /// A finding that only informs.
    #[must_use]
    pub fn info(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Info, message)
    }

    /// Says what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.expected = Some(on_one_line(expected.to_string()));
        self
    }

    /// Says what was found.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = Some(on_one_line(found.to_string()));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.id, self.message)?;
        if let Some(expected) = &self.expected {
            write!(out, "; expected {expected}")?;
        }
        if let Some(found) = &self.found {
            write!(out, "; found {found}")?;
        }
        if let Some(fix) = &self.fix {
            write!(out, "; {fix}")?;
        }
        Ok(())
    }
}

/// Longest text that a finding quotes from a host, in characters. Longer text is cut, and the cut is shown.
const QUOTED_MAX: usize = 512;

/// Makes host-provided text safe for one log line: control characters become `\u{..}` escapes, and it is cut at `QUOTED_MAX`.
#[must_use]
pub fn one_line(text: &str) -> String {
    on_one_line(text.to_owned())
}

fn on_one_line(text: String) -> String {
    // Nearly every text is short and plain as it is.
    if text.len() <= QUOTED_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text;
    }
    let mut out = String::with_capacity(text.len().min(QUOTED_MAX));
    for (count, c) in text.chars().enumerate() {
        if count >= QUOTED_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The findings of a stage, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Runs the check `id`: records `describe()` when `bad`, under that id. Returns true when the check passed.
    pub fn check(&mut self, id: &'static str, bad: bool, describe: impl FnOnce() -> Finding) -> bool {
        let failed = violated(id, bad);
        if failed {
            self.0.push(Finding { id: id.to_owned(), ..describe() });
        }
        !failed
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// Adds the findings of another stage.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// True when none refuses.
    #[must_use]
    pub fn acceptable(&self) -> bool {
        !self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// True when a finding with this id was made.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|finding| finding.id == id)
    }

    /// The heaviest weight, if there is any finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.0.iter().map(|finding| finding.severity).max()
    }

    /// All findings.
    #[must_use]
    pub fn as_slice(&self) -> &[Finding] {
        &self.0
    }

    /// About how many bytes they take.
    pub(crate) fn weight(&self) -> usize {
        let texts = |one: &Finding| {
            let more = [&one.expected, &one.found, &one.fix].into_iter().flatten().map(String::len).sum::<usize>();
            more.saturating_add(one.id.len()).saturating_add(one.message.len()).saturating_add(size_of::<Finding>())
        };
        self.0.iter().map(texts).fold(0, usize::saturating_add)
    }

    /// All findings, by value.
    #[must_use]
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

impl From<Vec<Finding>> for Findings {
    fn from(list: Vec<Finding>) -> Self {
        Self(list)
    }
}

impl From<Finding> for Findings {
    fn from(one: Finding) -> Self {
        Self(vec![one])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_text_stays_on_one_line_and_is_cut() {
        let finding = Finding::error("x", "m").found("a\nb\u{1b}[31m");
        assert_eq!(finding.found.as_deref(), Some("a\\u{a}b\\u{1b}[31m"));
        assert_eq!(one_line(&"y".repeat(600)).chars().count(), QUOTED_MAX.saturating_add(1));
    }

    #[test]
    fn only_an_error_refuses() {
        let mut findings = Findings::new();
        assert!(findings.check("a.b", false, || Finding::error("", "no")));
        findings.push(Finding::warning("w", "hm"));
        assert!(findings.acceptable());
        assert!(!findings.check("a.b", true, || Finding::error("", "no")));
        assert!(!findings.acceptable() && findings.has("a.b"));
    }
}
