//! D4: clients that send nothing, too much, or too slowly, while others go on.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use common::Running;
use hostmark_attest::span::Span;
use hostmark_verifier::auth::Role;
use reqwest::StatusCode;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn d4_idle_strangers_take_no_place_of_others() {
    let verifier = Running::start_with(|config, _| {
        config.limits.connections = 64;
        config.limits.anonymous_connections = 4;
        config.limits.handshake = Span(SECOND);
    })
    .await;
    let viewer = verifier.client(Role::Viewer, "ann");
    // Strangers that end their handshake and then hold the line.
    let idle: Vec<_> = (0..4).map(|_| verifier.anonymous()).collect();
    for client in &idle {
        assert_eq!(verifier.try_send(client, "/healthz").await.unwrap(), StatusCode::OK);
    }
    assert!(verifier.try_send(&verifier.anonymous(), "/healthz").await.is_err(), "the fifth stranger");
    assert_eq!(verifier.send(&viewer, "GET", "/v1/whoami").await.0, StatusCode::OK);
    // And many that never begin one: they are gone after the handshake's time.
    let silent: Vec<_> = (0..60).filter_map(|_| TcpStream::connect(verifier.address).ok()).collect();
    tokio::time::sleep(SECOND + SECOND / 2).await;
    let second = verifier.client(Role::Viewer, "bob");
    assert_eq!(verifier.send(&second, "GET", "/v1/whoami").await.0, StatusCode::OK);
    for mut socket in silent {
        socket.set_read_timeout(Some(SECOND)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "closed by the verifier");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_slow_senders_and_large_bodies_are_cut() {
    let verifier = Running::start_with(|config, _| {
        config.limits.idle = Span(SECOND);
        config.limits.request = Span(SECOND);
    })
    .await;
    let rows: [(&str, &str, &str); 4] = [
        ("half a header", "GET /healthz HTTP/1.1\r\nhost: x\r\n", ""),
        (
            "half a body",
            "POST /v1/enrolments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
            "HTTP/1.1 408",
        ),
        (
            "a gigabyte announced",
            "POST /v1/enrolments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n",
            "HTTP/1.1 413",
        ),
        (
            "compressed",
            "POST /v1/enrolments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 415",
        ),
    ];
    for (name, bytes, expect) in rows {
        let answer = tokio::task::block_in_place(|| {
            verifier.raw(|stream| {
                stream.write_all(bytes.as_bytes()).unwrap();
                let mut answer = vec![0; 4096];
                let read = stream.read(&mut answer).unwrap_or(0);
                String::from_utf8_lossy(&answer[..read]).into_owned()
            })
        });
        assert!(answer.starts_with(expect) && (expect.is_empty() == answer.is_empty()), "{name}: {answer}");
    }
    assert_eq!(verifier.try_send(&verifier.anonymous(), "/healthz").await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_client_that_asks_too_often_is_slowed_alone() {
    let verifier = Running::start_with(|config, _| {
        config.limits.challenges_per_minute = 3;
        config.limits.enrolments_per_minute = 3;
    })
    .await;
    let (one, other) = (verifier.client(Role::Host, "one"), verifier.client(Role::Host, "other"));
    let stranger = verifier.anonymous();
    let waiting = "/v1/enrolments/00000000-0000-4000-8000-000000000000/certificate";
    let poll = || async { verifier.send_to(&stranger, "POST", waiting, Some(r#"{"secret":"AAAA"}"#.into())).await };
    for _ in 0..3 {
        let asked = verifier.send(&one, "POST", "/v1/challenges").await;
        assert_eq!(asked, (StatusCode::NOT_FOUND, "host.unknown".into()), "in its time, and of nobody that is known");
        assert_eq!(poll().await, (StatusCode::NOT_FOUND, "enrolment.unknown".into()));
    }
    let slowed = verifier.send(&one, "POST", "/v1/challenges").await;
    assert_eq!(slowed, (StatusCode::TOO_MANY_REQUESTS, "rate.challenges".into()));
    assert_eq!(poll().await, (StatusCode::TOO_MANY_REQUESTS, "rate.enrolments".into()));
    assert_eq!(verifier.send(&other, "POST", "/v1/challenges").await.0, StatusCode::NOT_FOUND, "another client");
}
