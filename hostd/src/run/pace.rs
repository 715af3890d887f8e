//! When to attest next.
//!
//! DESIGN §4, "Time": at the interval that the verifier names, with jitter, and after failures with growing pauses that never sleep
//! through the rest of a lease. Pure: randomness comes as an argument.

use std::time::Duration;

use time::OffsetDateTime;

/// A verifier that asks for more than ten rounds a second is mistaken.
const SHORTEST: Duration = Duration::from_millis(100);
/// However long a lease, a host is looked at each hour.
const LONGEST: Duration = Duration::from_secs(3600);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Rounds are due at a third of the lease.
const ROUNDS_A_LEASE: u32 = 3;
/// How often in a row the verifier may ask for whole logs at once.
const RESENDS: u32 = 3;

/// A number from 0 to 999.
pub(super) type PerMille = u32;

/// What happened so far, as far as the next try depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    interval: Duration,
    failures: u32,
    resends: u32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { interval: LONGEST_PAUSE, failures: 0, resends: 0 }
    }

    /// The pause after a complete round: the verifier's interval, 10 % more or less.
    pub(super) fn after_round(&mut self, next_in_ms: u64, random: PerMille) -> Duration {
        self.interval = Duration::from_millis(next_in_ms).clamp(SHORTEST, LONGEST);
        (self.failures, self.resends) = (0, 0);
        scale(self.interval, 900_u32.saturating_add(random / 5))
    }

    /// The pause before whole logs are sent: none, until the verifier is never content with them.
    pub(super) fn after_resend(&mut self, lease_left: Option<Duration>, random: PerMille) -> Duration {
        self.resends = self.resends.saturating_add(1);
        if self.resends <= RESENDS { Duration::ZERO } else { self.after_failure(lease_left, random) }
    }

    /// The pause after a failure: twice the last, a random part of it, and never more than half of what is left of the lease.
    pub(super) fn after_failure(&mut self, lease_left: Option<Duration>, random: PerMille) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        let within = lease_left.map_or(LONGEST_PAUSE, |left| scale(left, 500));
        let longest = LONGEST_PAUSE.min(self.interval).min(within).max(FIRST_PAUSE);
        scale(doubled.min(longest), 500_u32.saturating_add(random / 2)).max(FIRST_PAUSE)
    }

    /// How long a proof of now holds, as far as a host can know.
    pub(super) const fn lease(&self) -> Duration {
        self.interval.saturating_mul(ROUNDS_A_LEASE)
    }

    /// Tries that failed in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}

fn scale(duration: Duration, per_mille: u32) -> Duration {
    duration.saturating_mul(per_mille).checked_div(1000).unwrap_or_default()
}

/// A certificate is renewed when two thirds of its life are over, in per mille.
const RENEW_AT: u32 = 667;
/// The pause between early renewals that fail: a tenth of what is left, within these bounds.
const RENEWAL_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// When a certificate of this life is due for renewal.
pub(super) fn renewal_due(begin: OffsetDateTime, end: OffsetDateTime) -> OffsetDateTime {
    begin.saturating_add(scale(between(begin, end), RENEW_AT).try_into().unwrap_or_default()).min(end)
}

/// When to try again after a renewal failed at `now`.
pub(super) fn renewal_retry(now: OffsetDateTime, end: OffsetDateTime) -> OffsetDateTime {
    let pause = scale(between(now, end), 100).clamp(RENEWAL_PAUSE.0, RENEWAL_PAUSE.1);
    now.saturating_add(pause.try_into().unwrap_or_default())
}

fn between(begin: OffsetDateTime, end: OffsetDateTime) -> Duration {
    Duration::from_secs(end.unix_timestamp().saturating_sub(begin.unix_timestamp()).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn rounds_come_at_the_interval_with_a_tenth_of_jitter() {
        // next_in_ms, random, pause
        let rows = [
            (20_000, 0, ms(18_000)),
            (20_000, 500, ms(20_000)),
            (20_000, 999, ms(21_980)),
            (0, 500, ms(100)),
            (u64::MAX, 500, LONGEST),
        ];
        for (next, random, expect) in rows {
            assert_eq!(Pace::new().after_round(next, random), expect, "{next} {random}");
        }
    }

    #[test]
    fn pauses_double_and_end_at_thirty_seconds() {
        let mut pace = Pace::new();
        pace.after_round(100_000, 0);
        let pauses: Vec<Duration> = (0..9).map(|_| pace.after_failure(None, 1000)).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000].map(ms));
        assert_eq!(pace.after_failure(None, 0), ms(15_000), "half of it is random");
        pace.after_round(100_000, 0);
        assert_eq!((pace.after_failure(None, 0), pace.failures()), (FIRST_PAUSE, 1), "a round ends the count");
    }

    #[test]
    fn no_pause_sleeps_through_a_lease() {
        // interval, lease left, longest pause
        let rows = [
            (20_000, Some(40_000), 20_000),
            (20_000, Some(10_000), 5000),
            (20_000, Some(100), 500),
            (20_000, Some(0), 500),
            // The lease is over: as often as rounds would be.
            (20_000, None, 20_000),
            (1000, None, 1000),
            (100_000, None, 30_000),
        ];
        for (interval, left, expect) in rows {
            let mut pace = Pace::new();
            pace.after_round(interval, 0);
            for _ in 0..12 {
                let pause = pace.after_failure(left.map(ms), 1000);
                assert!(pause <= ms(expect), "{interval} {left:?}: {pause:?}");
            }
            assert_eq!(pace.after_failure(left.map(ms), 1000), ms(expect), "{interval} {left:?}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        // begin, end, due
        for (begin, end, due) in [(0, 90_000, 60_030), (100, 400, 300), (400, 100, 100), (100, 100, 100)] {
            assert_eq!(renewal_due(at(begin), at(end)).unix_timestamp(), due, "{begin} {end}");
        }
        // now, end, retry
        for (now, end, retry) in [(0, 100, 10), (0, 1_000_000, 3600), (0, 5, 1), (100, 0, 101)] {
            assert_eq!(renewal_retry(at(now), at(end)).unix_timestamp(), retry, "{now} {end}");
        }
    }

    #[test]
    fn whole_logs_are_sent_at_once_three_times() {
        let mut pace = Pace::new();
        let pauses: Vec<Duration> = (0..5).map(|_| pace.after_resend(None, 1000)).collect();
        assert_eq!(pauses, [0, 0, 0, 500, 1000].map(ms));
        pace.after_round(1000, 0);
        assert_eq!(pace.after_resend(None, 0), Duration::ZERO);
    }
}
