//! What a hostile or broken cloud may say before there is a session, and how it may end one: every answer has a
//! defined reaction.

use std::time::Duration;

use causeway_agent::channel::ChannelState;
use causeway_agent::limits::{
    CLONE_WAIT_FROM, CLONE_WAIT_TO, CONSTRAINED_WAIT_FROM, CONSTRAINED_WAIT_TO, REFUSED_WAIT_FROM,
    REFUSED_WAIT_TO, SHUTDOWN_SPREAD,
};
use causeway_protocol::limits::{BACKOFF_BASE, ELEMENT_PRE_AUTH_MAX_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use crate::support::cloud::Line;
use crate::support::{Bench, eventually, soon};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' from='cloud.causeway.test' id='s1' version='1.0'>";
const EXTERNAL: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
    <mechanism>EXTERNAL</mechanism></mechanisms></stream:features>";

/// What the channel says when there is no XML stream to speak of.
const NO_STREAM: &str = "talk to the cloud during login";

fn sasl(inner: &str) -> String {
    format!("{HEADER}{EXTERNAL}<{inner} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'")
}

/// Says this to one connection of a fresh agent; returns the agent's words and how it then is.
async fn answered_with(text: &str) -> (String, Duration, String, bool) {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let mut io = bench.lobby.raw().await;
    io.write_all(text.as_bytes()).await.unwrap();
    let state = eventually(
        "the login's end",
        || async { agent.channel().state().borrow().clone() },
        |state| matches!(state, ChannelState::Waiting { .. }),
    )
    .await;
    let mut said = Vec::new();
    soon("the end of the connection", io.read_to_end(&mut said)).await.unwrap();
    let ChannelState::Waiting { delay_ms, reason, needs_admin } = state else { unreachable!() };
    (String::from_utf8(said).unwrap(), Duration::from_millis(delay_ms), reason, needs_admin)
}

#[tokio::test(start_paused = true)]
async fn nonsense_before_and_during_the_login_is_refused_and_tried_again() {
    let long = format!(
        "{HEADER}<stream:features><x>{}</x></stream:features>",
        "x".repeat(ELEMENT_PRE_AUTH_MAX_BYTES)
    );
    let deep = format!("{HEADER}<stream:features>{}", "<x xmlns='y'>".repeat(200));
    let cases: &[(&str, &str)] = &[
        ("<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", NO_STREAM),
        ("<stream:stream xmlns='jabber:server' xmlns:stream='urn:x' version='1.0'>", NO_STREAM),
        ("HTTP/1.1 302 Found\r\nlocation: https://portal.example/\r\n\r\n", NO_STREAM),
        ("<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol 'lol'>]>", NO_STREAM),
        (&format!("{HEADER}<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"), NO_STREAM),
        (&long, "more than 10000 bytes"),
        (&deep, "nested more than"),
        (&format!("{HEADER}<stream:features/>"), "does not offer EXTERNAL"),
        (
            &format!("{HEADER}{}", EXTERNAL.replace("EXTERNAL", "PLAIN")),
            "does not offer EXTERNAL (offers: PLAIN)",
        ),
        (&format!("{}>c2FsdA==</challenge>", sasl("challenge")), "where an answer to the login was due"),
        (&format!("{}/></stream:stream>", sasl("abort")), "where an answer to the login was due"),
        (
            &format!("{}/>{HEADER}<stream:features/><iq type='result' id='login-bind'/>", sasl("success")),
            "where a bound JID was due",
        ),
        (
            &format!(
                "{}/>{HEADER}<stream:features/><iq type='result' id='login-bind'>\
                 <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>mallory@cloud.causeway.test/agent</jid></bind></iq>",
                sasl("success")
            ),
            "where our own JID bound was due",
        ),
        (
            &format!(
                "{}/>{HEADER}<stream:features/><iq type='error' id='login-bind'><error type='wait'>\
                 <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
                sasl("success")
            ),
            "resource-constraint",
        ),
    ];
    for (text, expected) in cases {
        let (said, delay, reason, needs_admin) = answered_with(text).await;
        let shown = text.chars().skip(150).take(200).collect::<String>();
        // The XML layer may also go on waiting for what it takes to be the rest.
        let waited = *expected == NO_STREAM && reason.contains("did not end within");
        assert!(waited || reason.contains(expected), "{shown}: expected {expected:?}, got {reason}");
        assert!(!needs_admin && delay <= BACKOFF_BASE, "{shown}: {delay:?} {needs_admin}");
        assert!(said.contains("<auth") == text.contains(EXTERNAL), "{shown}: the agent said {said}");
        assert!(!said.contains("PLAIN"), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_sasl_failure_is_for_a_person_except_the_passing_one() {
    // RFC 6120 §6.5.
    for condition in [
        "aborted",
        "account-disabled",
        "credentials-expired",
        "encryption-required",
        "incorrect-encoding",
        "invalid-authzid",
        "invalid-mechanism",
        "malformed-request",
        "mechanism-too-weak",
        "not-authorized",
        "temporary-auth-failure",
    ] {
        let (_, delay, reason, needs_admin) =
            answered_with(&format!("{}><{condition}/></failure>", sasl("failure"))).await;
        assert!(reason.contains(condition), "{reason}");
        let passing = condition == "temporary-auth-failure";
        assert_eq!(needs_admin, !passing, "{condition}");
        let range = if passing { Duration::ZERO..=BACKOFF_BASE } else { REFUSED_WAIT_FROM..=REFUSED_WAIT_TO };
        assert!(range.contains(&delay), "{condition}: {delay:?}");
    }
}

/// What the agent should do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reaction {
    /// Come back with the usual back-off.
    Backoff,
    /// Leave the cloud alone for a minute and more.
    LeaveAlone,
    /// Come back spread over half a minute.
    Spread,
    /// Wait as a clone must.
    Clone,
    /// Stop and tell a person.
    Person,
    /// Go elsewhere at once.
    Redirect,
}

fn conditions() -> Vec<(DefinedCondition, Reaction)> {
    use DefinedCondition as C;
    use Reaction::{Backoff, Clone, LeaveAlone, Person, Redirect, Spread};
    vec![
        (C::BadFormat, Backoff),
        (C::BadNamespacePrefix, Backoff),
        (C::Conflict, Clone),
        (C::ConnectionTimeout, Backoff),
        (C::HostGone, Person),
        (C::HostUnknown, Person),
        (C::ImproperAddressing, Person),
        (C::InternalServerError, Backoff),
        (C::InvalidFrom, Person),
        (C::InvalidNamespace, Person),
        (C::InvalidXml, Backoff),
        (C::NotAuthorized, Person),
        (C::NotWellFormed, Backoff),
        (C::PolicyViolation, LeaveAlone),
        (C::RemoteConnectionFailed, Backoff),
        (C::Reset, Backoff),
        (C::ResourceConstraint, LeaveAlone),
        (C::RestrictedXml, Backoff),
        (C::SeeOtherHost("node2.causeway.test".into()), Redirect),
        (C::SystemShutdown, Spread),
        (C::UndefinedCondition, Backoff),
        (C::UnsupportedEncoding, Person),
        (C::UnsupportedFeature, Person),
        (C::UnsupportedStanzaType, Backoff),
        (C::UnsupportedVersion, Person),
    ]
}

/// RFC 6120 §4.9.3, all twenty-five.
#[tokio::test(start_paused = true)]
async fn every_stream_error_has_its_reaction() {
    let table = conditions();
    assert_eq!(table.len(), 25);
    for (condition, expected) in table {
        let name = condition.to_string();
        let mut bench = Bench::new();
        let agent = bench.start().await;
        let (line, _): (Line, _) = bench.lobby.online().await;
        line.end(StreamError::new(condition, "en", "because")).await;
        let state = eventually(
            &name,
            || async { agent.channel().state().borrow().clone() },
            |state| matches!(state, ChannelState::Waiting { .. }) || bench.connect.dialled() == 2,
        )
        .await;
        if expected == Reaction::Redirect {
            bench.lobby.online().await;
            assert_eq!(bench.connect.redirects(), [None, Some("node2.causeway.test".to_owned())]);
            continue;
        }
        let ChannelState::Waiting { delay_ms, reason, needs_admin } = state else {
            panic!("{name}: {state:?}")
        };
        assert!(reason.contains(&name) && reason.contains("because"), "{name}: {reason}");
        let (range, admin) = match expected {
            Reaction::Backoff => (Duration::ZERO..=BACKOFF_BASE, false),
            Reaction::LeaveAlone => (CONSTRAINED_WAIT_FROM..=CONSTRAINED_WAIT_TO, false),
            Reaction::Spread => (Duration::ZERO..=SHUTDOWN_SPREAD, false),
            Reaction::Clone => (CLONE_WAIT_FROM..=CLONE_WAIT_TO, true),
            Reaction::Person => (REFUSED_WAIT_FROM..=REFUSED_WAIT_TO, true),
            Reaction::Redirect => unreachable!("handled above"),
        };
        assert!(
            range.contains(&Duration::from_millis(delay_ms)),
            "{name}: {delay_ms} ms, expected {range:?}"
        );
        assert_eq!(needs_admin, admin, "{name}");
        // And then it does come back, to a new session.
        let (_line, hello) = bench.lobby.online().await;
        assert_eq!(hello.modules, ["probe"]);
    }
}
