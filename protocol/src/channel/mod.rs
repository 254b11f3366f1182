//! The channel: one XMPP stream (RFC 6120) from an agent to the cloud.
//!
//! What travels, all as iq stanzas with exactly one result or error each:
//!
//! | from | payload | result means |
//! |---|---|---|
//! | agent | [`payload::Hello`] | [`payload::Welcome`]: the session counts |
//! | agent | [`payload::Report`] (an action's status) | recorded for good; the agent may forget it |
//! | agent | [`payload::Health`], [`payload::Progress`], [`payload::Notice`], [`payload::Applied`] | seen |
//! | agent | [`payload::Lease`] | [`payload::LeaseGrant`] |
//! | agent | [`payload::UploadRequest`] | [`payload::UploadGrant`] |
//! | agent | [`payload::CertificateRequest`] | [`payload::Certificate`] |
//! | cloud | [`payload::Action`] | durably accepted, **not** done; the outcome is a later [`payload::Report`] |
//! | cloud | [`payload::Request`] | [`payload::Reply`]: the answer itself, someone waits |
//! | cloud | [`payload::Configure`] | taken; an [`payload::Applied`] follows |
//! | both | XEP-0199 ping | alive |
//!
//! An unknown payload is answered with `service-unavailable` (RFC 6120 §8.4); it never ends the stream.

pub mod backoff;
pub mod element;
pub mod keepalive;
pub mod liveness;
pub mod nesting;
pub mod ns;
pub mod payload;
pub mod sm;
pub mod websocket;

pub use element::{SaslElement, SmElement, StreamElement};

/// ALPN name of the stream (XEP-0368).
pub const ALPN_XMPP: &[u8] = b"xmpp-client";
/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Resource part of every agent's full JID: one session per instance, the newer one wins.
pub const RESOURCE: &str = "agent";

/// Prefix of the URI SAN that names tenant and instance in an agent's certificate:
/// `causeway:tenant/<tenant>/agent/<instance>`.
pub const IDENTITY_URI_PREFIX: &str = "causeway:tenant/";

/// Object identifier of the `id-on-xmppAddr` otherName (RFC 6120 §13.7.1.4), as arcs.
pub const ID_ON_XMPP_ADDR: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 5];
