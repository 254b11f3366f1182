//! What handlers take: every rejection is a problem document that names the place.

use std::sync::Arc;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use crate::limits::{API_BODY_MAX_BYTES, PAGE_DEFAULT, PAGE_MAX};
use crate::state::Cloud;
use crate::store::{Cursor, Page, Tenant};

/// A JSON object as body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        object(&whole(request, state).await?).map(Self)
    }
}

/// A JSON object as body, or no body, which says the same as an empty object.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = whole(request, state).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { object(&bytes).map(Self) }
    }
}

async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    // Whoever asks before sending (`Expect: 100-continue`) can keep it.
    if request.body().size_hint().lower() > API_BODY_MAX_BYTES as u64 {
        return Err(Problem::too_large(API_BODY_MAX_BYTES));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::too_large(API_BODY_MAX_BYTES)
        } else {
            Problem::invalid("body", "the body could not be read to its end")
        }
    })
}

fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would fill a struct from an array too, by the order of its fields.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::invalid("body", "wrong type, expected a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "body".to_owned() } else { path };
        Problem::invalid(path, safe_words(error.inner()))
    })?;
    reader.end().map_err(|_| Problem::invalid("body", "there is text behind the JSON value"))?;
    Ok(value)
}

/// Serde's message without the value it quotes: that value might be a password in the wrong place.
fn safe_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find("invalid type: "), text.find(", expected ")) {
        (Some(_), Some(expected)) => format!("wrong type{}", &text[expected..]),
        _ => text,
    }
}

/// Query parameters.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.trim_start_matches("Failed to deserialize query string: ");
            Problem::invalid(query_path(text), text)
        })?;
        Ok(Self(value))
    }
}

/// `limit: invalid digit` and "unknown field `x`" both name the parameter.
fn query_path(text: &str) -> String {
    let named = text.split_once('`').and_then(|(_, rest)| rest.split_once('`')).map(|(name, _)| name);
    let prefix = text.split_once(": ").map(|(name, _)| name).filter(|name| !name.contains(' '));
    prefix.or(named).map_or_else(|| "query".to_owned(), |name| format!("query.{name}"))
}

/// The tenant that the path names; 404 when there is none.
pub(crate) struct Scope(pub(crate) Tenant);

#[derive(Deserialize)]
struct TenantInPath {
    tenant: String,
}

impl FromRequestParts<Arc<Cloud>> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, cloud: &Arc<Cloud>) -> Result<Self, Problem> {
        let Path(path) = Path::<TenantInPath>::from_request_parts(parts, cloud)
            .await
            .map_err(|_| Problem::invalid("path", "the path cannot be read"))?;
        let found = cloud.store.tenant(&path.tenant).await?;
        found.map(Self).ok_or_else(|| Problem::not_found("tenant", &path.tenant))
    }
}

/// The id behind the tenant in a path of two.
pub(crate) struct Item(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Item {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((_tenant, item)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid("path", "the path cannot be read"))?;
        Ok(Self(item))
    }
}

/// Paging of every list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// `next` of the page before
    pub(crate) after: Option<String>,
}

/// Rows on the page, within bounds.
pub(crate) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid("query.limit", format!("limit is between 1 and {PAGE_MAX}"))),
    }
}

/// A cursor that is a number.
pub(crate) fn number_after(after: Option<&str>) -> Result<Option<i64>, Problem> {
    after.map(|after| after.parse().map_err(|_| bad_after())).transpose()
}

/// A cursor of a list in the order of names.
pub(crate) fn cursor_after(after: Option<&str>) -> Result<Option<Cursor>, Problem> {
    after.map(|after| Cursor::parse(after).ok_or_else(bad_after)).transpose()
}

fn bad_after() -> Problem {
    Problem::invalid("query.after", "after is not the `next` of a page of this list")
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Listing<T> {
    /// The rows
    items: Vec<T>,
    /// `after` of the next page; null on the last one
    next: Option<String>,
}

impl<T> From<Page<T>> for Listing<T> {
    fn from(page: Page<T>) -> Self {
        Self { items: page.items, next: page.next }
    }
}

impl<T> Listing<T> {
    /// A list that fits one page.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// The same page of other rows.
    pub(crate) fn of<R>(page: Page<R>, view: impl Fn(R) -> T) -> Self {
        Self { items: page.items.into_iter().map(view).collect(), next: page.next }
    }
}

/// Names of modules and actions: lower snake case, at most 64 letters.
pub(crate) fn check_word(path: &str, word: &str) -> Result<(), Problem> {
    let fits = !word.is_empty()
        && word.len() <= 64
        && word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits { Ok(()) } else { Err(Problem::invalid(path, "a lower snake case word of at most 64 letters")) }
}
