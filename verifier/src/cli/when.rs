//! Times as people give and read them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failure::Failure;

/// RFC 3339, or seconds since 1970.
pub(super) fn parse(text: &str) -> Result<OffsetDateTime, String> {
    let seconds = text.strip_prefix('@').unwrap_or(text).parse::<i64>().ok();
    match seconds {
        Some(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        None => OffsetDateTime::parse(text, &Rfc3339).ok(),
    }
    .ok_or_else(|| "write RFC 3339, as in 2026-11-22T09:00:00Z, or seconds since 1970".to_owned())
}

/// This machine's time, to the nanosecond: a permit that was signed in this second must not seem to begin in the future.
pub(super) fn now() -> Result<OffsetDateTime, Failure> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i128::try_from(since.as_nanos()).ok());
    since
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .ok_or_else(|| Failure::unusable("this machine's clock shows no usable time: set it, or name a time with --at"))
}

/// Milliseconds since 1970.
pub(super) fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// Seconds since 1970 as RFC 3339; the number itself where no calendar has it.
pub(super) fn from_seconds(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|at| at.format(&Rfc3339).ok());
    at.unwrap_or_else(|| seconds.to_string())
}

/// Milliseconds since 1970 as RFC 3339, whole seconds.
pub(super) fn from_millis(millis: i64) -> String {
    from_seconds(millis.div_euclid(1000))
}
