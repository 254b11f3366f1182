//! Names, requests and certificates: what is written can be read.

use std::net::IpAddr;

use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::{
    Accept, AlternativeName, Attribute, BasicConstraints, Csr, CsrDraft, Digest, Extension, Extensions, Key,
    KeyUsage, Name, Oid, PkixError, PublicKeyKind, Template, oid,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::world::{CA, FROM, IMPOSTOR, TO, client, device};

#[test]
fn names_of_templates_are_read() {
    let name = Name::parse("/CN=%uname%/emailAddress=%email%").unwrap();
    assert_eq!(name.rdns.len(), 2);
    assert_eq!(name.rdns[0], [Attribute::new(oid::CN, "%uname%")]);
    assert_eq!(name.rdns[1], [Attribute::new(oid::EMAIL_ADDRESS, "%email%")]);
    assert_eq!(name.to_string(), "emailAddress=%email%,CN=%uname%");
    let all = "/CN=a/C=DE/L=b/ST=c/O=d/OU=e/G=f/S=g/I=h/UID=i/SN=j/T=k/D=l/emailAddress=m@n/DC=o";
    let all = Name::parse(all).unwrap();
    assert_eq!(all.check(), Ok(()));
    assert_eq!(all.value(oid::SURNAME), Some("g"));
    assert_eq!(all.value(oid::SERIAL_NUMBER), Some("j"));
    assert_eq!(Name::parse(&all.to_string()).unwrap(), all);
    let slashes = Name::parse(r"/O=a\/b+c, \\ =/CN=x").unwrap();
    assert_eq!(slashes.value(oid::ORGANIZATION), Some(r"a/b+c, \ ="));
}

#[test]
fn names_of_rfc_4514_are_read() {
    let cases = [
        // RFC 4514 section 4.
        (r"UID=jsmith,DC=example,DC=net", "jsmith", oid::USER_ID),
        (r"OU=Sales+CN=J.  Smith,DC=example,DC=net", "J.  Smith", oid::CN),
        (r#"CN=James \"Jim\" Smith\, III,DC=example,DC=net"#, r#"James "Jim" Smith, III"#, oid::CN),
        (r"CN=Before\0dAfter,DC=example,DC=net", "Before\rAfter", oid::CN),
        (r"CN=Lu\C4\8Di\C4\87", "Lučić", oid::CN),
        // White space that is no space belongs to the value.
        ("CN=\u{a0}Ann\u{3000}", "\u{a0}Ann\u{3000}", oid::CN),
        (r"1.3.6.1.4.1.1466.0=#04024869", "#04024869", Oid::new(&[1, 3, 6, 1, 4, 1, 1466, 0])),
    ];
    for (text, value, kind) in cases {
        let name = Name::parse(text).unwrap();
        assert_eq!(name.value(kind), Some(value), "{text}");
        assert_eq!(Name::read(&name.to_der()).unwrap(), name, "{text}");
        assert_eq!(Name::parse(&name.to_string()).unwrap(), name, "{text}");
    }
    assert_eq!(Name::parse("").unwrap(), Name::default());
    for bad in ["CN", "=x", "XYZ=1", "CN=a,", r"CN=a\", "CN=#0", "CN=#zz", r"CN=\ff", "/CN=a/", "/"] {
        assert!(Name::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_an_authority_should_not_be_asked_for_is_found() {
    let check = |text: &str| Name::parse(text).unwrap().check();
    assert_eq!(check(&format!("CN={}", "ü".repeat(64))), Ok(()));
    assert!(matches!(check(&format!("CN={}", "a".repeat(65))), Err(PkixError::BadValue { .. })));
    assert!(matches!(check("CN=a,C=Germany"), Err(PkixError::BadValue { .. })));
    assert!(matches!(check("CN="), Err(PkixError::BadValue { .. })));
    assert!(matches!(check("emailAddress=ä@b"), Err(PkixError::BadValue { .. })));
    assert_eq!(check(r"CN=admin\00.evil"), Err(PkixError::ControlCharacter { what: "subject" }));
    let many = vec!["CN=a"; 65].join(",");
    assert!(matches!(check(&many), Err(PkixError::TooMuch { .. })));
}

#[test]
fn names_are_the_same_whatever_their_case_and_blanks() {
    let one = Name::parse("CN=Alice  Smith,O=ACME").unwrap();
    assert!(one.same_as(&Name::parse("CN=alice smith,O=Acme").unwrap()));
    assert!(!one.same_as(&Name::parse("O=ACME,CN=Alice Smith").unwrap()));
    assert!(!one.same_as(&Name::parse("CN=Alice Smith").unwrap()));
}

fn everything() -> CsrDraft {
    CsrDraft {
        subject: Name::parse("/C=DE/O=Acme/CN=Zoë/emailAddress=zoe@acme.example").unwrap(),
        alternative_names: [
            "upn:zoë@acme.example",
            "email:zoe@acme.example",
            "dns:zoe.acme.example",
            "uri:tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104",
            "ip:192.0.2.7",
            "ip:2001:db8::7",
            "dir:CN=zoe,O=Acme",
        ]
        .map(|text| AlternativeName::parse(text).unwrap())
        .to_vec(),
        challenge: Some(Secret::new("päss_word")),
        template: Some(Template::Id {
            id: Oid::parse("1.3.6.1.4.1.311.21.8.1.2.3").unwrap(),
            major: 100,
            minor: 4,
        }),
        sid: Some("S-1-5-21-1-2-3-1104".to_owned()),
        extensions: vec![Extension::key_usage(KeyUsage::DIGITAL_SIGNATURE.and(KeyUsage::KEY_ENCIPHERMENT))],
    }
}

#[test]
fn requests_say_what_they_were_made_of() {
    for key in [client(), device()] {
        let draft = everything();
        let csr = Csr::read(&draft.sign(&key, Digest::Sha256).unwrap()).unwrap();
        csr.verify(Accept::MODERN).unwrap();
        assert_eq!(csr.subject(), &draft.subject);
        assert_eq!(csr.alternative_names(), draft.alternative_names);
        let challenge = csr.challenge().unwrap();
        assert_eq!(challenge.expose(), "päss_word");
        assert_eq!(csr.template(), draft.template.as_ref());
        assert_eq!(csr.extensions().sid().unwrap().as_deref(), Some("S-1-5-21-1-2-3-1104"));
        let usage = csr.extensions().key_usage().unwrap().unwrap();
        assert!(usage.has(KeyUsage::KEY_ENCIPHERMENT) && !usage.has(KeyUsage::CERT_SIGN));
        assert!(csr.public_key().same_as(key.public_key()));
        let shown: Vec<_> = csr.alternative_names().iter().map(ToString::to_string).collect();
        let again: Vec<_> = shown.iter().map(|text| AlternativeName::parse(text).unwrap()).collect();
        assert_eq!(again, draft.alternative_names);
    }
}

#[test]
fn names_of_templates_are_found_in_both_versions() {
    let named = Extensions(vec![Extension::template(&Template::Name("WebServer".to_owned()))]);
    let read = Extensions::read(&named.to_der()).unwrap();
    assert_eq!(read.template().unwrap(), Some(Template::Name("WebServer".to_owned())));
}

#[test]
fn a_sid_uri_binds_as_well_as_the_extension() {
    let names = [AlternativeName::Dns("x".into()), AlternativeName::sid_uri("S-1-5-21-9")];
    let extensions = Extensions(vec![Extension::alternative_names(&names)]);
    assert_eq!(extensions.sid().unwrap().as_deref(), Some("S-1-5-21-9"));
    // Bytes of KB5014754's extension as online templates write it, composed by hand from its description.
    let sid = b"S-1-5-21-1";
    let mut expected =
        vec![0x30, 28, 0xa0, 26, 6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x19, 2, 1, 0xa0, 12, 4, 10];
    expected.extend_from_slice(sid);
    assert_eq!(Extension::sid("S-1-5-21-1").value, expected);
}

#[test]
fn alternative_names_that_make_no_sense_are_refused() {
    for bad in [
        "alice",
        "upn:",
        "upn:alice",
        "email:@x",
        "email:ü@x",
        "dns:a b",
        "dns:ä",
        "uri:ä",
        "ip:1.2.3",
        "ip:::g",
        "dir:X",
        "fax:1",
        "dns:a\0b",
        "upn:a\n@b",
    ] {
        assert!(AlternativeName::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        AlternativeName::parse("ip:::1").unwrap(),
        AlternativeName::Ip(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))
    );
}

#[test]
fn certificates_say_what_they_were_made_of() {
    let key = device();
    let extensions = vec![
        Extension::basic_constraints(BasicConstraints { ca: false, path_length: None }),
        Extension::key_usage(KeyUsage::DIGITAL_SIGNATURE),
        Extension::extended_key_usage(&[oid::CLIENT_AUTH, oid::EMAIL_PROTECTION]),
        Extension::subject_key_id(&key.public_key().key_id()),
        Extension::authority_key_id(&CA.key.public_key().key_id()),
        Extension::crl_distribution_points(&["http://ca.example/crl"]),
        Extension::authority_info_access(Some("http://ca.example/ocsp"), Some("http://ca.example/ca.cer")),
    ];
    let certificate = CA.issue(key.public_key(), "CN=alice", 0xfe, extensions.clone());
    assert_eq!(certificate.extensions().0, extensions);
    assert_eq!(certificate.serial(), "fe");
    assert_eq!(certificate.serial_raw(), [0, 0xfe]);
    assert_eq!((certificate.not_before_ms(), certificate.not_after_ms()), (FROM, TO));
    assert_eq!(certificate.id().issuer, "CN=Acme Test CA,O=Acme");
    assert_eq!(certificate.public_key().kind(), PublicKeyKind::P256);
    assert_eq!(
        certificate.extensions().extended_key_usage().unwrap(),
        [oid::CLIENT_AUTH, oid::EMAIL_PROTECTION]
    );
    assert_eq!(certificate.extensions().crl_urls().unwrap(), ["http://ca.example/crl"]);
    assert_eq!(
        certificate.extensions().authority_key_id().unwrap(),
        CA.certificate.extensions().subject_key_id().unwrap()
    );
    assert!(certificate.issued_by(&CA.certificate, Accept::MODERN));
    assert!(!certificate.issued_by(&IMPOSTOR.certificate, Accept::MODERN), "the name alone is not enough");
    assert!(!certificate.is_ca() && CA.certificate.is_ca());
}

#[test]
fn keys_survive_pkcs8() {
    for kind in [KeyKind::Rsa2048, KeyKind::P256] {
        let key = Key::generate(kind).unwrap();
        let again = Key::from_pkcs8(key.pkcs8()).unwrap();
        assert!(again.public_key().same_as(key.public_key()));
        assert_eq!(again.is_rsa(), kind == KeyKind::Rsa2048);
        assert!(!format!("{key:?}").contains("pkcs8"));
    }
    assert!(matches!(Key::from_pkcs8(b"no key"), Err(PkixError::BadKey { .. })));
}

proptest! {
    #[test]
    fn any_name_survives_text_and_encoding(
        values in vec((0..KINDS.len(), "\\PC{1,20}"), 0..6),
    ) {
        let name = Name::of(values.into_iter().map(|(kind, value)| (KINDS[kind], value)));
        prop_assert_eq!(&Name::read(&name.to_der()).unwrap(), &name);
        prop_assert_eq!(&Name::parse(&name.to_string()).unwrap(), &name, "{}", name);
    }

    /// A user's name cannot change how many parts a name has: templates are parsed first and filled afterwards.
    #[test]
    fn a_value_never_becomes_a_part(value in "[\\PC/=+,;\\\\]{0,30}") {
        let mut name = Name::parse("/O=Acme/CN=%uname%/emailAddress=%email%").unwrap();
        name.rdns[1][0].value = value.clone();
        let read = Name::parse(&name.to_string()).unwrap();
        prop_assert_eq!(read.rdns.len(), 3);
        prop_assert_eq!(read.value(oid::CN), Some(value.as_str()));
    }
}

const KINDS: [Oid; 5] = [oid::CN, oid::ORGANIZATION, oid::EMAIL_ADDRESS, oid::SERIAL_NUMBER, oid::COUNTRY];
