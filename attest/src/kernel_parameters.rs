//! The kernel's command line as the kernel reads it: Linux `lib/cmdline.c` (next_arg), `kernel/params.c` (parse_args).
//!
//! Establishes which parameters a command line holds. Does **not** establish that the kernel knows them or obeys: PCR 4 and 11
//! name the kernel. Whether the text is the one the kernel was given is [`crate::boot_log`]'s question.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One parameter: `name` or `name=value`, quotes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Option<Cow<'a, str>>,
}

impl Parameter<'_> {
    /// The name as given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, where there is one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// Whether the kernel takes it for this name: `-` and `_` are one to it.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
        self.name.bytes().map(plain).eq(name.bytes().map(plain))
    }
}

/// What the kernel takes for space: ASCII's, and the Latin-1 no-break space.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0)
}

/// The parameters in their order, up to a `--`: what follows is init's.
pub fn parameters(line: &str) -> impl Iterator<Item = Parameter<'_>> {
    let mut rest = line.as_bytes();
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !is_space(*byte))?;
        let words = rest.get(start..)?;
        let mut quoted = false;
        let end = words.iter().position(|byte| {
            quoted ^= *byte == b'"';
            !quoted && is_space(*byte)
        });
        let word = words.get(..end.unwrap_or(words.len()))?;
        rest = words.get(word.len()..)?;
        Some(parameter(word))
    })
    .take_while(|one| one.value.is_some() || one.name != "--")
}

/// As `next_arg` splits one word: a name has at least one character, whatever it is, and one closing quote goes at most.
fn parameter(word: &[u8]) -> Parameter<'_> {
    let (quoted, word) = word.strip_prefix(b"\"").map_or((false, word), |inner| (true, inner));
    let closed = |text: &'_ [u8]| text.strip_suffix(b"\"").map_or(text.len(), <[u8]>::len);
    let Some(before) = word.iter().skip(1).position(|byte| *byte == b'=') else {
        let end = if quoted { closed(word) } else { word.len() };
        return Parameter { name: String::from_utf8_lossy(word.get(..end).unwrap_or(word)), value: None };
    };
    let (name, value) = word.split_at(before.saturating_add(1));
    let value = value.get(1..).unwrap_or_default();
    let opened = value.strip_prefix(b"\"");
    let value = opened.unwrap_or(value);
    let end = if quoted || opened.is_some() { closed(value) } else { value.len() };
    let value = value.get(..end).unwrap_or(value);
    Parameter { name: String::from_utf8_lossy(name), value: Some(String::from_utf8_lossy(value)) }
}

/// Longest command line of which a kernel keeps all: x86's COMMAND_LINE_SIZE, its closing NUL left out. Other architectures keep more.
const KEPT_MAX: usize = 2047;

/// Whether a kernel reads this text as it stands. What is longer is cut (`efi_convert_cmdline`, `COMMAND_LINE_SIZE`), the EFI stub stops at a
/// newline or NUL, and takes a character beyond ASCII for several or none: then other words count than a reader sees.
#[must_use]
pub fn reads_whole(line: &str) -> bool {
    line.len() <= KEPT_MAX && line.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// How far a kernel restricts root (kernel_lockdown(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// The command line does not ask for it. A kernel may lock itself down for another reason.
    None,
    /// Root cannot change the kernel.
    Integrity,
    /// Root cannot read the kernel's secrets either.
    Confidentiality,
}

impl Lockdown {
    /// What a command line asks for. A later parameter can only raise it. An `lsm=` list without `lockdown` leaves the module
    /// out on kernels that do not start it early.
    #[must_use]
    pub fn of(line: &str) -> Self {
        let modules = parameters(line).filter(|one| one.is_named("lsm")).last();
        let left_out =
            modules.is_some_and(|list| list.value().is_none_or(|list| list.split(',').all(|one| one != "lockdown")));
        if left_out {
            return Self::None;
        }
        let asked = parameters(line).filter(|one| one.is_named("lockdown"));
        asked
            .filter_map(|one| match one.value()? {
                "integrity" => Some(Self::Integrity),
                "confidentiality" => Some(Self::Confidentiality),
                _ => None,
            })
            .max()
            .unwrap_or(Self::None)
    }

    /// `none`, `integrity` or `confidentiality`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Whether the kernel starts with its built-in IMA policy `tcb` (`ima_policy=` takes several, separated by `|`).
#[must_use]
pub fn boots_with_tcb(line: &str) -> bool {
    let mut named = parameters(line).filter(|one| one.is_named("ima_policy"));
    named.any(|one| one.value().is_some_and(|value| value.split([' ', '|', '\n']).any(|policy| policy == "tcb")))
}

/// Whether a kernel with this command line looks for an image of itself to resume from, which no PCR holds.
#[must_use]
pub fn resumes_from_disk(line: &str) -> bool {
    let given = |name: &str| parameters(line).any(|one| one.is_named(name));
    let refused =
        parameters(line).any(|one| one.is_named("hibernate") && matches!(one.value(), Some("no" | "noresume")));
    given("resume") && !given("noresume") && !given("nohibernate") && !refused
}

/// A demand on a command line's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// `name`: given, with whatever value. `name=value`: given with this value, and with no value that is not listed too.
    #[serde(default)]
    pub has: Vec<String>,
    /// `name`: not given at all. `name=value`: not given with this value.
    #[serde(default)]
    pub lacks: Vec<String>,
}

impl Words {
    /// Whether each word is one parameter, and there is any.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut words = self.has.iter().chain(&self.lacks).peekable();
        let nameless = |one: Parameter<'_>| one.name().is_empty() || one.name().starts_with('=');
        let one = |word: &String| parameters(word).count() == 1 && !parameters(word).any(nameless);
        words.peek().is_some() && words.all(one)
    }

    /// Whether a command line meets the demand.
    #[must_use]
    pub fn accept(&self, line: &str) -> bool {
        let given: Vec<Parameter<'_>> = parameters(line).collect();
        let has: Vec<Parameter<'_>> = self.has.iter().flat_map(|word| parameters(word)).collect();
        let lacks: Vec<Parameter<'_>> = self.lacks.iter().flat_map(|word| parameters(word)).collect();
        let is_given = |wanted: &Parameter<'_>| {
            let same = |one: &Parameter<'_>| wanted.value().is_none() || one.value() == wanted.value();
            given.iter().any(|one| one.is_named(wanted.name()) && same(one))
        };
        let listed = |one: &Parameter<'_>| {
            let same = || has.iter().filter(|wanted| wanted.is_named(one.name()));
            same().next().is_none() || same().any(|wanted| wanted.value().is_none() || wanted.value() == one.value())
        };
        has.iter().all(is_given) && given.iter().all(listed) && !lacks.iter().any(is_given)
    }
}

impl fmt::Display for Words {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.has.is_empty() {
            parts.push(format!("with {}", self.has.join(" ")));
        }
        if !self.lacks.is_empty() {
            parts.push(format!("without {}", self.lacks.join(" ")));
        }
        out.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_the_kernel_does() {
        type Row = (&'static str, &'static [(&'static str, Option<&'static str>)]);
        let rows: [Row; 12] = [
            ("", &[]),
            ("\"name=\"x\"\"", &[("name", Some("x\""))]),
            ("name=\"x\"\"", &[("name", Some("x\""))]),
            ("\"name=x\"", &[("name", Some("x"))]),
            ("name=\"", &[("name", Some(""))]),
            ("=a=b =c", &[("=a", Some("b")), ("=c", None)]),
            ("a\"b c\"=d", &[("a\"b c\"", Some("d"))]),
            ("  ro\tquiet \n", &[("ro", None), ("quiet", None)]),
            ("a=b=c d=", &[("a", Some("b=c")), ("d", Some(""))]),
            ("dyndbg=\"file a +p; b\" x", &[("dyndbg", Some("file a +p; b")), ("x", None)]),
            ("\"init=/bin/sh -c\" y", &[("init", Some("/bin/sh -c")), ("y", None)]),
            ("ro -- lockdown=integrity", &[("ro", None)]),
        ];
        for (line, expect) in rows {
            let found: Vec<_> = parameters(line).collect();
            let found: Vec<_> = found.iter().map(|one| (one.name(), one.value())).collect();
            assert_eq!(found, expect, "{line}");
        }
    }

    #[test]
    fn a_text_that_the_kernel_reads_otherwise_is_told() {
        let long = |length: usize| "x".repeat(length);
        for (line, expect) in [
            ("", true),
            ("ro lockdown=integrity", true),
            (long(2047).as_str(), true),
            (long(2048).as_str(), false),
            ("ro\nlockdown=integrity", false),
            ("ro\0lockdown=integrity", false),
            ("ro\tquiet", false),
            ("ro \u{a0}lockdown=integrity", false),
            ("ro \u{e9}", false),
            ("ro \u{7f}", false),
        ] {
            assert_eq!(reads_whole(line), expect, "{line:?}");
        }
    }

    #[test]
    fn lockdown_is_what_the_words_ask_for() {
        let rows = [
            ("ro", Lockdown::None),
            ("lockdown=integrity", Lockdown::Integrity),
            ("lockdown=integrity lockdown=none", Lockdown::Integrity),
            ("lockdown=integrity lockdown=confidentiality", Lockdown::Confidentiality),
            ("lockdown lockdown=Integrity xlockdown=integrity", Lockdown::None),
            ("foo=\"lockdown=integrity\" init=\"x lockdown=integrity\"", Lockdown::None),
            ("-- lockdown=integrity", Lockdown::None),
            ("lockdown=integrity lsm=lockdown,yama", Lockdown::Integrity),
            ("lockdown=integrity lsm=yama", Lockdown::None),
            ("lockdown=integrity lsm=yama lsm=lockdown", Lockdown::Integrity),
        ];
        for (line, expect) in rows {
            assert_eq!(Lockdown::of(line), expect, "{line}");
        }
    }

    #[test]
    fn the_built_in_policy_tcb_is_one_of_those_asked_for() {
        for (line, expect) in [
            ("ima_policy=tcb", true),
            ("console=ttyS0  ima_policy=tcb panic=-1", true),
            ("ima_policy=critical_data|tcb", true),
            ("ima_policy=\"critical_data tcb\"", true),
            ("\"ima_policy=tcb\"", true),
            ("ima_policy=secure_boot ima_policy=tcb", true),
            ("", false),
            ("ima_policy", false),
            ("ima_policy=", false),
            ("ima_policy=tcbx", false),
            ("ima_policy=appraise_tcb", false),
            ("xima_policy=tcb", false),
            ("ima_policy_x=tcb", false),
            ("note=\"boot with ima_policy=tcb next time\"", false),
            ("panic=-1 -- ima_policy=tcb", false),
        ] {
            assert_eq!(boots_with_tcb(line), expect, "{line}");
        }
    }

    #[test]
    fn a_host_that_may_resume_from_disk_is_told_by_its_words() {
        let rows = [
            ("root=/dev/vda2 ro", false),
            ("resume=UUID=1 ro", true),
            ("resume=UUID=1 noresume", false),
            ("resume=UUID=1 nohibernate", false),
            ("resume=UUID=1 hibernate=no", false),
            ("resume_offset=12 resumewait", false),
        ];
        for (line, expect) in rows {
            assert_eq!(resumes_from_disk(line), expect, "{line}");
        }
    }

    #[test]
    fn words_are_demanded_one_by_one() {
        let words = |has: &[&str], lacks: &[&str]| Words {
            has: has.iter().map(|one| (*one).to_owned()).collect(),
            lacks: lacks.iter().map(|one| (*one).to_owned()).collect(),
        };
        let line = "ro lockdown=integrity ima-policy=tcb ima_policy=critical_data";
        let rows = [
            (words(&["lockdown=integrity"], &[]), true),
            (words(&["lockdown"], &["init"]), true),
            (words(&["lock"], &[]), false),
            (words(&["lockdown=confidentiality"], &[]), false),
            (words(&["ima_policy=tcb", "ima_policy=critical_data"], &[]), true),
            // Another value stands beside the wanted one: which of them counts is the parameter's own matter.
            (words(&["ima_policy=tcb"], &[]), false),
            (words(&[], &["ima_policy=tcb"]), false),
            (words(&[], &["ima_policy=secure_boot"]), true),
            (words(&[], &["ro"]), false),
        ];
        for (want, expect) in rows {
            assert!(want.is_sound(), "{want}");
            assert_eq!(want.accept(line), expect, "{want}");
        }
        for unsound in
            [words(&[], &[]), words(&["a b"], &[]), words(&[], &[""]), words(&["=x"], &[]), words(&["--"], &[])]
        {
            assert!(!unsound.is_sound(), "{unsound:?}");
        }
    }
}
