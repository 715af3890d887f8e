//! Durations as people write them, in files and on a command line: `500ms`, `90s`, `5m`, `24h`, `30d`.
//!
//! One type for pools, policies, configurations and the API, so that all of them read and refuse alike.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest span that anybody may ask for, in milliseconds: ten years.
const MAX_MS: u64 = 10 * 366 * 86_400_000;

/// A duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// Not a number with a unit.
    #[error("`{0}` is not a duration; write 500ms, 90s, 5m, 24h or 30d")]
    Form(String),
    /// Above the limit.
    #[error("`{0}` is longer than ten years")]
    TooLong(String),
}

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// Whole hours.
    #[must_use]
    pub const fn hours(count: u64) -> Self {
        Self::seconds(count.saturating_mul(3600))
    }

    /// In milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let form = || SpanError::Form(text.to_owned());
        let (count, unit) =
            text.find(|c: char| !c.is_ascii_digit()).and_then(|at| text.split_at_checked(at)).ok_or_else(form)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(form()),
        };
        // No digits are no number; more digits than a number has are too long.
        let count: u64 = match count.parse() {
            Ok(count) => count,
            Err(_) if count.is_empty() => return Err(form()),
            Err(_) => return Err(SpanError::TooLong(text.to_owned())),
        };
        let ms = count.checked_mul(factor).filter(|ms| *ms <= MAX_MS);
        ms.map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| SpanError::TooLong(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(out, "{}s", self.0.as_secs())
        } else {
            write!(out, "{}ms", self.millis())
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_strictly_and_written_as_they_are_read() {
        let rows: [(&str, Result<u64, &str>); 16] = [
            ("500ms", Ok(500)),
            ("0s", Ok(0)),
            ("90s", Ok(90_000)),
            ("5m", Ok(300_000)),
            ("24h", Ok(86_400_000)),
            ("3660d", Ok(MAX_MS)),
            ("3661d", Err("longer than ten years")),
            ("99999999999999999999s", Err("longer than ten years")),
            ("18446744073709551615d", Err("longer than ten years")),
            ("", Err("not a duration")),
            ("s", Err("not a duration")),
            ("5", Err("not a duration")),
            ("5 s", Err("not a duration")),
            ("-5s", Err("not a duration")),
            ("1h30m", Err("not a duration")),
            ("5µs", Err("not a duration")),
        ];
        for (text, expect) in rows {
            match (text.parse::<Span>(), expect) {
                (Ok(span), Ok(ms)) => {
                    assert_eq!(span.millis(), ms, "{text}");
                    let written = serde_json::to_string(&span).unwrap();
                    assert_eq!(serde_json::from_str::<Span>(&written).unwrap(), span, "{written}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (got, want) => panic!("{text}: {got:?}, expected {want:?}"),
            }
        }
    }
}
