//! Why a command gave no answer, and the exit code for it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hostmark_attest::bytes::ParseError;
use hostmark_attest::policy::PolicyError;

/// The exit codes of SURFACE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// All is well.
    Good = 0,
    /// Refused, or changes are pending.
    Refused = 1,
    /// Wrong usage, or an input that cannot be used.
    Unusable = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Good => Self::SUCCESS,
            Exit::Refused => Self::from(1),
            Exit::Unusable => Self::from(2),
        }
    }
}

/// A command without an answer. Its text is one line that says what to do.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// An input or an option that cannot be used.
    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unusable, message: message.into() }
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

    /// Writes the one line to stderr.
    pub(super) fn print(&self) -> Exit {
        let line = one_line(&self.message);
        // Nobody may be listening; the exit code still tells.
        let _ = writeln!(std::io::stderr(), "hostmark: {line}");
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
