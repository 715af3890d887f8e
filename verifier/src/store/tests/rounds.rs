//! What a round must still find when it is recorded.

use super::*;

/// A host, and what it last kept.
struct Running {
    desk: Desk,
    host: String,
}

impl Running {
    fn new() -> Self {
        let desk = Desk::new();
        desk.token("t", "node-1", |_| {});
        let (host, _) = desk.activate(&desk.begin(0, 0, Some("t")), 1).unwrap().unwrap();
        Self { desk, host: host.id }
    }

    fn generation(&self) -> u64 {
        self.desk.store.enrolled(&self.host).unwrap().row().generation
    }

    /// Records a round of the host as it was in `generation`, judged by `kept`, which leaves `sealed`.
    fn record(&self, generation: u64, kept: Option<&[u8]>, sealed: &[u8]) -> String {
        let life = Duration::from_secs(60);
        let issued = self.desk.store.issue_nonce(&at(2), &self.host, Purpose::Round, life, "").unwrap();
        let record = RoundRecord {
            host: self.host.clone(),
            generation,
            nonce: issued.nonce,
            disproven: false,
            result: None,
            findings: Vec::new(),
            kept: kept.map(<[u8]>::to_vec),
            sealed: Some(sealed.to_vec()),
            ak_name: Vec::new(),
            policy: ("p".to_owned(), 1),
            tag_serial: None,
        };
        let outcome = self.desk.store.record_round(&at(3), &record, || false);
        outcome.map_or_else(|refusal| refusal.id().to_owned(), |()| "recorded".to_owned())
    }

    fn kept(&self) -> Option<Vec<u8>> {
        self.desk.store.host_state(&self.host).unwrap()
    }
}

#[test]
fn a27_of_two_rounds_in_flight_one_counts() {
    let running = Running::new();
    let round = |kept: Option<&[u8]>, sealed: &[u8]| running.record(running.generation(), kept, sealed);
    // Each by what the one before left.
    assert_eq!((round(None, b"one").as_str(), round(Some(b"one"), b"two").as_str()), ("recorded", "recorded"));
    // Judged by what was there before the other was recorded.
    for late in [None, Some(b"one".as_slice())] {
        assert_eq!(round(late, b"three"), "round.overtaken");
    }
    assert_eq!(running.kept().as_deref(), Some(b"two".as_slice()));
    assert_eq!(round(Some(b"two"), b"three"), "recorded");
}

#[test]
fn a19_a_round_that_judged_the_host_as_it_was_before_counts_for_nothing() {
    let running = Running::new();
    let judged = running.generation();
    // While its evidence is appraised, a person gives the host another label.
    running.desk.store.set_label(&at(2), "operator:a", &running.host, &"public".parse().unwrap()).unwrap();
    assert_eq!(running.record(judged, None, b"one"), "round.superseded");
    assert_eq!(running.kept(), None);
    assert_eq!(running.record(running.generation(), None, b"one"), "recorded", "the honest twin");
}
