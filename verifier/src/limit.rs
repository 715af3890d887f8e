//! A rate limit per client, in bounded memory (D5).

use std::collections::HashMap;
use std::sync::Mutex;

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use crate::clock::Now;
use crate::refusal::{Kind, Outcome, Refusal};

/// Clients remembered at once. Above it the map starts over: a flood of new clients gains each one fresh bucket, never memory.
const CLIENTS_MAX: usize = 65_536;

/// A token bucket per client: a burst of a minute's worth, refilled evenly.
#[derive(Debug)]
pub struct Limiter {
    id: &'static str,
    per_minute: u32,
    /// Client → (tokens in thousandths, boot time of the last refill).
    buckets: Mutex<HashMap<String, (u64, i64)>>,
}

impl Limiter {
    /// A limiter whose refusals carry the finding `id`.
    #[must_use]
    pub fn new(id: &'static str, per_minute: u32) -> Self {
        Self { id, per_minute, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one token of a client.
    ///
    /// # Errors
    /// 429 when there is none.
    pub fn take(&self, client: &str, now: &Now) -> Outcome<()> {
        let full = u64::from(self.per_minute).saturating_mul(60_000);
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(client) {
            buckets.clear();
        }
        let (level, at) = buckets.entry(client.to_owned()).or_insert((full, now.boot_ms));
        let passed = u64::try_from(now.boot_ms.saturating_sub(*at)).unwrap_or(0);
        // One token is 60,000 units, so that `per_minute` units come back per millisecond.
        let available = level.saturating_add(passed.saturating_mul(u64::from(self.per_minute))).min(full);
        *at = now.boot_ms;
        let left = available.checked_sub(60_000);
        *level = left.unwrap_or(available);
        if violated(self.id, left.is_none()) {
            let finding = Finding::error(self.id, "too many requests by this client");
            return Err(Refusal::new(
                Kind::TooMany,
                finding.expected(format!("at most {} a minute", self.per_minute)).fix("wait, then try again"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ms: i64) -> Now {
        Now { boot_id: "b".into(), boot_ms, unix_ms: 0 }
    }

    #[test]
    fn d5_one_client_is_slowed_and_others_are_not() {
        let limiter = Limiter::new("rate.challenges", 60);
        let won = (0..1000).filter(|_| limiter.take("a", &at(0)).is_ok()).count();
        assert_eq!(won, 60);
        assert_eq!(limiter.take("a", &at(0)).unwrap_err().id(), "rate.challenges");
        assert!(limiter.take("b", &at(0)).is_ok());
        assert!(limiter.take("a", &at(1_000)).is_ok() && limiter.take("a", &at(1_000)).is_err());
    }

    #[test]
    fn d5_memory_is_bounded() {
        let limiter = Limiter::new("rate.challenges", 60);
        for n in 0..CLIENTS_MAX.saturating_mul(2) {
            let _ = limiter.take(&n.to_string(), &at(0));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= CLIENTS_MAX);
    }
}
