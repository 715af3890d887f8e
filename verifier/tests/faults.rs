//! D20: what panics inside a command or an appraisal is an internal error that changes nothing and stops nobody else.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::Running;
use hostmark_verifier::auth::Role;
use hostmark_verifier::refusal::Kind;
use reqwest::StatusCode;

#[tokio::test(flavor = "multi_thread")]
async fn d20_a_panic_is_an_error_and_changes_nothing() {
    let verifier = Running::start().await;
    let admin = verifier.client(Role::Admin, "tester");
    let before = verifier.audit_length();
    for _ in 0..8 {
        let appraisal =
            verifier.state.compute(|_| -> Result<(), _> { panic!("inside an appraisal") }).await.unwrap_err();
        assert_eq!((appraisal.kind, appraisal.id()), (Kind::Internal, "error"));
        let command = verifier.state.compute(|state| {
            let now = state.now();
            state.store.write(&now, |tx| -> Result<(), _> {
                tx.audit("test", "half.done", "x", &serde_json::json!({}))?;
                panic!("between two writes")
            })
        });
        let command = command.await.unwrap_err();
        assert_eq!((command.kind, command.id()), (Kind::Internal, "error"));
    }
    assert_eq!(verifier.audit_length(), before, "nothing was kept");
    // The honest twin: readers and the writer are whole.
    assert_eq!(verifier.send(&admin, "GET", "/v1/whoami").await.0, StatusCode::OK);
    let now = verifier.state.now();
    verifier.state.store.write(&now, |tx| tx.audit("test", "done", "x", &serde_json::json!({}))).unwrap();
    assert_eq!(verifier.audit_length(), before + 1);
}
