//! Bytes from a peer that means harm: refused or read, never a panic.

use causeway_protocol::auth::{AuthReply, AuthRequest};
use causeway_protocol::channel::payload::{
    Action, Applied, Certificate, CertificateRequest, Configure, ErrorReport, Health, Hello, Lease,
    LeaseGrant, Notice, Payload, PayloadError, Progress, Reply, Report, Request, UploadGrant, UploadRequest,
    Welcome,
};
use causeway_protocol::channel::{SaslElement, SmElement, StreamElement, ns};
use causeway_protocol::limits::BODY_MAX_BYTES;
use causeway_protocol::record::{GroupRecord, OuRecord, Record, UserRecord};
use minidom::Element;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::any;

/// Good elements to damage.
const GOOD: &[&str] = &[
    "<iq xmlns='jabber:client' type='set' id='a1'><action xmlns='urn:causeway:cmd:1'>{\"id\":\"1\",\"module\":\"m\",\
     \"action\":\"a\",\"ttl_ms\":1,\"attempt\":1}</action></iq>",
    "<iq xmlns='jabber:client' type='error' id='a1'><error type='cancel'><item-not-found \
     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
    "<resume xmlns='urn:xmpp:sm:3' previd='s-1' h='4294967295'/>",
    "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
    "<error xmlns='http://etherx.jabber.org/streams'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>",
];

fn read_all(bytes: &[u8]) {
    // The results do not matter here, only that there are some.
    let _ = xso::from_bytes::<StreamElement>(bytes);
    let _ = xso::from_bytes::<SmElement>(bytes);
    let _ = xso::from_bytes::<SaslElement>(bytes);
}

/// Every way a text can be read.
fn read_text(text: &str) {
    macro_rules! as_payloads {
        ($($payload:ty),*) => { $(
            let element = Element::builder(<$payload>::NAME, <$payload>::NS).append(text).build();
            let _ = <$payload>::from_element(&element);
        )* };
    }
    as_payloads!(
        Action,
        Applied,
        Certificate,
        CertificateRequest,
        Configure,
        ErrorReport,
        Health,
        Hello,
        Lease,
        LeaseGrant,
        Notice,
        Progress,
        Reply,
        Report,
        UploadGrant,
        UploadRequest,
        Welcome
    );
    let _ = serde_json::from_str::<Record>(text);
    let _ = serde_json::from_str::<UserRecord>(text);
    let _ = serde_json::from_str::<GroupRecord>(text);
    let _ = serde_json::from_str::<OuRecord>(text);
    let _ = serde_json::from_str::<AuthRequest>(text);
    let _ = serde_json::from_str::<AuthReply>(text);
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..256)) {
        read_all(&bytes);
        let _ = serde_json::from_slice::<Record>(&bytes);
    }

    #[test]
    fn arbitrary_words_of_the_language(words in vec(prop::sample::select(vec![
        "<iq", "<r", "<a", " xmlns='jabber:client'", " xmlns='urn:xmpp:sm:3'", " h='", "-1", "4294967296", "'", " type='set'",
        " id='1'", ">", "/>", "</iq>", "<!DOCTYPE x>", "<![CDATA[", "]]>", "<!--", "-->", "<?xml version='1.0'?>", "&lt;",
        "&#x0;", "&bomb;", "\u{ffff}", "xml:lang='", "x:", " ",
    ]), 0..24)) {
        read_all(words.concat().as_bytes());
    }

    #[test]
    fn damaged_elements(good in prop::sample::select(GOOD), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = good.as_bytes().to_vec();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(xso::from_bytes::<StreamElement>(&bytes).is_err(), "half an element is none");
        } else {
            bytes[at] = byte;
        }
        read_all(&bytes);
    }

    #[test]
    fn arbitrary_texts(text in any::text()) {
        read_text(&text);
    }

    #[test]
    fn json_of_another_shape(value in any::json()) {
        read_text(&value.to_string());
    }

    #[test]
    fn a_request_with_any_attributes(ttl in any::text(), body in any::text()) {
        let attribute = |name: &str| xso::exports::rxml::NcName::try_from(name).unwrap();
        let element = Element::builder(Request::NAME, ns::CMD)
            .attr(attribute("module"), "m")
            .attr(attribute("request"), "r")
            .attr(attribute("ttl-ms"), ttl.as_str())
            .append(body.as_str())
            .build();
        match Request::from_element(&element) {
            Ok(request) => prop_assert_eq!(ttl.trim_start_matches('+').parse::<u64>().ok(), Some(request.ttl_ms)),
            Err(error) => prop_assert!(matches!(error, PayloadError::Attribute { attribute: "ttl-ms", .. }), "{}", error),
        }
    }
}

#[test]
fn the_good_elements_are_good() {
    for good in GOOD {
        xso::from_bytes::<StreamElement>(good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
}

#[test]
fn a_document_type_is_refused() {
    for text in [
        "<!DOCTYPE iq [<!ENTITY a 'b'>]><r xmlns='urn:xmpp:sm:3'/>",
        "<r xmlns='urn:xmpp:sm:3'>&a;</r>",
        "<r xmlns='urn:xmpp:sm:3'><!-- RFC 6120 section 11.1 forbids comments --></r>",
        "<r xmlns='urn:xmpp:sm:3'><?target?></r>",
    ] {
        assert!(xso::from_bytes::<StreamElement>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    // What fits into the largest body, as JSON and as XML.
    let json = "[".repeat(BODY_MAX_BYTES);
    let element = Element::builder("configure", ns::AGENT).append(format!("{{\"settings\":{json}")).build();
    assert!(matches!(Configure::from_element(&element), Err(PayloadError::TooLarge { .. })));
    let element = Element::builder("configure", ns::AGENT).append(&json[..BODY_MAX_BYTES / 2]).build();
    assert!(matches!(Configure::from_element(&element), Err(PayloadError::Malformed { .. })));
}
