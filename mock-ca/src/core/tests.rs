//! The core without a protocol around it.

use std::sync::Arc;

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::{Company, CompanySpec};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::san::SID_URI_PREFIX as SID_PREFIX;
use causeway_protocol::pkix::{Digest, der, oid};

use super::*;

const START_MS: i64 = 1_793_534_400_000;

fn authority(change: impl FnOnce(&mut AuthorityConfig)) -> (Authority, Clock) {
    let mut config = AuthorityConfig::default();
    change(&mut config);
    let clock = Clock::stepped(START_MS);
    let company = Arc::new(Company::generate(&CompanySpec { users: 20, ..CompanySpec::default() }));
    let config = config.checked(&company).unwrap();
    (Authority::build(config, company, Links::default(), clock.clone()), clock)
}

fn csr(name: &str, names: Vec<SanType>) -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (csr_with(&key, name, names), key)
}

fn csr_with(key: &KeyPair, name: &str, names: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().der().to_vec()
}

fn upn(text: &str) -> SanType {
    SanType::OtherName((
        vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
        rcgen::OtherNameValue::Utf8String(text.to_owned()),
    ))
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn of(csr: &[u8]) -> Submission<'_> {
    Submission { front: "test", csr, requester: "tester", ..Submission::default() }
}

fn submit(authority: &Authority, submission: &Submission<'_>) -> Decision {
    authority.submit(submission, |_| Ok(()))
}

fn issued(decision: Decision) -> Arc<Issued> {
    match decision {
        Decision::Issued(issued) => issued,
        other => panic!("not issued: {other:?}"),
    }
}

fn denied(decision: Decision) -> Denial {
    match decision {
        Decision::Denied(denial, _) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

fn transaction(id: &str, asker: u8) -> Option<Transaction> {
    Some(Transaction { id: id.as_bytes().to_vec(), asker: [asker; 32] })
}

#[test]
fn a_repeated_transaction_gets_the_same_certificate() {
    let (authority, _) = authority(|_| {});
    let (request, key) = csr("phone-1", Vec::new());
    let first = Submission { transaction: transaction("t1", 1), ..of(&request) };
    let one = issued(submit(&authority, &first));
    let mut asked = false;
    let two = authority.submit(&first, |_| {
        asked = true;
        Ok(())
    });
    assert_eq!(issued(two).serial, one.serial);
    assert!(!asked, "a repeated request uses up nothing");
    assert_eq!(authority.issued_count(), 1);
    let thief = Submission { transaction: transaction("t1", 2), ..of(&request) };
    // Whoever holds the same key may come again under the name, and is judged like everybody.
    assert_eq!(denied(authority.submit(&thief, |_| Err(Denial::NotAllowed))), Denial::NotAllowed);
    let (other, _) = csr("phone-2", Vec::new());
    let other = Submission { transaction: transaction("t1", 1), ..of(&other) };
    assert_eq!(denied(submit(&authority, &other)), Denial::AnothersTransaction);
    let again = csr_with(&key, "phone-1b", Vec::new());
    let again = Submission { transaction: transaction("t1", 1), ..of(&again) };
    assert_ne!(issued(submit(&authority, &again)).serial, one.serial);
}

#[test]
fn many_threads_with_one_request_get_one_certificate() {
    let (authority, _) = authority(|_| {});
    let (request, _) = csr("phone-1", Vec::new());
    let submission = Submission { transaction: transaction("t", 1), ..of(&request) };
    let serials: Vec<Serial> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| issued(submit(&authority, &submission)).serial)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(serials.iter().all(|serial| *serial == serials[0]), "{serials:?}");
    assert_eq!(authority.issued_count(), 1);
}

#[test]
fn approval_by_a_person_and_by_the_clock() {
    let (authority, clock) = authority(|config| {
        config.templates.push(Template {
            name: "Slow".to_owned(),
            approval: Approval::AfterSecs(60),
            ..Template::default()
        });
    });
    let (request, _) = csr("phone-1", Vec::new());
    let by_person =
        Submission { template: Some("ApprovedDevice"), transaction: transaction("a", 1), ..of(&request) };
    let Decision::Pending(id) = submit(&authority, &by_person) else { panic!("approved by nobody") };
    assert!(matches!(authority.poll("test", &transaction("a", 1).unwrap()), Some(Decision::Pending(_))));
    assert!(authority.poll("test", &transaction("a", 2).unwrap()).is_none(), "another key asks");
    let approved = authority.approve(id).unwrap();
    assert_eq!(
        issued(authority.poll("test", &transaction("a", 1).unwrap()).unwrap()).serial,
        approved.serial
    );
    assert_eq!(authority.approve(id).unwrap_err(), DecideError::Decided);
    let Decision::Pending(second) =
        submit(&authority, &Submission { transaction: None, ..by_person.clone() })
    else {
        panic!("approved by nobody")
    };
    authority.deny(second).unwrap();
    assert_eq!(denied(authority.decision(second).unwrap()), Denial::ByOfficer);
    let by_clock = Submission { template: Some("slow"), ..of(&request) };
    let Decision::Pending(third) = submit(&authority, &by_clock) else { panic!("too early") };
    clock.advance(std::time::Duration::from_secs(59));
    assert!(matches!(authority.decision(third), Some(Decision::Pending(_))));
    clock.advance(std::time::Duration::from_secs(1));
    issued(authority.decision(third).unwrap());
}

#[test]
fn names_that_are_refused() {
    let (authority, _) = authority(|config| {
        config.templates[0].denied_names = vec!["administrator@*".to_owned()];
        config.templates[0].allowed_names = vec!["phone-*".to_owned(), "*@acme.example".to_owned()];
    });
    let refuse = |name: &str, names: Vec<SanType>| denied(submit(&authority, &of(&csr(name, names).0)));
    assert_eq!(refuse("phone-1\0.evil", Vec::new()), Denial::BadName);
    assert_eq!(refuse(&"x".repeat(65), Vec::new()), Denial::BadName);
    assert!(matches!(refuse("phone-1", vec![upn("Administrator@acme.example")]), Denial::NameRefused { .. }));
    assert!(matches!(refuse("server-1", Vec::new()), Denial::NameRefused { .. }));
    issued(submit(&authority, &of(&csr("phone-1", vec![upn("asmith@acme.example")]).0)));
}

#[test]
fn strict_mapping_wants_the_right_sid() {
    let (authority, _) = authority(|config| config.strict_sid = true);
    let person = authority.company().people[0].clone();
    let name = format!("{}@acme.example", person.login);
    let sid = authority.company().sid(person.rid);
    assert!(sid.starts_with("S-1-5-21-") && sid.split('-').count() == 8, "{sid}");
    let ask = |names: Vec<SanType>| submit(&authority, &of(&csr("a person", names).0));
    assert_eq!(denied(ask(vec![upn(&name)])), Denial::NoSid);
    assert_eq!(
        denied(ask(vec![upn(&name), uri(&format!("{SID_PREFIX}S-1-5-21-1-2-3-500"))])),
        Denial::AnothersSid
    );
    let right = issued(ask(vec![upn(&name), uri(&format!("{SID_PREFIX}{sid}"))]));
    assert_eq!(right.alternative_names, [format!("upn:{name}"), format!("uri:{SID_PREFIX}{sid}")]);
    issued(ask(Vec::new()));
}

#[test]
fn renewals() {
    let (authority, clock) = authority(|config| config.templates[0].renewal_days = 30);
    let (request, key) = csr("phone-1", Vec::new());
    let old = issued(submit(&authority, &of(&request)));
    let renewal = Submission { renews: Some(old.serial), ..of(&request) };
    assert_eq!(denied(submit(&authority, &renewal)), Denial::TooEarly);
    clock.advance(std::time::Duration::from_hours(24 * 701));
    issued(submit(&authority, &renewal));
    let other = csr_with(&key, "phone-2", Vec::new());
    let other = Submission { renews: Some(old.serial), ..of(&other) };
    assert_eq!(denied(submit(&authority, &other)), Denial::SubjectChanged);
    authority.revoke(&old.serial, Reason::KeyCompromise).unwrap();
    assert_eq!(denied(submit(&authority, &renewal)), Denial::NotRenewable);
    let late = issued(submit(&authority, &of(&request)));
    clock.advance(std::time::Duration::from_hours(24 * 731));
    let late = Submission { renews: Some(late.serial), ..of(&request) };
    assert_eq!(denied(submit(&authority, &late)), Denial::NotRenewable);
}

#[test]
fn requests_nobody_should_sign() {
    let (authority, _) = authority(|_| {});
    let (request, _) = csr("phone-1", Vec::new());
    let mut forged = request.clone();
    let at = forged.windows(7).position(|window| window == b"phone-1").unwrap();
    forged[at] = b'P';
    assert_eq!(denied(submit(&authority, &of(&forged))), Denial::BadSignature);
    assert_eq!(denied(submit(&authority, &of(&request[..request.len() - 1]))), Denial::Unreadable);
    assert_eq!(denied(submit(&authority, &of(&[]))), Denial::Unreadable);
    assert_eq!(denied(submit(&authority, &of(&vec![0x30; 1_000_000]))), Denial::TooLarge);
    assert_eq!(denied(submit(&authority, &of(&[0x30, 0x80].repeat(10_000)))), Denial::Unreadable);
    let deep = (0..5_000).fold(Vec::new(), |inner, _| der::sequence(&[&inner]));
    assert_eq!(denied(submit(&authority, &of(&deep))), Denial::Unreadable);
    let unknown = Submission { template: Some("Nope"), ..of(&request) };
    assert!(matches!(denied(submit(&authority, &unknown)), Denial::UnknownTemplate { .. }));
    assert_eq!(authority.issued_count(), 0);
}

#[test]
fn holds_and_ends() {
    let (authority, _) = authority(|_| {});
    let serial = issued(submit(&authority, &of(&csr("phone-1", Vec::new()).0))).serial;
    assert_eq!(authority.resume(&serial), Err(RevokeError::NotOnHold));
    authority.revoke(&serial, Reason::CertificateHold).unwrap();
    authority.resume(&serial).unwrap();
    assert_eq!(authority.revocation(&serial), None);
    authority.revoke(&serial, Reason::CertificateHold).unwrap();
    authority.revoke(&serial, Reason::KeyCompromise).unwrap();
    assert_eq!(authority.revoke(&serial, Reason::Superseded), Err(RevokeError::Already));
    assert_eq!(authority.revoke(&Serial::random(), Reason::Superseded), Err(RevokeError::Unknown));
}

#[test]
fn a_rollover_happens_when_its_time_comes() {
    let (authority, clock) = authority(|_| {});
    let before = authority.hierarchy();
    authority.prepare_rollover(START_MS + 3_600_000);
    assert_eq!(authority.hierarchy().current().number, 0);
    let old = issued(submit(&authority, &of(&csr("phone-1", Vec::new()).0)));
    clock.advance(std::time::Duration::from_secs(3_600));
    let after = authority.hierarchy();
    assert_eq!((after.current().number, after.next.is_none(), after.generations.len()), (1, true, 2));
    assert_ne!(
        before.current().authority.key.public_key().spki(),
        after.current().authority.key.public_key().spki()
    );
    let new = issued(submit(&authority, &of(&csr("phone-2", Vec::new()).0)));
    assert_eq!((old.generation, new.generation), (0, 1));
    assert!(
        [0, 1].into_iter().all(|number| authority.crl(Signer::Generation(number)).is_some())
            && authority.crl(Signer::Generation(2)).is_none()
    );
}

/// An authority of two tiers whose certificates say where lists are.
fn linked() -> (Authority, Clock) {
    let clock = Clock::stepped(START_MS);
    let company = Arc::new(Company::generate(&CompanySpec { users: 3, ..CompanySpec::default() }));
    let config = AuthorityConfig::default().checked(&company).unwrap();
    let links = Links { crl: "http://pki/crl".to_owned(), ocsp: "http://pki/ocsp".to_owned() };
    (Authority::build(config, company, links, clock.clone()), clock)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A question over OCSP about one certificate, and its CertID.
fn question(issuer: &Identity, serial: &Serial) -> (Vec<u8>, Vec<u8>) {
    let digest = |bytes: &[u8]| der::octets(Digest::Sha1.of(bytes).as_ref());
    let id = der::sequence(&[
        &der::sequence(&[&der::oid(oid::SHA1), &der::null()]),
        &digest(&issuer.name),
        &digest(issuer.key.public_key().bits()),
        &serial.der(),
    ]);
    let list = der::sequence(&[&der::sequence(&[&id])]);
    (der::sequence(&[&der::sequence(&[&list])]), id)
}

#[test]
fn each_certificate_points_at_the_list_of_whoever_signed_it() {
    let (authority, _) = linked();
    let hierarchy = authority.hierarchy();
    let (root, issuing) = (&hierarchy.root, hierarchy.current());
    let own = issued(submit(&authority, &of(&csr("phone-1", Vec::new()).0)));
    for (certificate, signer) in [
        (issuing.authority.certificate.raw(), Signer::Root),
        (issuing.ra_signing.certificate.raw(), Signer::Generation(0)),
        (&own.certificate, Signer::Generation(0)),
    ] {
        for kind in ["crl", "cer"] {
            assert!(
                holds(certificate, format!("http://pki/crl/{signer}.{kind}").as_bytes()),
                "{signer} {kind}"
            );
        }
    }
    assert!(!holds(root.certificate.raw(), b"http://pki/"), "nobody answers for a root");
    let list = authority.crl(Signer::Root).unwrap();
    assert!(holds(&list, &root.name) && !holds(&list, &issuing.authority.name));
    let good = |issuer: &Identity, serial: &Serial| {
        let (question, id) = question(issuer, serial);
        let answer = authority.ocsp(&question, None).unwrap();
        assert!(holds(&answer, issuer.certificate.raw()), "signed by the issuer itself");
        holds(&answer, &[&id[..], &[0x80, 0]].concat())
    };
    assert!(good(root, &issuing.authority.serial));
    assert!(good(&issuing.authority, &issuing.ra_signing.serial));
    assert!(good(&issuing.authority, &own.serial));
    assert!(!good(root, &own.serial), "the root knows nothing of phones");
    assert!(!good(&issuing.authority, &issuing.authority.serial));
}

#[test]
fn no_two_lists_have_one_number() {
    let number = |list: &[u8]| {
        let id = der::oid(oid::CRL_NUMBER);
        let at = list.windows(id.len()).position(|window| window == id).unwrap() + id.len();
        // OCTET STRING, its length, INTEGER, its length
        list[at + 4..][..usize::from(list[at + 3])]
            .iter()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (authority, clock) = linked();
    let next = |signer| number(&authority.crl(signer).unwrap());
    let issuing = Signer::Generation(0);
    let first = next(issuing);
    assert!(next(issuing) > first, "made again at the same moment");
    clock.advance(std::time::Duration::from_secs(2));
    let later = next(issuing);
    assert!(later > first + 1 && next(Signer::Root) > later);
    let config = AuthorityConfig::default().checked(authority.company()).unwrap();
    let anew = Authority::build(config, Arc::clone(authority.company()), Links::default(), clock.clone());
    clock.advance(std::time::Duration::from_secs(2));
    assert!(number(&anew.crl(issuing).unwrap()) > later, "the same key goes on after a reset");
}

#[test]
fn an_ra_expires_and_is_renewed() {
    let (authority, clock) = authority(|_| {});
    assert!(authority.hierarchy().current().ra_is_good(START_MS));
    authority.renew_ra(-1);
    assert!(!authority.hierarchy().current().ra_is_good(START_MS));
    authority.renew_ra(730);
    assert!(authority.hierarchy().current().ra_is_good(START_MS));
    clock.advance(std::time::Duration::from_hours(24 * 731));
    assert!(!authority.hierarchy().current().ra_is_good(authority.now_ms()));
}

#[test]
fn settings_that_make_no_authority() {
    let company = Arc::new(Company::generate(&CompanySpec { users: 3, ..CompanySpec::default() }));
    let refuse = |change: fn(&mut AuthorityConfig)| {
        let mut config = AuthorityConfig::default();
        change(&mut config);
        config.checked(&company).expect_err("refused").to_string()
    };
    assert!(refuse(|config| config.name = "Acme".to_owned()).contains("CN="));
    assert!(refuse(|config| config.default_template = "Nope".to_owned()).contains("Nope"));
    assert!(refuse(|config| (config.key, config.ra) = (KeyKind::P256, Some(RaMode::None))).contains("P-256"));
    assert!(refuse(|config| config.ra_days = 0).contains("positive"));
}
