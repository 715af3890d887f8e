//! A laboratory whose hosts are [`Attester`]s, and what must hold around an attack on it: an honest round is trusted before, the
//! attack is refused by the expected findings and grants nothing, and an honest round is trusted again.

use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::wire::{EnrolmentOutcome, ErrorBody, HostState, RoundOutcome};
use hostmark_verifier::api::types::{CreateToken, CreatedToken, PreregisteredHost, Preregistrations};
use hostmark_verifier::api::views::{ApplyPools, StandingDetail};

use crate::attester::{Attester, Draft, SoftwareEk};
use crate::client::Answer;
use crate::lab::{LABEL, Lab, POOL, host_boot, shipped_files};
use crate::pki::Ca;

/// Pool and admission policy that differ from the laboratory's in one thing: they want a TPM chip.
pub const PRODUCTION: &str = "production";
/// What a test's many requests need beyond the shipped limits.
const LIMITS: &str = "[limits]\nchallenges_per_minute = 100000\nenrolments_per_minute = 100000\n";

/// A verifier with its rules, and the CA of its hosts' TPMs.
pub struct Scene {
    /// Makes EK certificates of class simulated.
    pub ca: Ca,
    /// The verifier and its rules.
    pub lab: Lab,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// Starts a verifier with the shipped rules, the pool [`PRODUCTION`], and top-level lines of verifier.toml.
    #[must_use]
    pub fn start(extra: &str) -> Self {
        Self::trusting(extra, Ca::new("Hostmark", "Software TPMs"))
    }

    /// The same with another CA of simulated TPMs.
    #[must_use]
    pub fn trusting(extra: &str, ca: Ca) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root.pem");
        std::fs::write(&root, ca.certificate.pem()).unwrap();
        let roots = vec![("simulated".to_owned(), root)];
        let lab = Lab::trusting(&directory.path().join("lab"), &format!("{extra}\n{LIMITS}"), roots).unwrap();
        lab.publish_rules().unwrap();
        let scene = Self { ca, lab, _directory: directory };
        scene.add_production();
        scene
    }

    fn add_production(&self) {
        let copied = |kind: &str, from: [&str; 2], to: [&str; 2]| {
            let mut files = shipped_files(kind).unwrap();
            let mut copy = files.iter().find(|file| file.name == POOL).unwrap().clone();
            assert!(copy.toml.contains(from[0]) && copy.toml.contains(from[1]));
            (copy.name, copy.toml) = (PRODUCTION.to_owned(), copy.toml.replace(from[0], to[0]).replace(from[1], to[1]));
            files.push(copy);
            files
        };
        let pools = copied("pools", ["admission = \"lab\"", "dominated"], ["admission = \"production\"", "dominated"]);
        let admission = copied("admission", ["\"simulated\"", "5m"], ["\"hardware\", \"firmware\"", "60s"]);
        let apply = ApplyPools { pools, admission, dry_run: false };
        let _: serde_json::Value = self.lab.admin.post("/v1/pools", &apply).unwrap().read().unwrap();
    }

    /// A host that the verifier has never heard of.
    #[must_use]
    pub fn stranger(&self) -> Attester {
        Attester::boot(&self.lab.verifier, SoftwareEk::new(&self.ca), &host_boot().unwrap())
    }

    /// A host that is enrolled by its pre-registered EK.
    #[must_use]
    pub fn enrolled(&self, node: &str) -> Attester {
        let mut host = self.stranger();
        self.enrol(&mut host, node);
        host
    }

    /// Pre-registers a host's EK and enrols it.
    pub fn enrol(&self, host: &mut Attester, node: &str) {
        let row = PreregisteredHost { ek_id: host.ek.id(), assignment: Lab::assignment(node) };
        let list = Preregistrations { hosts: vec![row] };
        let _: serde_json::Value = self.lab.admin.post("/v1/preregistrations", &list).unwrap().read().unwrap();
        assert!(matches!(host.enrol(None), EnrolmentOutcome::Approved { .. }), "a pre-registered host is approved");
    }

    /// A join token for a node, for TPMs of any class.
    #[must_use]
    pub fn token(&self, node: &str) -> CreatedToken {
        let new = CreateToken {
            assignment: Lab::assignment(node),
            ek_id: None,
            min_class: Some("simulated".to_owned()),
            expires_in: "10m".parse().unwrap(),
        };
        self.lab.admin.post("/v1/tokens", &new).unwrap().read().unwrap()
    }

    /// Where a host stands.
    #[must_use]
    pub fn standing(&self, host: &Attester) -> StandingDetail {
        self.lab.standing(&host.identity().host).unwrap()
    }

    /// Whether a placement gives a permit for this host now.
    #[must_use]
    pub fn placed(&self, host: &Attester) -> bool {
        let placed = self.lab.place(LABEL, 100).unwrap().hosts;
        placed.iter().any(|one| one.host == host.identity().host && !one.permit.is_empty())
    }

    /// The honest twin: a round of this host is trusted, and workloads may be placed on it.
    pub fn trusted(&self, host: &Attester) {
        let mut outcome = host.round();
        if outcome.resend {
            // As hostd does: whole logs, at once.
            outcome = host.round();
        }
        assert_eq!(errors(&outcome.findings), Vec::<String>::new(), "the honest twin");
        assert_eq!(outcome.state, HostState::Proven, "{:?}", outcome.findings);
        assert!(
            outcome.pools.iter().any(|place| place.pool == POOL),
            "{:?}",
            self.lab.verdict(POOL, &host.identity().node)
        );
        assert!(self.placed(host));
    }

    /// A round that lies is refused by exactly these findings: the host is disproven, in no pool, and gets no permit. An honest
    /// round before and another after it are trusted.
    pub fn round_refused(
        &self,
        host: &Attester,
        what: &str,
        expect: &[&str],
        before: impl FnOnce(&mut Draft),
        after: impl FnOnce(&mut Evidence),
    ) {
        self.trusted(host);
        let mut draft = host.draft(&host.challenge());
        before(&mut draft);
        let mut evidence = host.sign(draft);
        after(&mut evidence);
        self.refused_outcome(host, what, expect, &host.send(evidence.encode()));
        self.trusted(host);
    }

    /// The answer to a round refuses it by exactly these findings, and nothing is granted.
    pub fn refused_outcome(&self, host: &Attester, what: &str, expect: &[&str], answer: &Answer) {
        let outcome: RoundOutcome = answer.read().unwrap();
        assert_eq!(errors(&outcome.findings), expect, "{what}: {:?}", outcome.findings);
        assert!(!outcome.resend, "{what}");
        assert_eq!((outcome.state, outcome.pools.len()), (HostState::Disproven, 0), "{what}");
        assert!(!self.placed(host), "{what}: a permit for a host whose evidence was refused");
        let told = self.standing(host);
        assert!(told.pools.iter().all(|pool| !pool.admitted), "{what}");
    }

    /// What `attack` sends is refused with this status and exactly these findings, and what was proven before stays as it was.
    pub fn refused(&self, host: &Attester, what: &str, status: u16, expect: &[&str], attack: impl FnOnce() -> Answer) {
        self.trusted(host);
        let before = self.standing(host);
        let answer = attack();
        assert_eq!((answer.status, refusal(&answer)), (status, owned(expect)), "{what}: {answer}");
        let after = self.standing(host);
        assert_eq!(
            (after.fields.state, &after.result),
            (HostState::Proven, &before.result),
            "{what}: nothing is renewed"
        );
        self.trusted(host);
    }
}

/// The ids as `errors` and `refusal` give them.
#[must_use]
pub fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// The ids of the findings that refuse, sorted, each once.
#[must_use]
pub fn errors(findings: &[Finding]) -> Vec<String> {
    let mut ids: Vec<String> =
        findings.iter().filter(|one| one.severity == Severity::Error).map(|one| one.id.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// The ids of the findings in an answer that refuses, as [`errors`] gives them.
#[must_use]
pub fn refusal(answer: &Answer) -> Vec<String> {
    let body: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let mut all = body.findings;
    all.push(body.error);
    errors(&all)
}
