//! Elements as the standards show them, written by hand, and what they mean here.

use causeway_protocol::channel::{SaslElement, SmElement, StreamElement, ns};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::sasl::DefinedCondition as SaslCondition;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType};
use xmpp_parsers::stream_error::DefinedCondition as StreamCondition;

#[track_caller]
fn read(text: &str) -> StreamElement {
    xso::from_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn sasl(text: &str) -> SaslElement {
    match read(text) {
        StreamElement::Sasl(element) => element,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn sm(text: &str) -> SmElement {
    let element = read(text);
    assert!(!element.is_stanza(), "{text}: stream management does not count its own elements");
    match element {
        StreamElement::Sm(element) => element,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn iq(text: &str) -> Iq {
    let element = read(text);
    assert!(element.is_stanza(), "{text}");
    match element {
        StreamElement::Iq(iq) => iq,
        other => panic!("{text}: {other:?}"),
    }
}

/// RFC 6120 §6.4.2: an initial response, an empty one (`=`), and none at all are three different things.
#[test]
fn initial_responses() {
    for (text, mechanism, body) in [
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFzbWl0aABwdw==</auth>",
            "PLAIN",
            "AGFzbWl0aABwdw==",
        ),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>", "EXTERNAL", "="),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'/>", "EXTERNAL", ""),
    ] {
        let SaslElement::Auth(auth) = sasl(text) else { panic!("{text}") };
        assert_eq!((auth.mechanism.as_str(), auth.body.as_str()), (mechanism, body));
    }
}

/// RFC 6120 §6.4.3 to §6.4.6.
#[test]
fn the_rest_of_a_login() {
    let SaslElement::Challenge(challenge) =
        sasl("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>cj1ub25jZQ==</challenge>")
    else {
        panic!("no challenge")
    };
    assert_eq!(challenge.body, "cj1ub25jZQ==");
    let SaslElement::Response(response) = sasl("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>") else {
        panic!("no response")
    };
    assert_eq!(response.body, "");
    assert!(matches!(sasl("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"), SaslElement::Abort(_)));
    let SaslElement::Success(success) =
        sasl("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>dj0=</success>")
    else {
        panic!("no success")
    };
    assert_eq!(success.body, "dj0=");
}

/// RFC 6120 §6.4.5 and §6.5.10: a failure has a condition and perhaps words.
#[test]
fn a_login_that_fails() {
    let SaslElement::Failure(failure) = sasl(
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>\
         <text xml:lang='en'>the certificate has expired</text></failure>",
    ) else {
        panic!("no failure")
    };
    assert_eq!(failure.defined_condition, SaslCondition::NotAuthorized);
    assert_eq!(failure.texts.values().next().map(String::as_str), Some("the certificate has expired"));
}

/// RFC 6120 §7.6.1: the server chooses the resource.
#[test]
fn binding() {
    let Iq::Set { id, payload, .. } = iq(
        "<iq xmlns='jabber:client' id='b-1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    ) else {
        panic!("no set")
    };
    assert_eq!(id, "b-1");
    BindQuery::try_from(payload).unwrap();
    let Iq::Result { payload: Some(payload), .. } = iq(
        "<iq xmlns='jabber:client' id='b-1' type='result'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <jid>i-1@cloud.example/agent</jid></bind></iq>",
    ) else {
        panic!("no result")
    };
    let jid: jid::FullJid = BindResponse::try_from(payload).unwrap().into();
    assert_eq!((jid.resource().as_str(), jid.domain().as_str()), ("agent", "cloud.example"));
}

/// RFC 6120 §8.3.1: an error names who is at fault, a defined condition, and may carry words and a condition of the
/// application's own.
#[test]
fn stanza_errors() {
    let Iq::Error { error, .. } = iq("<iq xmlns='jabber:client' id='e-1' type='error'><error type='wait'>\
         <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>later</text>\
         <retry xmlns='urn:example:own' after='5'/></error></iq>")
    else {
        panic!("no error")
    };
    assert_eq!(
        (error.type_, error.defined_condition),
        (ErrorType::Wait, DefinedCondition::ResourceConstraint)
    );
    assert!(error.other.is_some_and(|own| own.is("retry", "urn:example:own")));
}

/// RFC 6120 §4.9.1: a stream error ends the stream and is no stanza.
#[test]
fn stream_errors() {
    for (word, condition) in [
        ("conflict", StreamCondition::Conflict),
        ("host-unknown", StreamCondition::HostUnknown),
        ("not-well-formed", StreamCondition::NotWellFormed),
        ("policy-violation", StreamCondition::PolicyViolation),
        ("system-shutdown", StreamCondition::SystemShutdown),
    ] {
        let text = format!(
            "<stream:error xmlns:stream='http://etherx.jabber.org/streams'>\
             <{word} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        );
        let element = read(&text);
        assert!(!element.is_stanza());
        let StreamElement::Error(error) = element else { panic!("{text}: {element:?}") };
        assert_eq!(error.0.condition, condition);
    }
}

/// RFC 6120 §8.4: a payload nobody knows is a stanza like any other, and an unknown first-level element is no end.
#[test]
fn the_unknown() {
    let Iq::Get { payload, .. } = iq(
        "<iq xmlns='jabber:client' id='u-1' type='get'><query xmlns='urn:example:unknown'><a b='c'/></query></iq>",
    ) else {
        panic!("no get")
    };
    assert!(payload.is("query", "urn:example:unknown"));
    assert!(matches!(read("<novelty xmlns='urn:example:unknown'>text</novelty>"), StreamElement::Unknown(_)));
    let message =
        read("<message xmlns='jabber:client' type='chat' to='a@b.example'><body>hello</body></message>");
    assert!(matches!(message, StreamElement::Message(_)) && message.is_stanza());
    let presence = read("<presence xmlns='jabber:client'/>");
    assert!(matches!(presence, StreamElement::Presence(_)) && presence.is_stanza());
}

/// XEP-0198 §3: booleans are XML Schema's, so `1` is as good as `true`.
#[test]
fn stream_management_is_switched_on() {
    for (text, resume) in [
        ("<enable xmlns='urn:xmpp:sm:3'/>", false),
        ("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", true),
        ("<enable xmlns='urn:xmpp:sm:3' resume='1' max='60'/>", true),
        ("<enable xmlns='urn:xmpp:sm:3' resume='0'/>", false),
    ] {
        let SmElement::Enable(enable) = sm(text) else { panic!("{text}") };
        assert_eq!(enable.resume, resume, "{text}");
    }
    let SmElement::Enabled(enabled) =
        sm("<enabled xmlns='urn:xmpp:sm:3' id='s-7' resume='true' max='300' location='[2001:db8::1]:5223'/>")
    else {
        panic!("not enabled")
    };
    assert_eq!(
        (enabled.resume, enabled.max, enabled.id.map(|id| id.0)),
        (true, Some(300), Some("s-7".to_owned()))
    );
}

/// XEP-0198 §4: `h` has 32 bits and wraps.
#[test]
fn acknowledgements() {
    assert!(matches!(sm("<r xmlns='urn:xmpp:sm:3'/>"), SmElement::Request(_)));
    let SmElement::Ack(ack) = sm("<a xmlns='urn:xmpp:sm:3' h='4294967295'/>") else { panic!("no ack") };
    assert_eq!(ack.h, u32::MAX);
    for wrong in [
        "<a xmlns='urn:xmpp:sm:3'/>",
        "<a xmlns='urn:xmpp:sm:3' h='4294967296'/>",
        "<a xmlns='urn:xmpp:sm:3' h='-1'/>",
    ] {
        assert!(xso::from_bytes::<StreamElement>(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

/// XEP-0198 §5: a server that has forgotten the session may leave out `h`.
#[test]
fn resumption() {
    let SmElement::Resume(resume) = sm("<resume xmlns='urn:xmpp:sm:3' h='12' previd='s-7'/>") else {
        panic!("no resume")
    };
    assert_eq!((resume.h, resume.previd.0.as_str()), (12, "s-7"));
    let SmElement::Resumed(resumed) = sm("<resumed xmlns='urn:xmpp:sm:3' h='11' previd='s-7'/>") else {
        panic!("not resumed")
    };
    assert_eq!(resumed.h, 11);
    for (text, h) in [
        (
            "<failed xmlns='urn:xmpp:sm:3' h='9'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
            Some(9),
        ),
        (
            "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
            None,
        ),
    ] {
        let SmElement::Failed(failed) = sm(text) else { panic!("{text}") };
        assert_eq!((failed.h, failed.condition), (h, Some(DefinedCondition::ItemNotFound)));
    }
    let SmElement::Failed(failed) = sm("<failed xmlns='urn:xmpp:sm:3'/>") else { panic!("no failure") };
    assert_eq!((failed.h, failed.condition), (None, None));
}

/// XEP-0199 §4.2, and a prefix instead of a default namespace, which is the same thing.
#[test]
fn a_ping_under_any_prefix() {
    for text in [
        "<iq xmlns='jabber:client' from='cloud.example' to='i-1@cloud.example/agent' id='p-1' type='get'>\
         <ping xmlns='urn:xmpp:ping'/></iq>",
        "<c:iq xmlns:c='jabber:client' xmlns:p='urn:xmpp:ping' id='p-1' type='get'><p:ping/></c:iq>",
    ] {
        let Iq::Get { payload, .. } = iq(text) else { panic!("{text}") };
        assert!(payload.is("ping", ns::PING), "{text}");
        Ping::try_from(payload).unwrap();
    }
}
