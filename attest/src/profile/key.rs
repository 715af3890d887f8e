//! Dotted keys of configuration files, written as in TOML: `a.b.'io.containerd.grpc.v1.cri'.c`.
//!
//! Establishes the segments of a key and one way to write them. Does not establish that a file has such a key.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TEXT_MAX;

/// Deepest key: containerd's longest has nine segments.
const SEGMENTS_MAX: usize = 16;

/// The way to one value of a nested document. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// Reads segments separated by dots; one with other characters than letters, digits, `_`, `-` stands in single or double quotes.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("key `{}`: {why}", crate::finding::one_line(text)));
        if text.len() > TEXT_MAX {
            return bad("it is too long");
        }
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (segment, after) = match rest.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    let Some((inside, after)) = rest.get(1..).and_then(|rest| rest.split_once(quote)) else {
                        return bad("a quote is not closed");
                    };
                    (inside, after)
                }
                _ => {
                    let end = rest.find(|c: char| !is_bare(c)).unwrap_or(rest.len());
                    rest.split_at_checked(end).unwrap_or((rest, ""))
                }
            };
            if segment.is_empty() || segments.len() >= SEGMENTS_MAX {
                return bad("it has an empty segment, a character that needs quotes, or too many segments");
            }
            segments.push(segment.to_owned());
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(segments)),
                None => return bad("segments are separated by dots; quote one that has other characters"),
            }
        }
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// The segments joined by dots without quotes, as [`crate::manifest::EngineState::settings`] names settings.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.0.join(".")
    }
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

impl fmt::Display for KeyPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 {
                out.write_str(".")?;
            }
            match (segment.chars().all(is_bare), segment.contains('\'')) {
                (true, _) => out.write_str(segment)?,
                (false, false) => write!(out, "'{segment}'")?,
                (false, true) => write!(out, "\"{segment}\"")?,
            }
        }
        Ok(())
    }
}

impl Serialize for KeyPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_strictly_and_written_one_way() {
        for (text, expect) in [
            ("icc", Some("icc")),
            ("log-opts.max-size", Some("log-opts.max-size")),
            ("plugins.'io.containerd.grpc.v1.cri'.x", Some("plugins.'io.containerd.grpc.v1.cri'.x")),
            ("plugins.\"io.cri\".x", Some("plugins.'io.cri'.x")),
            ("\"it's\"", Some("\"it's\"")),
            ("'icc'", Some("icc")),
            ("", None),
            (".a", None),
            ("a.", None),
            ("a..b", None),
            ("a b", None),
            ("'a", None),
            ("'a'b", None),
            ("''", None),
        ] {
            assert_eq!(KeyPath::parse(text).ok().map(|key| key.to_string()).as_deref(), expect, "{text}");
        }
        assert_eq!(KeyPath::parse("a.'b.c'").unwrap().dotted(), "a.b.c");
        assert!(KeyPath::parse(&"a.".repeat(40)).is_err());
    }
}
