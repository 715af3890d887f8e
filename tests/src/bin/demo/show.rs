//! How the demo speaks: numbered steps, commands with what they printed, and checks that are seen to hold.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::bail;

/// Standard output of the demo.
#[derive(Debug)]
pub(crate) struct Show {
    color: bool,
    step: Cell<u32>,
    checks: Cell<u32>,
    start: Instant,
}

impl Show {
    pub(crate) fn new() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { color, step: Cell::new(0), checks: Cell::new(0), start: Instant::now() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line as it is.
    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody listens any more: the exit code still tells.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Begins a step.
    pub(crate) fn step(&self, title: &str) {
        self.step.set(self.step.get().saturating_add(1));
        let seconds = format!("{:.1} s", self.start.elapsed().as_secs_f64());
        self.line("");
        self.line(&format!(
            "{} {}",
            self.paint("1", &format!("{}. {title}", self.step.get())),
            self.paint("2", &format!("({seconds})"))
        ));
    }

    /// Something to know.
    pub(crate) fn say(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&format!("   {line}"));
        }
    }

    /// A command and what it printed.
    pub(crate) fn command(&self, words: &str, printed: &str) {
        self.say(&self.paint("36", &format!("$ {words}")));
        self.say(printed);
    }

    /// The end of the story: reached only when every check held.
    pub(crate) fn end(&self) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.line("");
        self.line(&format!("All {} checks held, in {seconds:.1} s.", self.checks.get()));
    }

    /// Something that must be true.
    pub(crate) fn check(&self, truth: bool, what: &str) -> anyhow::Result<()> {
        if truth {
            self.checks.set(self.checks.get().saturating_add(1));
            self.say(&format!("{} {what}", self.paint("32", "✓")));
            return Ok(());
        }
        self.say(&format!("{} {what}", self.paint("31", "✗")));
        bail!("not true: {what}")
    }
}
