//! The verifier's public keys as a file: a JWK Set (RFC 7517), or one JWK.
//!
//! Keys that are not P-256, and keys that are marked for another use, are left out: a permit is never verified with the key of
//! results. A key without a mark counts for every use.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use hostmark_attest::jws::{KeySet, key_id};
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::input;

/// What counts of a JWK. RFC 7517 §4: members that are not understood are ignored.
#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
    hostmark_use: Option<String>,
}

/// Reads the keys for `usage` (`results`, `permits`, `audit-heads`).
pub(super) fn read(file: &Path, usage: &str) -> Result<KeySet, Failure> {
    let bytes = input::read(file, "a JWK Set", input::SMALL_MAX)?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| input::json_error(file, &bytes, &error))?;
    parse(&file.display().to_string(), &json, usage)
}

/// As [`read`], from JSON that is called `name`.
pub(super) fn parse(name: &str, json: &Value, usage: &str) -> Result<KeySet, Failure> {
    let list = match json {
        Value::Object(members) => match members.get("keys") {
            Some(Value::Array(keys)) => keys.clone(),
            Some(_) => return Err(Failure::unusable(format!("{name}: `keys` is not a list of JWKs"))),
            None => vec![json.clone()],
        },
        _ => {
            return Err(Failure::unusable(format!(
                "{name}: at byte 0: not a JWK Set: {{\"keys\": [...]}} is expected"
            )));
        }
    };
    let mut keys = KeySet::new();
    for (index, value) in list.into_iter().enumerate() {
        let wrong = |why: &str| Failure::unusable(format!("{name}: key {index}: {why}"));
        let jwk: Jwk = serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?;
        let other = jwk.kty != "EC"
            || jwk.crv.as_deref() != Some("P-256")
            || jwk.alg.as_deref().is_some_and(|alg| alg != "ES256")
            || jwk.hostmark_use.as_deref().is_some_and(|mark| mark != usage);
        if other {
            continue;
        }
        let coordinate = |text: Option<&String>| {
            let bytes = text.and_then(|text| URL.decode(text).ok()).filter(|bytes| bytes.len() == 32);
            bytes.ok_or_else(|| wrong("a P-256 key has x and y, 32 bytes each in base64url"))
        };
        let (x, y) = (coordinate(jwk.x.as_ref())?, coordinate(jwk.y.as_ref())?);
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        keys.insert(jwk.kid.unwrap_or_else(|| key_id(&point)), &point);
    }
    if keys.iter().next().is_none() {
        return Err(Failure::unusable(format!(
            "{name}: no ES256 key for {usage}: fetch the verifier's keys again: hostmark key fetch"
        )));
    }
    Ok(keys)
}
