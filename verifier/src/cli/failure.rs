//! Why a command gave no answer, and the exit code for it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hostmark_attest::bytes::ParseError;
use hostmark_attest::finding::Finding;
use hostmark_attest::policy::PolicyError;
use hostmark_attest::wire::ErrorBody;

/// The exit codes of SURFACE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// All is well.
    Good = 0,
    /// Refused, or changes are pending.
    Refused = 1,
    /// Wrong usage, or an input that cannot be used.
    Unusable = 2,
    /// The verifier does not answer.
    Unreachable = 3,
    /// Less than was asked for.
    Partial = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Good => Self::SUCCESS,
            Exit::Refused => Self::from(1),
            Exit::Unusable => Self::from(2),
            Exit::Unreachable => Self::from(3),
            Exit::Partial => Self::from(4),
        }
    }
}

/// A command without an answer. Its text is one line that says what to do.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
    /// Further reasons, one line each.
    more: Vec<String>,
    /// The verifier's own words, for `--output json`.
    body: Option<Box<ErrorBody>>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), more: Vec::new(), body: None }
    }

    /// An input or an option that cannot be used.
    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unusable, message)
    }

    /// The verifier does not answer, or not as a verifier.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// The verifier refuses what was asked.
    pub(super) fn refused(message: impl Into<String>, others: &[Finding]) -> Self {
        Self { more: others.iter().map(ToString::to_string).collect(), ..Self::new(Exit::Refused, message) }
    }

    /// Adds the verifier's own words.
    pub(super) fn with(self, body: &ErrorBody) -> Self {
        Self { body: Some(Box::new(body.clone())), ..self }
    }

    /// A malformed file: its name, the byte, and why.
    pub(super) fn malformed(file: &str, error: &ParseError) -> Self {
        Self::unusable(format!("{file}: {error}"))
    }

    /// A file that the system does not give or take.
    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::unusable(format!("{}: {error}", path.display()))
    }

    /// A policy, pool or reference file that is not valid, under the name by which the user knows it.
    pub(super) fn policy(file: &str, error: &PolicyError) -> Self {
        Self::unusable(policy_problem(file, error))
    }

    /// What went wrong.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Writes the line to stderr, each further reason on a line of its own, and the verifier's words to stdout where JSON is asked for.
    pub(super) fn print(&self, json: bool) -> Exit {
        // Nobody may be listening; the exit code still tells.
        for line in std::iter::once(&self.message).chain(&self.more) {
            let _ = writeln!(std::io::stderr(), "hostmark: {}", one_line(line));
        }
        if let Some(text) = self.body.as_ref().filter(|_| json).and_then(|body| serde_json::to_string_pretty(body).ok())
        {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        self.exit
    }
}

/// The line for a policy file's error, with the file's own path.
pub(super) fn policy_problem(file: &str, error: &PolicyError) -> String {
    match error {
        PolicyError::Toml { line, column, problem, .. } => {
            format!("{file}: line {line}, column {column}: {problem}")
        }
        PolicyError::Invalid { id, problem, .. } => format!("{file}: {id}: {problem}"),
        other => other.to_string(),
    }
}

/// Control characters, also those in file names, become escapes: a failure is one line.
pub(super) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}
