//! KDC and service against a client written here, message by message.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::crypto::Usage;
use super::message::{Encrypted, NT_PRINCIPAL, Name, code, padata};
use super::*;
use crate::der::{Reader, element, field, flags, integer, octets, sequence, tag, text, time};
use crate::spnego::{Acceptor, NegState, NegTokenInit, NegTokenResp, OID_NTLM, Step, TicketStep};

const REALM: &str = "ACME.EXAMPLE";
const SERVICE: &str = "HTTP/mail1.acme.example";
const START_MS: i64 = 1_795_430_000_250;

struct One {
    now_ms: AtomicI64,
    wrong: AtomicU32,
}

impl Accounts for One {
    fn find(&self, name: &str) -> Result<Principal, NoTicket> {
        match name {
            "asmith" | "asmith@acme.example" => {
                Ok(Principal { login: "asmith".into(), password: "Passw0rd".into() })
            }
            "locked" => Err(NoTicket::Revoked),
            "old" => Err(NoTicket::PasswordExpired),
            _ => Err(NoTicket::Unknown),
        }
    }

    fn wrong_password(&self, login: &str) {
        assert_eq!(login, "asmith");
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

struct Realm {
    accounts: One,
    kdc: Kdc,
    service: Service,
}

impl Realm {
    fn answer(&self, message: &[u8]) -> Vec<u8> {
        self.kdc.answer(&self.accounts, message).message
    }
}

fn realm() -> Realm {
    let accounts = One { now_ms: AtomicI64::new(START_MS), wrong: AtomicU32::new(0) };
    let mut kdc = Kdc::new(REALM);
    let key = Key::random(Enctype::Aes256);
    kdc.add_service(SERVICE, key.clone());
    let mut keytab = Keytab::default();
    keytab.add(SERVICE, REALM, key);
    Realm { accounts, kdc, service: Service::new(keytab) }
}

/// A key and what it opens.
struct Ticketed {
    key: Key,
    ticket: Vec<u8>,
}

fn request(first: bool, padata: &[Vec<u8>], body: &[u8]) -> Vec<u8> {
    let number = if first { 10 } else { 12 };
    let fields = [
        field(1, &integer(5)),
        field(2, &integer(i64::from(number))),
        field(3, &sequence(padata)),
        field(4, body),
    ];
    element(tag::application(number), &sequence(&fields))
}

fn body(client: Option<&str>, service: &Name) -> Vec<u8> {
    let client = client.map(|login| Name { kind: NT_PRINCIPAL, parts: vec![login.to_owned()] });
    let mut fields = vec![field(0, &flags(0))];
    fields.extend(client.map(|name| field(1, &name.write())));
    fields.extend([
        field(2, &text(REALM)),
        field(3, &service.write()),
        field(5, &time(START_MS / 1000 + 3600)),
        field(7, &integer(77)),
        field(8, &sequence(&[integer(23), integer(18)])),
    ]);
    sequence(&fields)
}

/// Code and `e-data` of a KRB-ERROR.
fn failure(message: &[u8]) -> Option<(i64, Vec<u8>)> {
    let mut fields = Reader(message).enter(tag::application(30), "KRB-ERROR").ok()?;
    let mut fields = fields.enter(tag::SEQUENCE, "KRB-ERROR").unwrap();
    for number in 0..6 {
        fields.field_if(number, "field").unwrap();
    }
    let code = fields.field(6, "error-code").unwrap().integer("error-code").unwrap();
    for number in 7..12 {
        fields.field_if(number, "field").unwrap();
    }
    let methods = fields.field_if(12, "e-data").unwrap().map(|mut inside| inside.octets("e-data").unwrap());
    Some((code, methods.unwrap_or_default()))
}

fn granted(message: &[u8], number: u8, key: &Key, usage: Usage) -> Ticketed {
    let mut outer = Reader(message).enter(tag::application(number), "KDC-REP").unwrap();
    let mut fields = outer.enter(tag::SEQUENCE, "KDC-REP").unwrap();
    for number in 0..5 {
        fields.field_if(number, "field").unwrap();
    }
    let ticket = fields.field(5, "ticket").unwrap().0.to_vec();
    let sealed = fields.field(6, "enc-part").unwrap().0.to_vec();
    let plain = Encrypted::decode(&sealed).unwrap().open(key, usage).unwrap();
    let mut part =
        Reader(&plain).enter(tag::application(number + 14 - u8::from(number == 13)), "part").unwrap();
    let mut part = part.enter(tag::SEQUENCE, "part").unwrap();
    let mut inside = part.field(0, "key").unwrap().enter(tag::SEQUENCE, "key").unwrap();
    inside.field(0, "keytype").unwrap();
    let bytes = inside.field(1, "keyvalue").unwrap().octets("keyvalue").unwrap();
    Ticketed { key: Key::from_bytes(Enctype::Aes256, &bytes).unwrap(), ticket }
}

fn client_key(password: &str) -> Key {
    Key::of_password(Enctype::Aes256, password, "ACME.EXAMPLEasmith")
}

fn sign_in(realm: &Realm, login: &str, password: &str, at_ms: i64) -> Vec<u8> {
    let stamp = sequence(&[field(0, &time(at_ms / 1000)), field(1, &integer(0))]);
    let key = client_key(password);
    let sealed = key.seal(Usage::Timestamp, &stamp);
    let proof = sequence(&[field(0, &integer(18)), field(2, &octets(&sealed))]);
    let body = body(Some(login), &Name::service(&["krbtgt", REALM]));
    realm.answer(&request(true, &[padata(2, &proof)], &body))
}

fn authenticator(
    key: &Key,
    usage: Usage,
    checksum: (i64, Vec<u8>),
    at_ms: i64,
    sequence_number: i64,
) -> Vec<u8> {
    let checksum = sequence(&[field(0, &integer(checksum.0)), field(1, &octets(&checksum.1))]);
    let fields = [
        field(0, &integer(5)),
        field(1, &text(REALM)),
        field(2, &Name::person("asmith").write()),
        field(3, &checksum),
        field(4, &integer(at_ms % 1000 * 1000)),
        field(5, &time(at_ms / 1000)),
        field(7, &integer(sequence_number)),
    ];
    let sealed = key.seal(usage, &element(tag::application(2), &sequence(&fields)));
    sequence(&[field(0, &integer(18)), field(2, &octets(&sealed))])
}

fn ap_request(have: &Ticketed, mutual: bool, authenticator: &[u8]) -> Vec<u8> {
    let fields = [
        field(0, &integer(5)),
        field(1, &integer(14)),
        field(2, &flags(if mutual { 0x2000_0000 } else { 0 })),
        field(3, &have.ticket),
        field(4, authenticator),
    ];
    element(tag::application(14), &sequence(&fields))
}

fn ask(realm: &Realm, first: &Ticketed, service: &Name, checksum: (i64, Vec<u8>)) -> Vec<u8> {
    let at_ms = realm.accounts.now_ms();
    let shown = authenticator(&first.key, Usage::TgsAuthenticator, checksum, at_ms, 1);
    let shown = padata(1, &ap_request(first, false, &shown));
    realm.answer(&request(false, &[shown], &body(None, service)))
}

/// A ticket for the service.
fn ticket(realm: &Realm) -> Ticketed {
    let first =
        granted(&sign_in(realm, "asmith", "Passw0rd", START_MS), 11, &client_key("Passw0rd"), Usage::AsReply);
    let service = Name::service(&["HTTP", "MAIL1.acme.example"]);
    let checksum = first.key.checksum(Usage::TgsChecksum, &body(None, &service)).to_vec();
    granted(&ask(realm, &first, &service, (16, checksum)), 13, &first.key, Usage::TgsReply)
}

fn context_checksum(bindings: [u8; 16]) -> (i64, Vec<u8>) {
    (0x8003, [&16_u32.to_le_bytes()[..], &bindings, &0x3e_u32.to_le_bytes()].concat())
}

fn token(have: &Ticketed, mutual: bool, at_ms: i64, bindings: [u8; 16]) -> Vec<u8> {
    let shown = authenticator(&have.key, Usage::Authenticator, context_checksum(bindings), at_ms, 41);
    let message = [&element(tag::OID, OID)[..], &[1, 0], &ap_request(have, mutual, &shown)].concat();
    element(tag::application(0), &message)
}

fn refusal(outcome: Result<Accepted, KerberosError>) -> i64 {
    match outcome {
        Err(KerberosError::Refused { reply, .. }) => {
            let mut inside = Reader(&reply).enter(tag::application(0), "frame").unwrap();
            inside.take(tag::OID, "thisMech").unwrap();
            failure(inside.0.strip_prefix(&[3, 0]).unwrap()).unwrap().0
        }
        Err(error) => panic!("{error:?}"),
        Ok(accepted) => panic!("{} is accepted", accepted.login),
    }
}

#[test]
fn a_password_gets_a_ticket_and_a_ticket_a_context() {
    let realm = realm();
    let have = ticket(&realm);
    let accepted = realm.service.accept(&token(&have, true, START_MS, [9; 16]), START_MS).unwrap();
    assert_eq!((accepted.login.as_str(), accepted.realm.as_str()), ("asmith", REALM));
    assert_eq!(accepted.channel_bindings, Some([9; 16]));
    let reply = accepted.reply.unwrap();
    let mut inside = Reader(&reply).enter(tag::application(0), "frame").unwrap();
    inside.take(tag::OID, "thisMech").unwrap();
    let mut fields =
        Reader(inside.0.strip_prefix(&[2, 0]).unwrap()).enter(tag::application(15), "AP-REP").unwrap();
    let mut fields = fields.enter(tag::SEQUENCE, "AP-REP").unwrap();
    fields.field(0, "pvno").unwrap();
    fields.field(1, "msg-type").unwrap();
    let sealed = Encrypted::decode(fields.field(2, "enc-part").unwrap().0).unwrap();
    sealed.open(&have.key, Usage::ApReply).unwrap();

    let mut session = accepted.session;
    let key = session.key.clone();
    for number in 0..3 {
        let sent = Session::client_wrap(&key, 41 + number, b"a message");
        assert_eq!(session.unwrap(&sent).unwrap(), b"a message");
        assert_eq!(session.unwrap(&sent), Err(KerberosError::WrongSeal { sequence: 42 + number }), "again");
    }
    let wrapped = session.wrap(b"an answer");
    assert_eq!(wrapped.len(), TOKEN_BYTES + b"an answer".len());
    let mut turned = wrapped[16..].to_vec();
    turned.rotate_left(28);
    let plain = key.open(Usage::AcceptorSeal, &turned).unwrap();
    assert_eq!(&plain[..9], b"an answer");
    let mut changed = Session::client_wrap(&key, 44, b"a message");
    *changed.last_mut().unwrap() ^= 1;
    assert!(session.unwrap(&changed).is_err());
    for length in 0..20 {
        assert!(session.unwrap(&changed[..length]).is_err());
    }
}

#[test]
fn without_proof_of_ours_there_is_no_reply() {
    let realm = realm();
    let have = ticket(&realm);
    let accepted = realm.service.accept(&token(&have, false, START_MS, [0; 16]), START_MS).unwrap();
    assert!(accepted.reply.is_none() && accepted.channel_bindings.is_none());
}

#[test]
fn a_service_refuses_what_it_must() {
    let realm = realm();
    let have = ticket(&realm);
    let at = |at_ms: i64, now_ms: i64| realm.service.accept(&token(&have, true, at_ms, [0; 16]), now_ms);
    assert_eq!(refusal(at(START_MS, START_MS + 301_000)), code::SKEW);
    assert_eq!(refusal(at(START_MS + 301_000, START_MS)), code::SKEW);
    assert_eq!(refusal(at(START_MS, START_MS + 7_200_000)), code::TICKET_EXPIRED);
    assert_eq!(refusal(at(START_MS, START_MS - 7_200_000)), code::TICKET_NOT_YET_VALID);
    let once = token(&have, true, START_MS, [0; 16]);
    assert!(realm.service.accept(&once, START_MS).is_ok());
    assert_eq!(refusal(realm.service.accept(&once, START_MS)), code::REPEATED);
    assert_eq!(refusal(Service::new(Keytab::default()).accept(&once, START_MS)), code::NO_KEY);
    let mut other = Keytab::default();
    other.add(SERVICE, REALM, Key::random(Enctype::Aes256));
    assert_eq!(refusal(Service::new(other).accept(&once, START_MS)), code::MODIFIED);
    let stolen = Ticketed { key: Key::random(Enctype::Aes256), ticket: have.ticket.clone() };
    let shown = token(&stolen, true, START_MS, [0; 16]);
    assert_eq!(refusal(realm.service.accept(&shown, START_MS)), code::MODIFIED);
    for length in 0..once.len() {
        assert!(matches!(
            realm.service.accept(&once[..length], START_MS),
            Err(KerberosError::Malformed { .. })
        ));
    }
}

#[test]
fn the_kdc_says_what_is_wrong() {
    let realm = realm();
    let code_of = |message: &[u8]| failure(message).map(|(code, _)| code);
    let name = Name::service(&["krbtgt", REALM]);
    let bare = realm.answer(&request(true, &[], &body(Some("asmith"), &name)));
    let (needed, methods) = failure(&bare).unwrap();
    assert_eq!(needed, code::PREAUTH_REQUIRED);
    assert!(methods.windows(18).any(|window| window == b"ACME.EXAMPLEasmith"), "{methods:x?}");
    for (login, expected) in
        [("nobody", code::CLIENT_UNKNOWN), ("locked", code::CLIENT_REVOKED), ("old", code::KEY_EXPIRED)]
    {
        assert_eq!(code_of(&sign_in(&realm, login, "Passw0rd", START_MS)), Some(expected), "{login}");
    }
    assert_eq!(code_of(&sign_in(&realm, "asmith", "wrong", START_MS)), Some(code::PREAUTH_FAILED));
    assert_eq!(realm.accounts.wrong.load(Ordering::Relaxed), 1);
    assert_eq!(code_of(&sign_in(&realm, "asmith", "Passw0rd", START_MS + 301_000)), Some(code::SKEW));
    let first = granted(
        &sign_in(&realm, "asmith@acme.example", "Passw0rd", START_MS),
        11,
        &client_key("Passw0rd"),
        Usage::AsReply,
    );
    let other = Name::service(&["HTTP", "mail9.acme.example"]);
    let checksum = first.key.checksum(Usage::TgsChecksum, &body(None, &other)).to_vec();
    assert_eq!(code_of(&ask(&realm, &first, &other, (16, checksum.clone()))), Some(code::SERVICE_UNKNOWN));
    let mail = Name::service(&["HTTP", "mail1.acme.example"]);
    assert_eq!(code_of(&ask(&realm, &first, &mail, (16, checksum))), Some(code::BAD_CHECKSUM));
    let elsewhere = super::tests::realm();
    assert_eq!(code_of(&ask(&elsewhere, &first, &mail, (16, vec![]))), Some(code::MODIFIED));
    for rubbish in [&b""[..], b"\x6a\x00", b"\x6a\x03\x30\x01\xa1", b"hello"] {
        assert_eq!(code_of(&realm.answer(rubbish)), Some(code::GENERIC));
    }
}

#[test]
fn spnego_takes_kerberos_where_it_is_liked_best() {
    let realm = realm();
    let have = ticket(&realm);
    let acceptor = || {
        let ntlm = crate::ntlm::NtlmServer::new(crate::ntlm::ServerNames::default(), [7; 8], 0);
        Acceptor::new(ntlm)
    };
    let first = |at_ms, list: &[&[u8]]| {
        let token = NegTokenInit::encode(list, Some(&token(&have, true, at_ms, [0; 16])));
        acceptor().accept_tickets(&token, &realm.service, START_MS).unwrap()
    };
    let TicketStep::Proven(accepted, Some(reply)) = first(START_MS, &[OID_OF_WINDOWS, OID, OID_NTLM]) else {
        panic!("not accepted");
    };
    let reply = NegTokenResp::decode(&reply).unwrap();
    assert_eq!((accepted.login.as_str(), reply.state), ("asmith", Some(NegState::AcceptCompleted)));
    let TicketStep::Refused(_, reply) = first(START_MS - 600_000, &[OID]) else { panic!("accepted") };
    let reply = NegTokenResp::decode(&reply).unwrap();
    assert_eq!(reply.state, Some(NegState::Reject));
    assert!(reply.response_token.is_some());
    // Who likes NTLM better is asked for it.
    let init = NegTokenInit::encode(&[OID_NTLM, OID], None);
    let step = acceptor().accept_tickets(&init, &realm.service, START_MS).unwrap();
    let TicketStep::Ntlm(Step::Reply(reply)) = step else { panic!("accepted") };
    assert_eq!(NegTokenResp::decode(&reply).unwrap().mechanism.as_deref(), Some(OID_NTLM));
}
