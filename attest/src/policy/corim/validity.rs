//! When a CoRIM counts: draft-ietf-rats-corim-11 §7.3 (validity-map), §4.2.2 (`nbf` and `exp`).
//!
//! Whole seconds since 1970. A period ends with its not-after: that second is not in it, as in the windows of reference values.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::CorimError;
use super::cbor::{Item, get, need};
use crate::bytes::ParseError;
use crate::finding::{Finding, Findings};

/// Epoch-based time (RFC 8949 §3.4.2).
const EPOCH: u64 = 1;

/// A period, open-ended where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Option<OffsetDateTime>,
    pub(super) until: Option<OffsetDateTime>,
}

impl Validity {
    /// A validity-map.
    pub(super) fn of_map(item: &Item<'_>) -> Result<Self, ParseError> {
        let map = item.map("a period is a map")?;
        let instant = |item: &Item<'_>| {
            let seconds = item.tagged(EPOCH).ok_or_else(|| item.error("a time is not tagged as seconds since 1970"));
            seconds.and_then(instant)
        };
        let from = get(map, 0).map(instant).transpose()?;
        let until = instant(need(map, 1, item.at, "a period has no end")?)?;
        Ok(Self { from, until: Some(until) })
    }

    /// `nbf` and `exp`.
    pub(super) fn of_claims(from: Option<&Item<'_>>, until: Option<&Item<'_>>) -> Result<Self, ParseError> {
        Ok(Self { from: from.map(instant).transpose()?, until: until.map(instant).transpose()? })
    }

    /// What both allow.
    pub(super) fn and(self, other: Self) -> Self {
        let earlier = self.until.into_iter().chain(other.until).min();
        Self { from: self.from.max(other.from), until: earlier }
    }

    /// Refuses what is not valid at `at`.
    pub(super) fn check(self, at: OffsetDateTime) -> Result<(), CorimError> {
        let mut findings = Findings::new();
        let fix = "obtain a newer file from its author, or name the time that you mean";
        let early = self.from.filter(|from| at < *from);
        let late = self.until.filter(|until| at >= *until);
        let _ = findings.check("corim.not-yet", early.is_some(), || {
            Finding::error("", "it is not valid yet").expected(written(early)).found(written(Some(at))).fix(fix)
        }) && findings.check("corim.expired", late.is_some(), || {
            Finding::error("", "it is not valid any more").expected(written(late)).found(written(Some(at))).fix(fix)
        });
        if findings.as_slice().is_empty() { Ok(()) } else { Err(CorimError::Refused(findings)) }
    }
}

/// RFC 3339, as windows have it.
pub(super) fn written(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn instant(item: &Item<'_>) -> Result<OffsetDateTime, ParseError> {
    let seconds = item.integer().ok_or_else(|| item.error("a time is not a whole number of seconds"))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| item.error("a time is beyond the calendar"))
}
