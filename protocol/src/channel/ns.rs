//! XML namespaces of the channel.

/// SASL, RFC 6120 §6.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Stream errors, RFC 6120 §4.9.
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Stanzas on a client's stream.
pub const CLIENT: &str = "jabber:client";
/// Stream management, XEP-0198.
pub const SM: &str = "urn:xmpp:sm:3";
/// Ping, XEP-0199.
pub const PING: &str = "urn:xmpp:ping";
/// Ours: sessions, health, leases, config, enrolment.
pub const AGENT: &str = "urn:causeway:agent:1";
/// Ours: actions and requests.
pub const CMD: &str = "urn:causeway:cmd:1";
/// The stream itself, RFC 6120 §4.8.1.
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// Begin and end of a stream in WebSocket messages, RFC 7395.
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
