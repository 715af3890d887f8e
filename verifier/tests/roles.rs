//! D1, D2: every route, over real TLS, without certificate, with a wrong role, expired, revoked. One table decides (`api::routes`), and this
//! test reads the same table; what it must say about each route is written here a second time, so that a changed role needs two hands.
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
use hostmark_verifier::api::routes;
use hostmark_verifier::auth::{Access, Role};
use reqwest::StatusCode;

/// Who may do what, as the design says it: v viewer, s scheduler, p provisioner, a approver, u auditor, A admin, h host; `*` anybody.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("GET", "/healthz", "*"),
    ("GET", "/readyz", "*"),
    ("GET", "/v1/keys", "*"),
    ("GET", "/metrics", "vspauA"),
    ("GET", "/v1/whoami", "vspauAh"),
    ("GET", "/v1/operators", "uA"),
    ("POST", "/v1/operators", "A"),
    ("DELETE", "/v1/operators/{name}", "A"),
    ("POST", "/v1/enrolments", "*"),
    ("POST", "/v1/enrolments/{id}/activation", "*"),
    ("POST", "/v1/enrolments/{id}/certificate", "*"),
    ("POST", "/v1/renewals/challenge", "*"),
    ("POST", "/v1/renewals", "*"),
    ("GET", "/v1/tokens", "puA"),
    ("POST", "/v1/tokens", "pA"),
    ("DELETE", "/v1/tokens/{id}", "pA"),
    ("GET", "/v1/preregistrations", "puA"),
    ("POST", "/v1/preregistrations", "pA"),
    ("DELETE", "/v1/preregistrations/{ek}", "pA"),
    ("GET", "/v1/hosts", "vspauA"),
    ("GET", "/v1/hosts/{host}", "vspauAh"),
    ("POST", "/v1/hosts/{host}/approve", "aA"),
    ("POST", "/v1/hosts/{host}/label", "aA"),
    ("POST", "/v1/hosts/{host}/maintenance", "aA"),
    ("POST", "/v1/hosts/{host}/rebind", "aA"),
    ("POST", "/v1/hosts/{host}/retire", "aA"),
    ("POST", "/v1/hosts/{host}/tag", "aA"),
    ("POST", "/v1/challenges", "h"),
    ("POST", "/v1/evidence", "h"),
    ("GET", "/v1/standings", "vspauA"),
    ("GET", "/v1/hosts/{host}/standing", "vspauA"),
    ("GET", "/v1/pools", "vspauA"),
    ("POST", "/v1/pools", "aA"),
    ("GET", "/v1/pools/{pool}/hosts/{host}", "vspauA"),
    ("POST", "/v1/placements", "sA"),
    ("POST", "/v1/policies", "aA"),
    ("POST", "/v1/references", "aA"),
    ("GET", "/v1/audit", "uA"),
    ("GET", "/v1/audit/head", "uA"),
];

fn letter(role: Role) -> char {
    match role {
        Role::Viewer => 'v',
        Role::Scheduler => 's',
        Role::Provisioner => 'p',
        Role::Approver => 'a',
        Role::Auditor => 'u',
        Role::Admin => 'A',
        Role::Host => 'h',
        _ => panic!("a role without a letter"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_the_table_says_what_the_design_says() {
    let found: Vec<(String, String, String)> = routes()
        .map(|route| {
            let who = match route.access {
                Access::Public => "*".to_owned(),
                Access::Roles(roles) => Role::ALL.into_iter().filter(|role| roles.contains(role)).map(letter).collect(),
            };
            (route.method.to_owned(), route.path.to_owned(), who)
        })
        .collect();
    for (method, path, who) in &found {
        let expected = EXPECTED.iter().find(|(m, p, _)| m == method && p == path);
        assert_eq!(expected.map(|(_, _, who)| *who), Some(who.as_str()), "{method} {path}");
    }
    assert_eq!(found.len(), EXPECTED.len(), "a route is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_every_route_refuses_who_may_not() {
    let verifier = Running::start().await;
    let anonymous = verifier.anonymous();
    let clients: Vec<_> = Role::ALL.into_iter().map(|role| (role, verifier.client(role, "tester"))).collect();
    let expired = verifier.expired();
    let revoked = verifier.client(Role::Admin, "gone");
    let stranger = verifier.stranger();
    assert_eq!(verifier.send(&revoked, "GET", "/v1/whoami").await.0, StatusCode::OK, "the honest twin, before");
    verifier.revoke("gone");
    let before = verifier.audit_length();
    for route in routes() {
        let Access::Roles(allowed) = route.access else { continue };
        let name = format!("{} {}", route.method, route.path);
        let none = verifier.send(&anonymous, route.method, route.path).await;
        assert_eq!(none, (StatusCode::UNAUTHORIZED, "auth.no-certificate".into()), "{name}");
        let late = verifier.send(&expired, route.method, route.path).await;
        assert_eq!(late, (StatusCode::UNAUTHORIZED, "auth.expired".into()), "{name}");
        let gone = verifier.send(&revoked, route.method, route.path).await;
        assert_eq!(
            gone,
            (StatusCode::UNAUTHORIZED, "auth.revoked".into()),
            "{name}: on a connection from before the revocation"
        );
        let unknown = verifier.send(&stranger, route.method, route.path).await;
        assert_eq!(unknown, (StatusCode::UNAUTHORIZED, "auth.unknown-certificate".into()), "{name}");
        for (role, client) in &clients {
            let (status, id) = verifier.send(client, route.method, route.path).await;
            if allowed.contains(role) {
                assert_ne!(status, StatusCode::UNAUTHORIZED, "{name} as {role:?}: {id}");
                assert_ne!(id, "auth.role", "{name} as {role:?}");
            } else {
                assert_eq!((status, id.as_str()), (StatusCode::FORBIDDEN, "auth.role"), "{name} as {role:?}");
            }
        }
    }
    assert_eq!(verifier.audit_length(), before, "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_foreign_ca_and_tls_1_2_end_in_the_handshake() {
    let verifier = Running::start().await;
    assert!(verifier.try_send(&verifier.foreign(), "/healthz").await.is_err());
    assert!(verifier.try_send(&verifier.tls12(), "/healthz").await.is_err());
    assert!(verifier.try_send(&verifier.anonymous(), "/healthz").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_no_session_is_resumed() {
    let verifier = Running::start().await;
    for _ in 0..2 {
        // A client that keeps sessions: rustls' default does.
        assert_eq!(verifier.handshake_kind(), rustls::HandshakeKind::Full);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_host_sees_itself_only() {
    let verifier = Running::start().await;
    let (a, b) = ("6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00", "6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a01");
    let host = verifier.client(Role::Host, a);
    let own = verifier.send_to(&host, "GET", &format!("/v1/hosts/{a}"), None).await;
    assert_eq!(own, (StatusCode::NOT_FOUND, "host.unknown".into()), "allowed to ask; there is no row in this test");
    let other = verifier.send_to(&host, "GET", &format!("/v1/hosts/{b}"), None).await;
    assert_eq!(other, (StatusCode::FORBIDDEN, "auth.other-host".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_bad_bodies_are_refused_by_field() {
    let verifier = Running::start().await;
    let admin = verifier.client(Role::Admin, "tester");
    let huge = format!("{{\"assignment\":{{\"node\":\"{}\"}}}}", "a".repeat(1 << 20));
    let host = "/v1/hosts/6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00";
    let assign = |node: &str, scheduler: &str, label: &str| {
        serde_json::json!({ "assignment": { "node": node, "scheduler": scheduler, "label": label } }).to_string()
    };
    let rows: Vec<(&str, String, String, StatusCode, &str)> = vec![
        (
            "honest twin",
            format!("{host}/approve"),
            assign("n1", "swarm", "internal"),
            StatusCode::NOT_FOUND,
            "enrolment.unknown",
        ),
        (
            "newline",
            format!("{host}/approve"),
            assign("n1\nx", "swarm", "internal"),
            StatusCode::BAD_REQUEST,
            "request.node",
        ),
        (
            "scheduler",
            format!("{host}/approve"),
            assign("n1", "Swarm", "internal"),
            StatusCode::BAD_REQUEST,
            "request.scheduler",
        ),
        (
            "level",
            format!("{host}/approve"),
            assign("n1", "swarm", "topsecret"),
            StatusCode::BAD_REQUEST,
            "request.label",
        ),
        (
            "unknown field",
            format!("{host}/approve"),
            "{\"assignment\":{},\"x\":1}".into(),
            StatusCode::BAD_REQUEST,
            "request.malformed",
        ),
        ("deep", format!("{host}/approve"), "[".repeat(10_000), StatusCode::BAD_REQUEST, "request.malformed"),
        ("trailing", format!("{host}/retire"), "{} {}".into(), StatusCode::BAD_REQUEST, "request.malformed"),
        ("huge", format!("{host}/approve"), huge, StatusCode::PAYLOAD_TOO_LARGE, "request.size"),
        (
            "id",
            "/v1/hosts/..%2f..%2fetc/approve".into(),
            assign("n1", "swarm", "internal"),
            StatusCode::BAD_REQUEST,
            "request.host",
        ),
        (
            "control",
            "/v1/hosts/a%0ab/label".into(),
            "{\"label\":\"internal\"}".into(),
            StatusCode::BAD_REQUEST,
            "request.host",
        ),
        (
            "operator",
            "/v1/operators".into(),
            "{\"name\":\"../x\",\"role\":\"viewer\",\"csr\":\"\"}".into(),
            StatusCode::BAD_REQUEST,
            "request.name",
        ),
        (
            "host as operator",
            "/v1/operators".into(),
            "{\"name\":\"x\",\"role\":\"host\",\"csr\":\"\"}".into(),
            StatusCode::BAD_REQUEST,
            "request.role",
        ),
        (
            "unbound token",
            "/v1/tokens".into(),
            "{\"assignment\":{\"node\":\"n1\",\"scheduler\":\"s\",\"label\":\"internal\"},\"expires_in\":\"1h\"}"
                .into(),
            StatusCode::BAD_REQUEST,
            "token.unbound",
        ),
    ];
    for (name, path, body, status, id) in rows {
        assert_eq!(verifier.send_to(&admin, "POST", &path, Some(body)).await, (status, id.to_owned()), "{name}");
    }
    let text = verifier.send_as(&admin, &format!("{host}/approve"), "text/plain", "{}").await;
    assert_eq!(text, (StatusCode::UNSUPPORTED_MEDIA_TYPE, "request.media-type".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_added_by_request_and_removed_at_once() {
    let verifier = Running::start().await;
    let admin = verifier.admin();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let body = serde_json::json!({ "name": "ann", "role": "viewer", "csr": csr });
    let (status, text) = verifier.exchange(&admin, "POST", "/v1/operators", Some(body.to_string())).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let answer: hostmark_verifier::api::types::OperatorCertificate = serde_json::from_str(&text).unwrap();
    let ann = verifier.with_certificate(&answer.certificate, &key.serialize_pem());
    let (status, text) = verifier.exchange(&ann, "GET", "/v1/whoami", None).await;
    assert_eq!(status, StatusCode::OK);
    let who: hostmark_verifier::api::types::WhoAmI = serde_json::from_str(&text).unwrap();
    assert_eq!((who.role, who.name.as_str()), (Role::Viewer, "ann"));
    let again = verifier.send_to(&admin, "POST", "/v1/operators", Some(body.to_string())).await;
    assert_eq!(again, (StatusCode::CONFLICT, "operator.exists".into()));
    assert_eq!(verifier.send_to(&admin, "DELETE", "/v1/operators/ann", None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(verifier.send(&ann, "GET", "/v1/whoami").await, (StatusCode::UNAUTHORIZED, "auth.revoked".into()));
    let last = verifier.send_to(&admin, "DELETE", "/v1/operators/admin", None).await;
    assert_eq!(last, (StatusCode::CONFLICT, "operator.last-admin".into()));
}
