//! Request bodies: bounded, of the right media type, and refused with the field that is wrong.

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use bytes::Bytes;
use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use serde::de::DeserializeOwned;

use crate::refusal::{Kind, Outcome, Refusal};

/// A JSON body. Unknown fields, wrong types and missing fields are 400 and name the place.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

/// A body of another media type, as received.
#[derive(Debug, Clone)]
pub struct BodyBytes {
    /// The bytes.
    pub bytes: Bytes,
    /// Its Content-Type.
    pub media_type: String,
}

fn media_type(request: &Request) -> String {
    request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// 413.
pub(crate) fn too_large() -> Refusal {
    Refusal::new(Kind::TooLarge, Finding::error("request.size", "the body is larger than this route accepts"))
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Outcome<Bytes> {
    if violated("request.encoding", request.headers().contains_key(axum::http::header::CONTENT_ENCODING)) {
        let finding = Finding::error("request.encoding", "compressed bodies are not accepted");
        return Err(Refusal::new(Kind::MediaType, finding));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            too_large()
        } else {
            Refusal::new(Kind::Malformed, Finding::error("request.body", "the body could not be read to its end"))
        }
    })
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Outcome<Self> {
        let media = media_type(&request);
        if violated("request.media-type", media.split(';').next().map(str::trim) != Some("application/json")) {
            let finding =
                Finding::error("request.media-type", "this route takes JSON").expected("application/json").found(media);
            return Err(Refusal::new(Kind::MediaType, finding));
        }
        let bytes = read(request, state).await?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let place = error.path().to_string();
            let finding = Finding::error("request.malformed", "the body is not what this route takes")
                .found(format!("at `{place}`: {}", error.inner()));
            Refusal::new(Kind::Malformed, finding)
        })?;
        json.end().map_err(|_| {
            Refusal::new(
                Kind::Malformed,
                Finding::error("request.malformed", "something follows the end of the JSON body"),
            )
        })?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync> FromRequest<S> for BodyBytes {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Outcome<Self> {
        let media_type = media_type(&request);
        Ok(Self { bytes: read(request, state).await?, media_type })
    }
}
