//! Requests recorded from strangers.

use causeway_protocol::cms::ContentCipher;
use causeway_protocol::pkix::{Accept, AlternativeName, PublicKeyKind};
use causeway_protocol::scep::{Asked, FailInfo, MessageType, ScepError, Unverified};

use super::world::CA;

pub(crate) const RECORDED: [(&str, &[u8]); 4] = [
    ("strongswan", include_bytes!("../corpus/scep/strongswan-5.9.8-pkcsreq.der")),
    ("sscep", include_bytes!("../corpus/scep/sscep-0.10.0-pkcsreq.der")),
    ("pyscep", include_bytes!("../corpus/scep/pyscep-0.0.14-pkcsreq.der")),
    ("scepclient", include_bytes!("../corpus/scep/scepclient-2.1.0-pkcsreq-des.der")),
];

#[test]
fn requests_of_four_clients_are_opened() {
    for (name, bytes) in RECORDED {
        let message = Unverified::read(bytes).unwrap();
        assert_eq!(message.header().kind, MessageType::PkcsReq, "{name}");
        assert_eq!(message.header().sender_nonce.len(), 16, "{name}");
        let request = message.verify(Accept::ANYTHING).unwrap_or_else(|error| panic!("{name}: {error}"));
        let opened = request.open(&CA.key, &CA.certificate).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Asked::Certificate(csr) = opened.asked else { panic!("{name} asks for a certificate") };
        csr.verify(Accept::MODERN).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(csr.public_key().kind(), PublicKeyKind::Rsa { bits: 2048 }, "{name}");
        // PyScep's caller gave it two keys: who signs need not be who gets the certificate.
        assert_eq!(csr.public_key().same_as(request.signer().public_key()), name != "pyscep", "{name}");
        let challenge = csr.challenge().map(|challenge| challenge.expose().to_owned());
        let (subject, expected_challenge, names) = match name {
            "strongswan" => {
                ("O=Acme,CN=alice", Some("chal"), vec![AlternativeName::Email("alice@acme.test".into())])
            }
            "sscep" => ("CN=sscep,O=Acme", None, vec![]),
            "pyscep" => ("CN=PyScep-test", Some("chal"), vec![]),
            _ => ("CN=bob,OU=MDM,O=scep-client,C=US", Some("chal"), vec![]),
        };
        assert_eq!(csr.subject().to_string(), subject, "{name}");
        assert_eq!(challenge.as_deref(), expected_challenge, "{name}");
        assert_eq!(csr.alternative_names(), names, "{name}");
        assert!(!format!("{csr:?}").contains("chal\""), "{name} shows its challenge");
    }
}

#[test]
fn transactions_are_whatever_the_client_likes() {
    let transaction = |at: usize| Unverified::read(RECORDED[at].1).unwrap().header().transaction.to_string();
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(transaction(0).len() == 40 && hexadecimal(&transaction(0)), "{}", transaction(0));
    assert!(transaction(1).len() == 32 && hexadecimal(&transaction(1)), "{}", transaction(1));
    assert!(transaction(2).len() == 40 && hexadecimal(&transaction(2)), "{}", transaction(2));
    assert!(transaction(3).ends_with('='), "{}", transaction(3));
}

#[test]
fn single_des_and_sha1_need_the_switch() {
    let message = Unverified::read(RECORDED[3].1).unwrap();
    let refused = message.verify(Accept::MODERN).unwrap_err();
    assert!(matches!(refused, ScepError::Algorithm { .. }), "{refused:?}");
    assert_eq!(refused.fail_info(), FailInfo::BadAlg);
    let request = message.verify(Accept::LEGACY).unwrap();
    let refused = request.open(&CA.key, &CA.certificate).unwrap_err();
    assert_eq!(refused.fail_info(), FailInfo::BadAlg, "{refused:?}");
    let request = message.verify(Accept::ANYTHING).unwrap();
    let opened = request.open(&CA.key, &CA.certificate).unwrap();
    assert_eq!(opened.cipher, ContentCipher::TripleDes, "single DES is not answered in kind");
}
