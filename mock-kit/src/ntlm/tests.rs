//! Checked against the values MS-NLMP prints: 4.2.1 common values, 4.2.4 NTLMv2 authentication.

use super::crypto::utf16le;
use super::*;

const SERVER_CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
const RANDOM_SESSION_KEY: [u8; 16] = [0x55; 16];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// 4.2.4.3, the AUTHENTICATE_MESSAGE.
fn published_authenticate() -> Vec<u8> {
    hex("4e544c4d53535000 03000000 18001800 6c000000 54005400 84000000 0c000c00 48000000 08000800 54000000
         10001000 5c000000 10001000 d8000000 358288e2 0501280a0000000f 44006f006d00610069006e00 5500730065007200
         43004f004d0050005500540045005200 86c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa
         68cd0ab851e51c96aabc927bebef6a1c 0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000
         02000c0044006f006d00610069006e00 01000c005300650072007600650072000000000000000000
         c5dad2544fc9799094ce1ce90bc9d03e")
}

/// 4.2.4: what both sides agreed on.
const PUBLISHED_FLAGS: u32 = 0xe288_8235;

fn published_server() -> NtlmServer {
    NtlmServer {
        names: ServerNames::default(),
        server_challenge: SERVER_CHALLENGE,
        timestamp: 0,
        negotiate: Vec::new(),
        challenge: Some((PUBLISHED_FLAGS, Vec::new())),
    }
}

fn published_session() -> Session {
    published_server()
        .authenticate(&published_authenticate())
        .unwrap()
        .verify(&NtHash::of_password("Password"))
        .unwrap()
}

#[test]
fn one_way_functions_match_4_2_2_and_4_2_4_1() {
    let hash = NtHash::of_password("Password");
    let key = ntowf_v2(&hash, "User", "Domain");
    assert_eq!(key.to_vec(), hex("0c868a403bfd7a93a3001ef22ef02e3f"));
    assert_eq!(ntowf_v2(&hash, "uSER", "Domain"), key, "the user name is upper-cased");
    assert_ne!(ntowf_v2(&hash, "User", "DOMAIN"), key, "the domain name is not");
    // 4.2.2.1.2 NTOWFv1
    assert_eq!(
        hmac_md5(&hex("a4f49c406510bdcab6824ee7c30fd852"), &[&utf16le("USER"), &utf16le("Domain")]),
        key
    );
}

#[test]
fn the_published_authenticate_message_is_accepted_for_its_password_only() {
    let claim = published_server().authenticate(&published_authenticate()).unwrap();
    assert_eq!(
        (claim.user.as_str(), claim.domain.as_str(), claim.workstation.as_str()),
        ("User", "Domain", "COMPUTER")
    );
    assert!(claim.signs() && claim.seals() && claim.channel_bindings().is_none());
    // 4.2.4.2.3: the session key the client chose, found by undoing the key exchange.
    assert_eq!(*claim.verify(&NtHash::of_password("Password")).unwrap().key(), RANDOM_SESSION_KEY);
    assert_eq!(claim.verify(&NtHash::of_password("password")).err(), Some(NtlmError::WrongPassword));
    let other = NtlmServer { server_challenge: [9; 8], ..published_server() };
    let replayed = other.authenticate(&published_authenticate()).unwrap();
    assert_eq!(replayed.verify(&NtHash::of_password("Password")).err(), Some(NtlmError::WrongPassword));
}

#[test]
fn sealing_matches_4_2_4_4() {
    let mut client = Session::client(*published_session().key(), PUBLISHED_FLAGS);
    let plaintext = utf16le("Plaintext");
    let token = client.wrap(&plaintext);
    assert_eq!(token[16..].to_vec(), hex("54e50165bf1936dc996020c1811b0f06fb5f"));
    assert_eq!(token[..16].to_vec(), hex("01000000 7fb38ec5c55d4976 00000000"));
    let mut server = published_session();
    assert_eq!(server.unwrap(&token).unwrap(), plaintext);
    let answer = server.wrap(b"answer");
    assert_eq!(client.unwrap(&answer).unwrap(), b"answer");
    let second = client.wrap(b"second");
    assert_eq!(server.unwrap(&second).unwrap(), b"second");
    assert_eq!(server.unwrap(&second), Err(NtlmError::WrongSignature { sequence: 2 }), "a repeated message");
}

/// Builds what a client of MS-NLMP 3.1.5.1.2 would send, with a MIC and channel bindings.
pub(crate) fn client_answer(
    negotiate: &[u8],
    challenge: &[u8],
    password: &str,
    bindings: [u8; 16],
) -> Vec<u8> {
    let info_length = usize::from(u16::from_le_bytes([challenge[40], challenge[41]]));
    let info_at = usize::from(u16::from_le_bytes([challenge[44], challenge[45]]));
    let info = &challenge[info_at..info_at + info_length];
    let mut temp = hex("0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000");
    temp.extend_from_slice(&info[..info.len() - 4]);
    temp.extend_from_slice(&hex("0600040002000000 0a001000"));
    temp.extend_from_slice(&bindings);
    temp.extend_from_slice(&hex("09000800 6c0064006100700000000000"));
    let key = ntowf_v2(&NtHash::of_password(password), "ASmith", "ACME");
    let proof = nt_proof(&key, challenge[24..32].try_into().unwrap(), &temp);
    let response = [proof.as_slice(), &temp].concat();
    let mut session_key = RANDOM_SESSION_KEY;
    rc4(&hmac_md5(&key, &[&proof]), &mut session_key);
    let mut token = b"NTLMSSP\0".to_vec();
    token.extend_from_slice(&3u32.to_le_bytes());
    let mut payload = Vec::new();
    for part in
        [vec![0; 24], response, utf16le("ACME"), utf16le("ASmith"), utf16le("WS"), session_key.to_vec()]
    {
        let length = u16::try_from(part.len()).unwrap().to_le_bytes();
        token.extend_from_slice(&[length, length].concat());
        token.extend_from_slice(&u32::try_from(88 + payload.len()).unwrap().to_le_bytes());
        payload.extend_from_slice(&part);
    }
    token.extend_from_slice(&challenge[20..24]);
    token.extend_from_slice(&[0; 8 + 16]);
    token.extend_from_slice(&payload);
    let mic = hmac_md5(&RANDOM_SESSION_KEY, &[negotiate, challenge, &token]);
    token[72..88].copy_from_slice(&mic);
    token
}

pub(crate) fn negotiate() -> Vec<u8> {
    let asked = flags::UNICODE
        | flags::SIGN
        | flags::SEAL
        | flags::EXTENDED_SESSION_SECURITY
        | flags::KEY_128
        | flags::KEY_EXCHANGE;
    [b"NTLMSSP\0\x01\0\0\0".as_slice(), &asked.to_le_bytes(), &[0; 16]].concat()
}

/// The client's end of a session made by [`client_answer`] after [`negotiate`].
pub(crate) fn client_session() -> Session {
    Session::client(RANDOM_SESSION_KEY, u32::from_le_bytes(*negotiate()[12..].first_chunk().unwrap()))
}

fn acme() -> NtlmServer {
    let names = ServerNames {
        netbios_domain: "ACME".into(),
        netbios_computer: "DC1".into(),
        dns_domain: "acme.example".into(),
        ..ServerNames::default()
    };
    NtlmServer::new(names, SERVER_CHALLENGE, 0)
}

#[test]
fn a_whole_exchange_checks_the_mic_and_shows_the_bindings() {
    let bindings = channel_binding_hash(&tls_server_end_point(b"certificate"));
    let mut server = acme();
    let challenge = server.challenge(&negotiate()).unwrap();
    let token = client_answer(&negotiate(), &challenge, "secret", bindings);
    let claim = server.authenticate(&token).unwrap();
    assert_eq!(claim.channel_bindings(), Some(bindings));
    assert_eq!(claim.target_name().as_deref(), Some("ldap"));
    let mut session = claim.verify(&NtHash::of_password("secret")).unwrap();
    let mut client = Session::client(RANDOM_SESSION_KEY, claim.flags);
    let mechanisms = client.sign_mechanisms(b"list");
    session.verify_mechanisms(b"list", &mechanisms).unwrap();
    assert_eq!(session.unwrap(&client.wrap(b"first")).unwrap(), b"first");

    // Dropping SIGN and SEAL from the challenge on its way must not go unnoticed.
    let mut tampered = challenge.clone();
    tampered[20] &= !0x30;
    let claim = server.authenticate(&client_answer(&negotiate(), &tampered, "secret", bindings)).unwrap();
    assert_eq!(claim.verify(&NtHash::of_password("secret")).err(), Some(NtlmError::WrongMic));
}

#[test]
fn old_and_broken_tokens_are_refused_by_name() {
    let mut server = acme();
    assert_eq!(
        server.authenticate(&published_authenticate()).err(),
        Some(NtlmError::OutOfTurn { expected: 1, got: 3 })
    );
    assert_eq!(server.challenge(b"GSS").err(), Some(NtlmError::NotNtlm));
    assert_eq!(
        server.challenge(&published_authenticate()).err(),
        Some(NtlmError::OutOfTurn { expected: 1, got: 3 })
    );
    assert_eq!(
        server.challenge(&[b"NTLMSSP\0\x01\0\0\0".as_slice(), &[0; 20]].concat()).err(),
        Some(NtlmError::WeakSession)
    );
    assert_eq!(
        server.challenge(&vec![0; 65 * 1024 + 1]).err(),
        Some(NtlmError::TooLarge { size_bytes: 65 * 1024 + 1 })
    );
    let server = published_server();
    let mut v1 = published_authenticate();
    v1[20..24].copy_from_slice(&[24, 0, 24, 0]);
    assert_eq!(server.authenticate(&v1).err(), Some(NtlmError::OldResponse));
    let mut outside = published_authenticate();
    outside[24..28].copy_from_slice(&[0xff; 4]);
    assert_eq!(
        server.authenticate(&outside).err(),
        Some(NtlmError::Malformed { field: "NtChallengeResponse" })
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), kind in 1u8..=3) {
        let mut token = b"NTLMSSP\0".to_vec();
        token.extend_from_slice(&[kind, 0, 0, 0]);
        token.extend_from_slice(&bytes);
        let _ = acme().challenge(&token);
        if let Ok(claim) = published_server().authenticate(&token) {
            let _ = claim.verify(&NtHash::of_password("x"));
        }
    }
}
