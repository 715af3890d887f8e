//! The attack table's service part that needs no host: who may ask (D1, D2), tokens shown to the offline tool (D3), and what is
//! typed into every route (D6). Every request goes over the wire to a running verifier.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::jws::{SoftwareKey, sign};
use hostmark_attest::permit::{AUDIENCE, PERMIT, PermitClaims};
use hostmark_attest::result::{HostClaims, RESULT, ResultClaims};
use hostmark_tests::operator::OperatorKey;
use hostmark_tests::process::run;
use hostmark_tests::verifier::{Options, Verifier};
use hostmark_verifier::keys::Keys;
use reqwest::Method;
use serde_json::{Value, json};

const HOST: &str = "6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00";
const OTHER: &str = "6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a01";
/// The moment at which the tokens are judged, seconds since 1970.
const NOW: i64 = 1_700_000_000;

/// One kind of token: the honest claims, how they are signed, and the prefix of its ids.
struct Kind {
    name: &'static str,
    claims: Value,
    end: &'static str,
    begin: &'static str,
    audience: &'static str,
    host: &'static str,
    unit: i64,
}

fn kinds() -> [Kind; 2] {
    let hostmark = HostClaims {
        tpm_class: TpmClass::Simulated,
        appraisal: "lab-uki".into(),
        appraisal_version: 1,
        sources: Vec::new(),
        tag_label: None,
        tag_location: None,
        tag_serial: None,
        boot: None,
    };
    let result = ResultClaims::new(HOST.into(), NOW - 10, NOW + 50, BTreeMap::new(), hostmark);
    let permit = PermitClaims {
        host: HOST.into(),
        node: "node-a".into(),
        pool: "lab".into(),
        label: "internal".parse().unwrap(),
        rule: "lab".into(),
        aud: AUDIENCE.into(),
        issued_at: (NOW - 10) * 1000,
        not_after: (NOW + 50) * 1000,
        remaining_ms: 60_000,
        sequence: 1,
    };
    [
        Kind {
            name: "result",
            claims: serde_json::to_value(result).unwrap(),
            end: "exp",
            begin: "iat",
            audience: "aud",
            host: "sub",
            unit: 1,
        },
        Kind {
            name: "permit",
            claims: serde_json::to_value(permit).unwrap(),
            end: "not_after",
            begin: "issued_at",
            audience: "aud",
            host: "node",
            unit: 1000,
        },
    ]
}

impl Kind {
    fn sign(&self, claims: &Value, key: &SoftwareKey) -> String {
        let purpose = if self.name == "result" { &RESULT } else { &PERMIT };
        sign(purpose, &serde_json::to_vec(claims).unwrap(), key).unwrap()
    }

    fn with(&self, name: &str, value: impl Into<Value>) -> Value {
        let mut claims = self.claims.clone();
        claims[name] = value.into();
        claims
    }

    fn without(&self, name: &str) -> Value {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name).unwrap();
        claims
    }

    fn id(&self, check: &str) -> String {
        format!("{}.{check}", self.name)
    }
}

/// The same payload under another header, with a signature of the caller's making over it.
fn reheaded(token: &str, header: Value, signature: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let payload = token.split('.').nth(1).unwrap();
    let input = format!("{}.{payload}", URL.encode(header.to_string()));
    let signature = URL.encode(signature(input.as_bytes()));
    format!("{input}.{signature}")
}

#[test]
fn d3_the_offline_tool_refuses_every_token_that_is_not_the_verifiers_word_now() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier::start(dir.path(), &Options::default()).unwrap();
    let jwks = dir.path().join("keys.json");
    let keys: Value = verifier.stranger().unwrap().get("/v1/keys").unwrap().read().unwrap();
    std::fs::write(&jwks, keys.to_string()).unwrap();
    let own = Keys::load(&verifier.state_dir()).unwrap();
    let stranger = OperatorKey::generate().unwrap();
    let stranger = {
        let der = rcgen::KeyPair::from_pem(stranger.private_pem()).unwrap();
        SoftwareKey::from_pkcs8(der.serialized_der()).unwrap()
    };
    let judge = |kind: &Kind, token: &str, at: i64| {
        let file = dir.path().join("token");
        std::fs::write(&file, token).unwrap();
        let mut command = verifier.hostmark_command().unwrap();
        command.args(["--output", "json", "verify", kind.name]).arg(&file).arg("--keys").arg(&jwks);
        command.args(["--at", &at.to_string()]);
        match kind.name {
            "result" => command.args(["--host", HOST]),
            _ => command.args(["--node", "node-a", "--pool", "lab"]),
        };
        let finished = run(&mut command).unwrap();
        let ids: Vec<String> = finished.json().map_or(Vec::new(), |answer| {
            let list = answer["findings"].as_array().cloned().unwrap_or_default();
            list.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        });
        (finished.code, ids, finished.stderr)
    };
    for kind in kinds() {
        let (right, wrong) = match kind.name {
            "result" => (&own.results, &own.permits),
            _ => (&own.permits, &own.results),
        };
        let jwk = keys["keys"].as_array().unwrap().iter().find(|one| one["hostmark_use"] == format!("{}s", kind.name));
        let jwk = jwk.unwrap();
        let kid = jwk["kid"].as_str().unwrap();
        let typ = if kind.name == "result" { RESULT.typ } else { PERMIT.typ };
        let good = kind.sign(&kind.claims, right);
        let honest = judge(&kind, &good, NOW);
        assert_eq!((honest.0, honest.1), (Some(0), Vec::new()), "honest {}: {}", kind.name, honest.2);

        // The public key as an HMAC secret, in each form that a careless library would take.
        let point = right.point().to_vec();
        let hs256 = |secret: Vec<u8>| {
            reheaded(&good, json!({ "alg": "HS256", "kid": kid, "typ": typ }), move |input| {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), input).as_ref().to_vec()
            })
        };
        let none = |alg: &str| reheaded(&good, json!({ "alg": alg, "kid": kid, "typ": typ }), |_| Vec::new());
        let other_typ = if kind.name == "result" { PERMIT.typ } else { RESULT.typ };
        let host_check = if kind.name == "result" { "host" } else { "node" };
        let edited = {
            let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
            parts[1] = URL.encode(kind.with(kind.end, (NOW + 5000) * kind.unit).to_string());
            parts.join(".")
        };
        let rows: Vec<(&str, String, i64, String)> = vec![
            ("expired", good.clone(), NOW + 50, kind.id("expired")),
            ("an hour late", good.clone(), NOW + 3600, kind.id("expired")),
            ("not yet", good.clone(), NOW - 20, kind.id("not-yet")),
            ("another host's", kind.sign(&kind.with(kind.host, OTHER), right), NOW, kind.id(host_check)),
            ("wrong audience", kind.sign(&kind.with(kind.audience, "somebody"), right), NOW, kind.id("audience")),
            ("no end", kind.sign(&kind.without(kind.end), right), NOW, kind.id("claims")),
            ("no begin", kind.sign(&kind.without(kind.begin), right), NOW, kind.id("claims")),
            ("null end", kind.sign(&kind.with(kind.end, Value::Null), right), NOW, kind.id("claims")),
            ("end as text", kind.sign(&kind.with(kind.end, "4102444800"), right), NOW, kind.id("claims")),
            ("an unknown claim", kind.sign(&kind.with("crit", 1), right), NOW, kind.id("claims")),
            ("alg none", none("none"), NOW, kind.id("algorithm")),
            ("alg nOnE", none("nOnE"), NOW, kind.id("algorithm")),
            ("HS256, the point", hs256(point.clone()), NOW, kind.id("algorithm")),
            ("HS256, the JWK", hs256(jwk.to_string().into_bytes()), NOW, kind.id("algorithm")),
            ("no signature", good.rsplit_once('.').unwrap().0.to_owned() + ".", NOW, kind.id("signature")),
            ("edited", edited, NOW, kind.id("signature")),
            ("an unknown key", kind.sign(&kind.claims, &stranger), NOW, kind.id("key")),
            ("the verifier's key for something else", kind.sign(&kind.claims, wrong), NOW, kind.id("key")),
            (
                "a known kid, another key",
                reheaded(&good, json!({ "alg": "ES256", "kid": kid, "typ": typ }), |input| {
                    use hostmark_attest::jws::Signer as _;
                    stranger.sign(input).unwrap().to_vec()
                }),
                NOW,
                kind.id("signature"),
            ),
            (
                "another purpose",
                reheaded(&good, json!({ "alg": "ES256", "kid": kid, "typ": other_typ }), |input| {
                    use hostmark_attest::jws::Signer as _;
                    right.sign(input).unwrap().to_vec()
                }),
                NOW,
                kind.id("purpose"),
            ),
            (
                "its key in the header",
                reheaded(&good, json!({ "alg": "ES256", "kid": kid, "typ": typ, "jwk": { "kty": "EC" } }), |input| {
                    use hostmark_attest::jws::Signer as _;
                    stranger.sign(input).unwrap().to_vec()
                }),
                NOW,
                kind.id("malformed"),
            ),
        ];
        let pool = kind.sign(&kind.with("pool", "other"), right);
        let pool = (kind.name == "permit").then(|| ("another pool's", pool, NOW, kind.id("pool")));
        for (name, token, at, id) in rows.into_iter().chain(pool) {
            let (code, ids, stderr) = judge(&kind, &token, at);
            assert_eq!((code, ids.as_slice()), (Some(1), [id].as_slice()), "{} {name}: {stderr}", kind.name);
        }
    }
}

/// A text that is typed into a route: how, and the id of its refusal.
struct Typed {
    route: (&'static str, &'static str),
    body: fn(&str) -> Value,
    id: &'static str,
    /// A good text and the status that it gets; none where only a TPM could give a good one.
    honest: Option<(&'static str, u16)>,
}

fn assigned(node: &str, scheduler: &str, label: &str, policy: &str) -> Value {
    json!({ "node": node, "scheduler": scheduler, "label": label, "policy": policy })
}

fn token(assignment: Value) -> Value {
    json!({ "assignment": assignment, "min_class": "hardware", "expires_in": "1h" })
}

fn row(assignment: Value) -> Value {
    json!({ "hosts": [{ "ek_id": "0".repeat(64), "assignment": assignment }] })
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

fn pools(pool: &str, label: &str) -> Value {
    let admission = "requires_appraisal = \"lab-uki\"\ntpm_class = [\"simulated\"]\nmax_age = \"5m\"\n[tiers]\nboot = \"warning\"\n";
    let toml = format!("label = {}\nmode = \"enforce\"\nlease = \"60s\"\nadmission = \"lab\"\n", json!(label));
    json!({
        "pools": [{ "name": pool, "toml": toml }],
        "admission": [{ "name": "lab", "toml": admission }],
        "dry_run": true,
    })
}

fn attest(text: &str) -> Value {
    json!({
        "host": text, "nonce": "00".repeat(32), "quote": { "attest": "", "signature": "" }, "tls_public": "",
        "csr": "", "certification": { "attest": "", "signature": "" },
    })
}

const fn post(
    path: &'static str,
    body: fn(&str) -> Value,
    id: &'static str,
    honest: Option<(&'static str, u16)>,
) -> Typed {
    Typed { route: ("POST", path), body, id, honest }
}

const fn named(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    honest: Option<(&'static str, u16)>,
) -> Typed {
    Typed { route: (method, path), body: |_| json!({}), id, honest }
}

/// Every text of every route. `{…}` in a path is where the text goes; a body of its own otherwise.
const TYPED: &[Typed] = &[
    post(
        "/v1/operators",
        |text| json!({ "name": text, "role": "viewer", "csr": csr() }),
        "request.name",
        Some(("ann", 201)),
    ),
    post(
        "/v1/operators",
        |text| json!({ "name": "bob", "role": text, "csr": csr() }),
        "request.malformed",
        Some(("viewer", 201)),
    ),
    post("/v1/operators", |text| json!({ "name": "cat", "role": "viewer", "csr": text }), "request.csr", None),
    named("DELETE", "/v1/operators/{}", "request.name", Some(("nobody", 404))),
    post(
        "/v1/enrolments",
        |text| json!({ "ek_public": "", "ek_certificate": null, "ak_public": "", "token": text }),
        "request.token",
        None,
    ),
    Typed {
        route: ("POST", "/v1/enrolments/{}/activation"),
        body: |_| json!({ "secret": "", "tls_public": "", "csr": "", "certification": { "attest": "", "signature": "" } }),
        id: "request.id",
        honest: Some((HOST, 404)),
    },
    Typed {
        route: ("POST", "/v1/enrolments/{}/certificate"),
        body: |_| json!({ "secret": "" }),
        id: "request.id",
        honest: Some((HOST, 404)),
    },
    post("/v1/renewals/challenge", |text| json!({ "host": text }), "request.host", Some((HOST, 404))),
    post("/v1/renewals", attest, "request.host", Some((HOST, 404))),
    post(
        "/v1/tokens",
        |text| token(assigned(text, "swarm", "internal", "lab")),
        "request.node",
        Some(("node-1.rack-2", 201)),
    ),
    post(
        "/v1/tokens",
        |text| token(assigned("n", text, "internal", "lab")),
        "request.scheduler",
        Some(("swarm-a", 201)),
    ),
    post(
        "/v1/tokens",
        |text| token(assigned("n", "swarm", text, "lab")),
        "request.label",
        Some(("restricted:phi@a", 201)),
    ),
    post(
        "/v1/tokens",
        |text| token(assigned("n", "swarm", "internal", text)),
        "request.policy",
        Some(("lab-uki", 201)),
    ),
    post(
        "/v1/tokens",
        |text| json!({ "assignment": assigned("n", "swarm", "internal", "lab"), "ek_id": text, "expires_in": "1h" }),
        "request.ek_id",
        Some(("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 201)),
    ),
    post(
        "/v1/tokens",
        |text| json!({ "assignment": assigned("n", "swarm", "internal", "lab"), "min_class": text, "expires_in": "1h" }),
        "request.min_class",
        Some(("firmware", 201)),
    ),
    named("DELETE", "/v1/tokens/{}", "request.id", Some((HOST, 404))),
    post(
        "/v1/preregistrations",
        |text| row(assigned(text, "swarm", "internal", "lab")),
        "request.node",
        Some(("n1", 201)),
    ),
    post("/v1/preregistrations", |text| row(assigned("n1", text, "internal", "lab")), "request.scheduler", None),
    post("/v1/preregistrations", |text| row(assigned("n1", "swarm", text, "lab")), "request.label", None),
    post("/v1/preregistrations", |text| row(assigned("n1", "swarm", "internal", text)), "request.policy", None),
    post(
        "/v1/preregistrations",
        |text| json!({ "hosts": [{ "ek_id": text, "assignment": assigned("n1", "swarm", "internal", "lab") }] }),
        "request.ek_id",
        None,
    ),
    named("DELETE", "/v1/preregistrations/{}", "request.ek", None),
    named("GET", "/v1/hosts/{}", "request.host", Some(("node-9", 404))),
    post(
        "/v1/hosts/6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00/approve",
        |text| json!({ "assignment": assigned(text, "swarm", "internal", "lab") }),
        "request.node",
        Some(("node-1", 404)),
    ),
    post(
        "/v1/hosts/6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00/approve",
        |text| json!({ "assignment": assigned("n", "swarm", text, "lab") }),
        "request.label",
        Some(("public", 404)),
    ),
    Typed {
        route: ("POST", "/v1/hosts/{}/approve"),
        body: |_| json!({ "assignment": assigned("n", "swarm", "internal", "lab") }),
        id: "request.host",
        honest: Some((HOST, 404)),
    },
    Typed {
        route: ("POST", "/v1/hosts/{}/label"),
        body: |_| json!({ "label": "internal" }),
        id: "request.host",
        honest: Some((HOST, 404)),
    },
    post("/v1/hosts/node-9/label", |text| json!({ "label": text }), "request.label", Some(("internal", 404))),
    named("POST", "/v1/hosts/{}/maintenance", "request.host", Some(("node-9", 404))),
    post("/v1/hosts/node-9/maintenance", |text| json!({ "for": text }), "request.malformed", Some(("2h", 404))),
    named("POST", "/v1/hosts/{}/rebind", "request.host", Some((HOST, 404))),
    post("/v1/hosts/node-9/rebind", |text| json!({ "enrolment": text }), "request.enrolment", Some((HOST, 404))),
    named("POST", "/v1/hosts/{}/retire", "request.host", Some((HOST, 404))),
    Typed {
        route: ("POST", "/v1/hosts/{}/tag"),
        body: |_| json!({ "nv": "" }),
        id: "request.host",
        honest: Some((HOST, 404)),
    },
    post("/v1/hosts/node-9/tag", |text| json!({ "nv": text }), "request.malformed", Some(("AA==", 404))),
    named("GET", "/v1/hosts/{}/standing", "request.host", Some(("node-9", 404))),
    named("GET", "/v1/pools/{}/hosts/node-9", "request.pool", Some(("lab", 404))),
    named("GET", "/v1/pools/lab/hosts/{}", "request.host", Some(("node-9", 404))),
    post("/v1/pools", |text| pools(text, "internal"), "request.name", Some(("lab", 200))),
    post("/v1/pools", |text| pools("lab", text), "file.malformed", Some(("internal", 200))),
    post(
        "/v1/placements",
        |text| json!({ "label": text, "count": 1 }),
        "request.label",
        Some(("restricted:phi@hospital-a", 200)),
    ),
    post(
        "/v1/placements",
        |text| json!({ "label": "internal", "count": 1, "scheduler": text }),
        "request.scheduler",
        Some(("swarm-a", 200)),
    ),
    post(
        "/v1/placements",
        |text| json!({ "label": "internal", "count": 1, "spread": text }),
        "request.malformed",
        Some(("zone", 200)),
    ),
    post("/v1/policies", |text| json!({ "name": text, "toml": "", "signature": "" }), "request.name", None),
    post("/v1/references", |text| json!({ "name": text, "toml": "", "signature": "" }), "request.name", None),
    named("GET", "/v1/audit?since={}", "request.query", Some(("1", 200))),
];

/// What is typed: quotes and commands, paths, control characters, other scripts, too much.
fn bad_texts() -> Vec<String> {
    let long = "a".repeat(60_001); // no base64 either
    [
        "a'; DROP TABLE hosts; --",
        "../../etc/passwd",
        "a\nb",
        "a\r\nx-injected: 1",
        "a\u{0}b",
        "\u{1b}[2Ja",
        "{{7*7}}",
        "${jndi:x}",
    ]
    .into_iter()
    .chain(["<b>a</b>", "N\u{f6}de", "\u{202e}a", "a b", " a", long.as_str()])
    .map(str::to_owned)
    .collect()
}

/// A text as a segment or value of a URL.
fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn d6_what_is_typed_into_any_route_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { toml: "[limits]\nenrolments_per_minute = 10000".into(), ..Options::default() };
    let verifier = Verifier::start(dir.path(), &options).unwrap();
    let admin = verifier.client().unwrap();
    let send = |typed: &Typed, text: &str| {
        let (method, path) = typed.route;
        let path = path.replace("{}", &percent(text));
        let body = (method == "POST").then(|| ("application/json", (typed.body)(text).to_string().into_bytes()));
        admin.send(Method::from_bytes(method.as_bytes()).unwrap(), &path, body).unwrap()
    };
    for typed in TYPED {
        let place = format!("{} {} ({})", typed.route.0, typed.route.1, typed.id);
        if let Some((text, status)) = typed.honest {
            let answer = send(typed, text);
            assert_eq!(answer.status, status, "honest {place}: {answer}");
        }
        let before = audit_length(&admin);
        for text in bad_texts() {
            let shown: String = text.chars().take(20).collect();
            // A path of 180 kB is no path: the server refuses the head of such a request before it reads a name.
            if typed.route.1.contains("{}") && text.len() > 1000 {
                let short = send(typed, &text[..2000]);
                assert_eq!(short.refusal().unwrap(), [typed.id], "{place}: {shown:?}: {short}");
                continue;
            }
            let answer = send(typed, &text);
            assert_eq!(
                (answer.status, answer.refusal().unwrap()),
                (400, vec![typed.id.to_owned()]),
                "{place}: {shown:?}"
            );
            // The field is named, and nothing that was typed comes back as a control character.
            let said = String::from_utf8(answer.body).unwrap();
            assert!(said.chars().all(|c| !c.is_control()), "{place}: {said:?}");
        }
        assert_eq!(audit_length(&admin), before, "{place}: nothing changed");
    }
    for path in ["/v1/hosts/%FF", "/v1/hosts/%C3%28/standing", "/v1/pools/%ED%A0%80/hosts/node-9"] {
        let answer = admin.get(path).unwrap();
        assert_eq!((answer.status, answer.refusal().unwrap()), (400, vec!["request.path".to_owned()]), "{path}");
    }
    // Routes that take text: each is in the table, so that a new one is not forgotten.
    for route in hostmark_verifier::api::routes() {
        let takes = route.path.contains('{')
            || (route.body_max > 0 && !["/v1/challenges", "/v1/evidence"].contains(&route.path));
        let parts = |path: &str| path.split('?').next().unwrap().matches('/').count();
        let fits = |typed: &&Typed| {
            typed.route.0 == route.method
                && parts(typed.route.1) == parts(route.path)
                && route.path.split('/').zip(typed.route.1.split('/')).all(|(a, b)| a.starts_with('{') || a == b)
        };
        assert!(
            !takes || TYPED.iter().any(|typed| fits(&typed)),
            "{} {} is not in the table",
            route.method,
            route.path
        );
    }
    assert!(verifier.log().lines().all(|line| !line.contains('\u{1b}') && !line.starts_with("x-injected")));
}

fn audit_length(admin: &hostmark_tests::client::Client) -> usize {
    admin.get("/v1/audit").unwrap().read::<Vec<Value>>().unwrap().len()
}

#[test]
fn d6_a_label_of_ten_megabytes_is_refused_on_every_route_and_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier::start(dir.path(), &Options::default()).unwrap();
    let admin = verifier.client().unwrap();
    let huge = "a".repeat(10 << 20);
    let typed = TYPED.iter().filter(|one| one.id == "request.label" || one.route.1 == "/v1/pools");
    let mut routes = 0;
    for typed in typed {
        let answer = admin.post(typed.route.1, &(typed.body)(&huge)).unwrap();
        assert_eq!(
            (answer.status, answer.refusal().unwrap()),
            (413, vec!["request.size".to_owned()]),
            "{}",
            typed.route.1
        );
        // What the route's limit lets through is refused by its field.
        let answer = admin.post(typed.route.1, &(typed.body)(&huge[..60_000])).unwrap();
        assert_eq!((answer.status, answer.refusal().unwrap()), (400, vec![typed.id.to_owned()]), "{}", typed.route.1);
        routes += 1;
    }
    assert!(routes >= 7, "{routes}");
    let honest = admin.post("/v1/placements", &json!({ "label": "internal", "count": 1 })).unwrap();
    assert_eq!(honest.status, 200, "{honest}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", verifier.process().unwrap().pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200_000, "{peak} kB");
}
