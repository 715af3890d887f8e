//! The verifier's two clocks.
//!
//! SURFACE.md, "Permit time": leases and nonces live by CLOCK_BOOTTIME together with the machine's boot id, so that a jump of the wall clock
//! makes no lease longer and a reboot ends them all. Wall-clock time is for display and for signed times only.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where Linux tells which boot this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// One reading of both clocks. Core functions take it as an argument; only [`Clock`] makes one outside tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// The machine's boot id: boot times of different boots are never compared.
    pub boot_id: Arc<str>,
    /// CLOCK_BOOTTIME in milliseconds.
    pub boot_ms: i64,
    /// Wall clock, milliseconds since 1970.
    pub unix_ms: i64,
}

impl Now {
    /// The boot time after `wait`, in milliseconds; saturates.
    #[must_use]
    pub fn boot_after(&self, wait: Duration) -> i64 {
        self.boot_ms.saturating_add(millis(wait))
    }

    /// The wall time after `wait`, in milliseconds; saturates.
    #[must_use]
    pub fn unix_after(&self, wait: Duration) -> i64 {
        self.unix_ms.saturating_add(millis(wait))
    }

    /// Milliseconds until a boot time recorded under `boot_id`: zero when it has passed or belongs to another boot.
    #[must_use]
    pub fn left(&self, boot_id: &str, boot_ms: i64) -> i64 {
        if *self.boot_id == *boot_id { boot_ms.saturating_sub(self.boot_ms).max(0) } else { 0 }
    }

    /// This reading's wall time, RFC 3339.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        rfc3339(self.unix_ms)
    }
}

/// A duration in whole milliseconds; saturates.
#[must_use]
pub fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// A wall time in milliseconds as RFC 3339, in UTC. Out-of-range times read as the epoch.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms).saturating_mul(1_000_000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_else(|_| String::from("1970-01-01T00:00:00Z"))
}

/// The clocks of this machine.
#[derive(Debug, Clone)]
pub struct Clock {
    boot_id: Arc<str>,
}

impl Clock {
    /// Reads the boot id once.
    ///
    /// # Errors
    /// When the kernel does not tell it.
    pub fn new() -> std::io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID_FILE)?;
        Ok(Self { boot_id: Arc::from(text.trim()) })
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { boot_id: Arc::clone(&self.boot_id), boot_ms: millis(boot), unix_ms: millis(unix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_times_of_another_boot_have_passed() {
        let now = Now { boot_id: "a".into(), boot_ms: 1_000, unix_ms: 0 };
        assert_eq!((now.left("a", 1_500), now.left("a", 900), now.left("b", 1_500)), (500, 0, 0));
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.5Z");
    }
}
