//! Where each host stands now: a cache of the store, brought up to date before every answer.
//!
//! The Relying Party's memory. It holds verified Attestation Results and what each pool makes of them. It is never the truth:
//! the store tells what changed, whoever changed it, so two verifiers on one store answer alike. State is a matter of time:
//! `lapsed` is computed at the moment of asking and stored nowhere (law 2).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hostmark_attest::admission::{Admission, Condition, HostRecord, admit, explain};
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::pool::Mode;
use hostmark_attest::result::{SharedResults, VerifiedResult};
use hostmark_attest::wire::HostState;

use crate::clock::{Now, millis};
use crate::keys::Keys;
use crate::refusal::{Kind, Outcome};
use crate::rules::{CompiledPool, Rules};
use crate::store::{Assignment, HostRow, Store, StoredResult};

/// What placement needs of a host's row. Its keys and certificates stay in the store: there are many hosts.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Host id.
    pub id: String,
    /// Node, scheduler, label, policy.
    pub assignment: Assignment,
    /// TPM class at enrolment.
    pub class: String,
    /// Whether an asset tag was assigned to it.
    pub tag_assigned: bool,
    /// End of planned maintenance, milliseconds since 1970; 0 for none.
    pub maintenance_until_unix_ms: i64,
}

impl From<&HostRow> for Placed {
    fn from(row: &HostRow) -> Self {
        Self {
            id: row.id.clone(),
            assignment: row.assignment.clone(),
            class: row.class.clone(),
            tag_assigned: row.tag_nv.is_some(),
            maintenance_until_unix_ms: row.maintenance_until_unix_ms,
        }
    }
}

/// One host.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The host's row, as enrolment sealed it.
    pub row: Placed,
    /// Its last completed round, without the signed result: that is the store's, and verified below.
    pub last: Option<StoredResult>,
    /// The Attestation Result of that round, verified.
    pub result: Option<Arc<VerifiedResult>>,
    /// Why the stored result is not usable, if it is not.
    pub refused: Vec<Finding>,
    /// Pools whose every condition but time holds, with the age in milliseconds at which the proof ends for them.
    eligible: Vec<(String, u64)>,
}

impl Standing {
    fn load(store: &Store, keys: &Keys, host: &str, now: &Now) -> Outcome<Option<Self>> {
        let row = match store.enrolled(host) {
            Ok(enrolled) => Placed::from(enrolled.row()),
            // Not known now is not "gone": the change stays unread, and the next answer looks again.
            Err(refusal) if refusal.kind == Kind::Unavailable => return Err(refusal),
            // Retired, unknown, malformed, or changed from outside: it stands nowhere.
            Err(refusal) => {
                tracing::debug!(host, %refusal, "host has no standing");
                return Ok(None);
            }
        };
        let mut refused = Vec::new();
        let mut last = match store.result(host) {
            Err(refusal) if refusal.kind == Kind::Unavailable => return Err(refusal),
            // One host's bad row is that host's trouble alone.
            Err(refusal) => {
                refused.push(*refusal.first);
                None
            }
            Ok(last) => last,
        };
        let mut result = None;
        if let Some(token) = last.as_mut().and_then(|last| last.result.take()) {
            let seconds = now.unix_ms.div_euclid(1000);
            match VerifiedResult::verify(&token, &keys.results_set(), host, seconds) {
                Ok(verified) => result = Some(Arc::new(verified)),
                Err(findings) => refused.extend(findings.into_vec()),
            }
        }
        Ok(Some(Self { row, last, result, refused, eligible: Vec::new() }))
    }

    /// Works out, once per result and rules, for which pools only time decides.
    fn settle(&mut self, rules: &Rules) {
        let good = self.last.as_ref().is_some_and(|last| !last.disproven);
        let Some(result) = self.result.as_deref().filter(|_| good) else {
            self.eligible.clear();
            return;
        };
        let assignment = &self.row.assignment;
        let host = HostRecord {
            node: &assignment.node,
            clearance: &assignment.label,
            maintenance: false,
            tag_assigned: self.row.tag_assigned,
        };
        self.eligible = rules
            .pools()
            .filter(|one| admit(&one.pool, &one.admission, rules.levels(), &host, result, 0).is_ok())
            .map(|one| (one.pool.name().to_owned(), limit(one)))
            .collect();
    }

    /// Milliseconds since the last round's nonce was issued; None when there was none in this boot of the verifier's machine.
    #[must_use]
    pub fn age_ms(&self, now: &Now) -> Option<u64> {
        let last = self.last.as_ref().filter(|last| *last.boot_id == *now.boot_id)?;
        u64::try_from(now.boot_ms.checked_sub(last.issued_boot_ms)?).ok()
    }

    /// The host's state at `now`. `lease_ms` is the longest that its proof may carry.
    #[must_use]
    pub fn state(&self, now: &Now, lease_ms: i64) -> HostState {
        if self.in_maintenance(now) {
            return HostState::Maintenance;
        }
        match (&self.last, self.age_ms(now)) {
            (None, _) => HostState::Unproven,
            (Some(last), _) if last.disproven => HostState::Disproven,
            (Some(_), Some(age))
                if self.fresh_result(now).is_some() && i64::try_from(age).is_ok_and(|age| age < lease_ms) =>
            {
                HostState::Proven
            }
            _ => HostState::Lapsed,
        }
    }

    /// The result while its signed end lies ahead: whoever writes the database can move the times beside it, never this one.
    fn fresh_result(&self, now: &Now) -> Option<&VerifiedResult> {
        let result = self.result.as_deref()?;
        (now.unix_ms < result.expires().saturating_mul(1000)).then_some(result)
    }

    fn in_maintenance(&self, now: &Now) -> bool {
        now.unix_ms < self.row.maintenance_until_unix_ms
    }

    fn record(&self, now: &Now) -> HostRecord<'_> {
        HostRecord {
            node: &self.row.assignment.node,
            clearance: &self.row.assignment.label,
            maintenance: self.in_maintenance(now),
            tag_assigned: self.row.tag_assigned,
        }
    }

    /// Every condition of a pool.
    #[must_use]
    pub fn explain(&self, pool: &CompiledPool, rules: &Rules, now: &Now) -> Vec<Condition> {
        let shown = self.fresh_result(now).zip(self.age_ms(now));
        let (result, age) = shown.map_or((None, 0), |(result, age)| (Some(result), age));
        explain(&pool.pool, &pool.admission, rules.levels(), &self.record(now), result, age)
    }

    /// This host as other rules would see it.
    #[must_use]
    pub fn under(&self, rules: &Rules) -> Self {
        let mut other = self.clone();
        other.settle(rules);
        other
    }

    /// Milliseconds that are left of the host's place in a pool at `now`; None when it has none.
    #[must_use]
    pub fn left_ms(&self, pool: &str, now: &Now) -> Option<u64> {
        let (_, limit) = self.eligible.iter().find(|(name, _)| name == pool)?;
        if self.in_maintenance(now) || self.fresh_result(now).is_none() {
            return None;
        }
        limit.checked_sub(self.age_ms(now)?).filter(|left| *left > 0)
    }

    /// The admission to a pool at `now`, every condition checked again, with the milliseconds that are left of it.
    #[must_use]
    pub fn admission(&self, pool: &CompiledPool, rules: &Rules, now: &Now) -> Option<(Admission, u64)> {
        let left = self.left_ms(pool.pool.name(), now)?;
        let (result, age) = (self.fresh_result(now)?, self.age_ms(now)?);
        let admission = admit(&pool.pool, &pool.admission, rules.levels(), &self.record(now), result, age).ok()?;
        Some((admission, left))
    }

    /// The enforcing pools that admit the host at `now`, with the milliseconds that are left.
    #[must_use]
    pub fn pools(&self, rules: &Rules, now: &Now) -> Vec<(String, u64)> {
        let enforced = |name: &str| rules.pool(name).is_some_and(|one| one.pool.mode() == Mode::Enforce);
        let places = self.eligible.iter().filter(|(name, _)| enforced(name));
        places.filter_map(|(name, _)| Some((name.clone(), self.left_ms(name, now)?))).collect()
    }

    /// How often the host must attest: a third of the shortest lease among the pools whose label it may carry.
    #[must_use]
    pub fn interval_ms(&self, rules: &Rules) -> u64 {
        let clearance = &self.row.assignment.label;
        let mine = rules.pools().filter(|one| rules.levels().dominates(clearance, one.pool.label()));
        let shortest = mine.map(|one| millis(one.pool.lease())).min().unwrap_or(60_000);
        u64::try_from(shortest.div_euclid(3).max(1)).unwrap_or(20_000)
    }

    /// All findings of the last round, the heaviest first.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut all = self.last.as_ref().map(|last| last.findings.clone()).unwrap_or_default();
        all.extend(self.refused.iter().cloned());
        if let Some(result) = &self.result {
            all.extend(result.submodules().values().flat_map(|one| one.findings.iter().cloned()));
        }
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all
    }

    /// The finding that a person should read first, where there is one beyond information.
    #[must_use]
    pub fn reason(&self) -> Option<Finding> {
        self.findings().into_iter().find(|finding| finding.severity != Severity::Info)
    }
}

/// The age in milliseconds at which a proof ends for a pool: its lease, or sooner where the admission policy says so.
fn limit(pool: &CompiledPool) -> u64 {
    let lease = u64::try_from(millis(pool.pool.lease())).unwrap_or_default();
    lease.min(pool.admission.max_age_ms())
}

/// All hosts and the rules in force.
#[derive(Debug, Default)]
pub struct Standings {
    inner: RwLock<Inner>,
    /// Held by whoever brings the cache up to date: two at once could put back what a later change had removed. Keeps what results say.
    refreshing: Mutex<SharedResults>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: i64,
    rules_seen: Option<i64>,
    trust_seen: Option<Arc<crate::trust::Trust>>,
    hosts: HashMap<String, Arc<Standing>>,
    rules: Arc<Rules>,
}

/// A consistent view at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// The hosts by id.
    pub hosts: BTreeMap<String, Arc<Standing>>,
}

impl Standings {
    /// Brings the cache up to date. Every answer about trust begins with this.
    ///
    /// # Errors
    /// 503 when the store is away: then nothing is granted.
    pub fn refresh(
        &self,
        store: &Store,
        keys: &Keys,
        trust: &Arc<crate::trust::Trust>,
        config: &crate::config::Config,
        now: &Now,
    ) -> Outcome<()> {
        let current = || -> Outcome<_> {
            let (seen, rules_seen, trust_seen) = {
                let inner = self.read();
                let same_trust = inner.trust_seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, trust));
                (inner.seen, inner.rules_seen, same_trust)
            };
            let changes = store.changes(seen)?;
            let same_rules = rules_seen == Some(changes.rules) && trust_seen;
            Ok((changes.newest != seen || !same_rules).then_some((same_rules, changes)))
        };
        if current()?.is_none() {
            return Ok(());
        }
        let mut results = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((same_rules, changes)) = current()? else { return Ok(()) };
        let rules = if same_rules {
            None
        } else {
            Some(Arc::new(Rules::compile(&store.rules()?, &trust.signers, &config.levels)))
        };
        let mut changed = Vec::with_capacity(changes.hosts.len());
        for host in changes.hosts {
            let mut standing = Standing::load(store, keys, &host, now)?;
            // At once: after a start all hosts are loaded, and no more than one result of many equal ones is ever held.
            if let Some(standing) = &mut standing {
                let result = standing.result.take().map(Arc::unwrap_or_clone);
                standing.result = result.map(|result| Arc::new(result.shared(&mut results)));
            }
            changed.push((host, standing));
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = rules {
            for standing in inner.hosts.values_mut() {
                Arc::make_mut(standing).settle(&rules);
            }
            inner.rules = rules;
            inner.rules_seen = Some(changes.rules);
            inner.trust_seen = Some(Arc::clone(trust));
        }
        let rules = Arc::clone(&inner.rules);
        for (host, standing) in changed {
            match standing {
                Some(mut standing) => {
                    standing.settle(&rules);
                    inner.hosts.insert(host, Arc::new(standing))
                }
                None => inner.hosts.remove(&host),
            };
        }
        inner.seen = inner.seen.max(changes.newest);
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.read().rules)
    }

    /// One host and the rules.
    #[must_use]
    pub fn host(&self, id: &str) -> Option<(Arc<Standing>, Arc<Rules>)> {
        let inner = self.read();
        Some((Arc::clone(inner.hosts.get(id)?), Arc::clone(&inner.rules)))
    }

    /// All hosts and the rules.
    #[must_use]
    pub fn view(&self) -> View {
        let inner = self.read();
        View {
            rules: Arc::clone(&inner.rules),
            hosts: inner.hosts.iter().map(|(id, standing)| (id.clone(), Arc::clone(standing))).collect(),
        }
    }
}
