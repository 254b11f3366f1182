//! NDES's page of challenges (`mscep_admin`) as the product shows it: behind Windows authentication, in the language of
//! the server, in UTF-16 without a byte order mark.

mod page;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Router};
use causeway_mock_kit::fault::Fault;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) use page::{SERVER_ERROR, language, languages};

use crate::door::{self, DoorConfig};
use crate::serve::{Connection, fault, html};
use crate::server::Shared;
use page::Content;

/// The page of challenges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NdesConfig {
    /// Language of the server: `en`, `de`, `fr`, `es`, `it`, `pt`, `nl`, `ja`, `pl`, `zh`. Default `en`.
    pub language: String,
    /// How the page is written. Default `utf16`.
    pub encoding: Encoding,
    pub door: DoorConfig,
}

impl Default for NdesConfig {
    fn default() -> Self {
        Self { language: "en".to_owned(), encoding: Encoding::Utf16, door: DoorConfig::default() }
    }
}

/// How the page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-16, little-endian, without a byte order mark and without saying so: what NDES sends.
    #[default]
    Utf16,
    /// The same with a byte order mark.
    Utf16Bom,
    Utf8,
}

impl Encoding {
    fn encode(self, text: &str) -> Vec<u8> {
        let utf16 = || text.encode_utf16().flat_map(u16::to_le_bytes);
        match self {
            Self::Utf16 => utf16().collect(),
            Self::Utf16Bom => [0xff, 0xfe].into_iter().chain(utf16()).collect(),
            Self::Utf8 => text.as_bytes().to_vec(),
        }
    }
}

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/certsrv/mscep_admin", axum::routing::get(page))
        .route("/certsrv/mscep_admin/", axum::routing::get(page))
        .route("/CertSrv/mscep_admin", axum::routing::get(page))
        .route("/CertSrv/mscep_admin/", axum::routing::get(page))
        .with_state(Arc::clone(shared))
}

async fn page(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    let world = shared.world();
    let config = &world.config.ndes;
    let admitted = match door::admit(&shared, &config.door, &connection, &headers) {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    let login = admitted.account.login.clone();
    let struck = match fault(&shared, "ndes_admin", "challenge", &login).await {
        Ok(struck) => struck,
        Err(instead) => return admitted.answer(instead),
    };
    let authority = shared.authority().await;
    let now_ms = shared.cx.clock.now_ms();
    let generation = Arc::clone(authority.hierarchy().current());
    if !generation.ra_is_good(now_ms) {
        note(&shared, &login, "500 registration authority");
        return admitted.answer(html(StatusCode::INTERNAL_SERVER_ERROR, page::SERVER_ERROR));
    }
    let word = match struck {
        Some(Fault::Custom { word, .. }) => word,
        _ => String::new(),
    };
    if word == "app_pool_restart" {
        world.challenges.restart();
    }
    let content = match word.as_str() {
        "cache_full" => Content::Full,
        "no_permission" => Content::NoPermission,
        _ if !admitted.account.enrols => Content::NoPermission,
        _ => match world.challenges.hand_out(now_ms) {
            Err(_) => Content::Full,
            Ok(handed) => {
                if word == "expired_challenge" {
                    world.challenges.expire(now_ms);
                }
                let minutes = handed.until_ms.map(|_| world.challenges.config().validity_minutes);
                Content::Challenge { password: handed.password, minutes }
            }
        },
    };
    note(&shared, &login, content.outcome());
    let language = language(&config.language).unwrap_or(&page::LANGUAGES[0]);
    let text = page::render(language, &content, generation.authority.certificate.raw());
    let mut response = Response::new(axum::body::Body::from(config.encoding.encode(&text)));
    // No charset: clients find out by looking.
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    admitted.answer(response)
}

/// Who asked and what kind of page came, never what was on it.
fn note(shared: &Shared, login: &str, outcome: &str) {
    shared.cx.journal.record("ndes_admin", "challenge", login, outcome, json!(null));
}
