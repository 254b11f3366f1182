//! Emptying a node: its agents are sent to another address before it goes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use causeway_mock_kit::admin::{AdminError, Json};
use causeway_mock_kit::cli::is_label;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::channel;
use crate::limits::{DRAIN_OVER_MAX, HOST_MAX_BYTES};
use crate::state::Cloud;

/// What `POST /world/drain` takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// Where agents shall go, as `host` or `host:port`. They follow only to hosts their own settings allow.
    pub to: String,
    /// Milliseconds over which they are spread; at most an hour. Default 0: all at once.
    #[serde(default)]
    pub over_ms: u64,
}

/// What it answers.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub(crate) struct Drained {
    /// Agents that are told.
    pub agents: usize,
}

pub(crate) fn routes(cloud: Arc<Cloud>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(drain)).with_state(cloud)
}

/// Sends every connected agent to another address (`see-other-host`, RFC 6120 section 4.9.3.19).
#[utoipa::path(
    post, path = "/world/drain", request_body = Drain, responses((status = 200, body = Drained))
)]
async fn drain(
    State(cloud): State<Arc<Cloud>>,
    Json(order): Json<Drain>,
) -> Result<Json<Drained>, AdminError> {
    if !is_address(&order.to) {
        return Err(AdminError::invalid("/to", "write it as host or host:port"));
    }
    let over = Duration::from_millis(order.over_ms);
    if over > DRAIN_OVER_MAX {
        return Err(AdminError::invalid("/over_ms", format!("at most {}", DRAIN_OVER_MAX.as_millis())));
    }
    Ok(Json(Drained { agents: channel::drain(&cloud, &order.to, over) }))
}

/// `host` or `host:port`, where the host is a name as RFC 1123 section 2.1 has them, or an address (RFC 3986 section
/// 3.2.2). Whether it exists is for the agents to find out: they may have another DNS.
fn is_address(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside brackets belongs to the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    is_host && port.is_none_or(is_port)
}

/// A name, or an IPv4 address: what ends in a number is no name (WHATWG URL, "ends in a number").
fn is_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= HOST_MAX_BYTES && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn agents_are_sent_to_a_host_or_nowhere() {
        for good in [
            "node2.cloud.example",
            "node2",
            "node2.cloud.example:443",
            "192.0.2.7:5223",
            "[2001:db8::7]",
            "[::1]:443",
        ] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}.example", "x".repeat(64));
        for bad in [
            "",
            ":",
            ":443",
            "...",
            "a..b",
            "-a.example",
            "a-.example",
            "https://node2",
            "node2:",
            "node2:0",
            "node2:65536",
            "node2:443:443",
            "node2:+443",
            "192.0.2.256",
            "1.2.3",
            "::1",
            "[::1",
            "[node2]",
            "[::1]443",
            "node2 ",
            "n\u{f6}de",
            &long,
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
