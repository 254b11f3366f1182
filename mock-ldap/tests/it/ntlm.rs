//! NTLM over GSS-SPNEGO with signing and sealing, and Sicily: a client of the tests' own after MS-NLMP.

use causeway_mock_ldap::{ChannelBinding, Config, MockLdap};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lber::structure::PL;
use md4::Md4;
use md5::{Digest as _, Md5};
use rc4::{Rc4, StreamCipher as _};

use crate::client::{Client, Outcome, Search, app, ctx, encode, integer, message, octets};
use crate::world::{BASE, World};

const SIGN: u32 = 0x10;
const SEAL: u32 = 0x20;
/// Unicode, request target, NTLM, always sign, extended session security, target info, 128 bit, key exchange.
const FLAGS: u32 = 0x1 | 0x4 | 0x200 | 0x8000 | 0x0008_0000 | 0x0080_0000 | 0x2000_0000 | 0x4000_0000;
const EXPORTED: [u8; 16] = *b"exported-session";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn negotiate(flags: u32) -> Vec<u8> {
    let mut token = b"NTLMSSP\0\x01\0\0\0".to_vec();
    token.extend((FLAGS | flags).to_le_bytes());
    token.extend([0; 16]);
    token
}

/// Answers a challenge. `binding`: hash of the channel bindings to claim.
fn authenticate(challenge: &[u8], user: &str, password: &str, binding: Option<[u8; 16]>) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(challenge[at..at + 4].try_into().unwrap());
    let agreed = word(20);
    let (length, offset) =
        (usize::from(u16::from_le_bytes([challenge[40], challenge[41]])), word(44) as usize);
    let mut info = challenge[offset..offset + length - 4].to_vec();
    if let Some(hash) = binding {
        info.extend([0x0a, 0, 16, 0]);
        info.extend(hash);
    }
    info.extend([0; 4]);
    let hash: [u8; 16] = Md4::digest(utf16(password)).into();
    let key = hmac(&hash, &[&utf16(&user.to_uppercase()), &utf16("ACME")]);
    let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
    temp.extend([0x11; 8]);
    temp.extend(*b"clientch");
    temp.extend([0; 4]);
    temp.extend(info);
    temp.extend([0; 4]);
    let proof = hmac(&key, &[&challenge[24..32], &temp]);
    let mut session_key = EXPORTED;
    Rc4::new_from_slice(&hmac(&key, &[&proof])).unwrap().apply_keystream(&mut session_key);
    let fields = [
        vec![0; 24],
        [proof.to_vec(), temp].concat(),
        utf16("ACME"),
        utf16(user),
        utf16("WS"),
        session_key.to_vec(),
    ];
    let (mut head, mut payload) = (b"NTLMSSP\0\x03\0\0\0".to_vec(), Vec::new());
    for field in &fields {
        let length = u16::try_from(field.len()).unwrap().to_le_bytes();
        head.extend([length, length].concat());
        head.extend((64 + u32::try_from(payload.len()).unwrap()).to_le_bytes());
        payload.extend(field);
    }
    head.extend(agreed.to_le_bytes());
    [head, payload].concat()
}

async fn spnego(
    client: &mut Client,
    user: &str,
    password: &str,
    flags: u32,
    binding: Option<[u8; 16]>,
) -> Outcome {
    let first = client.sasl("GSS-SPNEGO", Some(&negotiate(flags))).await;
    assert_eq!(first.code, 14, "{first:?}");
    let challenge = first.sasl.expect("a challenge");
    client.sasl("GSS-SPNEGO", Some(&authenticate(&challenge, user, password, binding))).await
}

/// The client's end of the security layer.
struct Layer {
    outgoing: (Rc4, [u8; 16]),
    incoming: (Rc4, [u8; 16]),
    seal: bool,
    sequence: u32,
}

impl Layer {
    fn new(seal: bool) -> Self {
        let key = |words: &str| -> [u8; 16] {
            let mut hash = Md5::new();
            hash.update(EXPORTED);
            hash.update(words.as_bytes());
            hash.update([0]);
            hash.finalize().into()
        };
        let direction = |from_to: &str| {
            let seal = key(&format!("session key to {from_to} sealing key magic constant"));
            (
                Rc4::new_from_slice(&seal).unwrap(),
                key(&format!("session key to {from_to} signing key magic constant")),
            )
        };
        Self {
            outgoing: direction("client-to-server"),
            incoming: direction("server-to-client"),
            seal,
            sequence: 0,
        }
    }

    fn wrap(&mut self, clear: &[u8]) -> Vec<u8> {
        let mut body = clear.to_vec();
        if self.seal {
            self.outgoing.0.apply_keystream(&mut body);
        }
        let number = self.sequence.to_le_bytes();
        self.sequence += 1;
        let mut checksum = hmac(&self.outgoing.1, &[&number, clear])[..8].to_vec();
        self.outgoing.0.apply_keystream(&mut checksum);
        let token = [&[1, 0, 0, 0][..], &checksum, &number, &body].concat();
        [&u32::try_from(token.len()).unwrap().to_be_bytes()[..], &token].concat()
    }

    /// The clear text of one buffer, its signature checked.
    fn unwrap(&mut self, token: &[u8], number: u32) -> Vec<u8> {
        let mut body = token[16..].to_vec();
        if self.seal {
            self.incoming.0.apply_keystream(&mut body);
        }
        let mut checksum = hmac(&self.incoming.1, &[&number.to_le_bytes(), &body])[..8].to_vec();
        self.incoming.0.apply_keystream(&mut checksum);
        assert_eq!(token[4..12], checksum, "signature of buffer {number}");
        body
    }
}

fn password(world: &World) -> String {
    world.mock.world().person("asmith").unwrap().password()
}

fn base_search(world: &World) -> Vec<u8> {
    let search = Search::new(&world.base, BASE, "(objectClass=*)").attributes(&["dc"]);
    encode(message(77, search.operation(), vec![]))
}

#[tokio::test]
async fn spnego_binds_and_seals_what_follows() {
    let world = World::ad().await;
    for (flags, seal) in [(SIGN, false), (SIGN | SEAL, true)] {
        let mut client = world.connect().await;
        let outcome = spnego(&mut client, "asmith", &password(&world), flags, None).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let mut layer = Layer::new(seal);
        for round in 0..2u32 {
            let request = layer.wrap(&base_search(&world));
            client.send_bytes(&request).await;
            let head = client.take(4).await;
            let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
            let token = client.take(length).await;
            let clear = layer.unwrap(&token, round);
            let (_, entry) = lber::parse::parse_tag(&clear).expect("an LDAP message inside");
            let entry = crate::client::children(entry);
            assert_eq!(
                (entry[1].id, crate::client::number(entry[0].clone())),
                (4, 77),
                "an entry comes first"
            );
            assert_eq!(
                seal,
                !contains(&token, b"dc=acme") && !contains(&token, b"DC=acme"),
                "sealed: {seal}"
            );
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_wrong_signature_ends_the_connection() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    assert_eq!(spnego(&mut client, "asmith", &password(&world), SIGN, None).await.code, 0);
    let mut request = Layer::new(false).wrap(&base_search(&world));
    let last = request.len() - 1;
    request[last] ^= 1;
    client.send_bytes(&request).await;
    assert!(client.read_to_end().await.is_empty(), "no answer to a forged message");
}

#[tokio::test]
async fn wrong_passwords_and_unknown_people_are_not_told_apart() {
    let world = World::ad().await;
    for (user, password) in [("asmith", "Wrong-1"), ("nobody", "x")] {
        let mut client = world.connect().await;
        let outcome = spnego(&mut client, user, password, 0, None).await;
        assert_eq!(outcome.code, 49);
        assert!(outcome.text.contains("data 52e"), "{user}: {outcome:?}");
    }
    let garbage = world.connect().await.sasl("GSS-SPNEGO", Some(b"garbage")).await;
    assert_eq!(garbage.code, 49, "{garbage:?}");
}

#[tokio::test]
async fn required_signing_refuses_unsigned_ntlm() {
    let world = World::ad().await;
    let mut policies = causeway_mock_ldap::Policies { require_signing: true, ..Default::default() };
    world.mock.set_policies(policies.clone());
    let password = password(&world);
    let outcome = spnego(&mut world.connect().await, "asmith", &password, 0, None).await;
    assert_eq!(outcome.code, 8, "{outcome:?}");
    let signed = spnego(&mut world.connect().await, "asmith", &password, SIGN, None).await;
    assert_eq!(signed.code, 0, "{signed:?}");
    policies.require_signing = false;
    world.mock.set_policies(policies);
    assert_eq!(spnego(&mut world.connect().await, "asmith", &password, 0, None).await.code, 0);
}

#[tokio::test]
async fn the_channel_binding_policy_has_three_steps() {
    let mut config = Config::default();
    config.policies.channel_binding = ChannelBinding::Always;
    let world = World { mock: MockLdap::start(config).await.unwrap(), base: String::new() };
    let password = password(&world);
    let right = |client: &Client| {
        let certificate = client.server_certificate.as_deref().expect("a TLS connection");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let data = [&b"tls-server-end-point:"[..], hash.as_ref()].concat();
        let mut bindings = vec![0; 16];
        bindings.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bindings.extend(data);
        let hash: [u8; 16] = Md5::digest(&bindings).into();
        hash
    };
    let cases = [
        (ChannelBinding::Always, [0, 49, 49]),
        (ChannelBinding::WhenSupported, [0, 49, 0]),
        (ChannelBinding::Never, [0, 0, 0]),
    ];
    for (policy, codes) in cases {
        world
            .mock
            .set_policies(causeway_mock_ldap::Policies { channel_binding: policy, ..Default::default() });
        for (case, code) in codes.into_iter().enumerate() {
            let mut client = world.connect_tls().await;
            let binding = [Some(right(&client)), Some([9; 16]), None][case];
            let outcome = spnego(&mut client, "asmith", &password, 0, binding).await;
            assert_eq!(outcome.code, code, "{policy:?}, case {case}: {outcome:?}");
            assert!(code == 0 || outcome.text.contains("data 80090346"), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn sicily_carries_ntlm_in_the_matched_name() {
    let world = World::ad().await;
    let bind = |tag: u64, token: &[u8]| {
        app(0, PL::C(vec![integer(3), octets(b""), ctx(tag, PL::P(token.to_vec()))]))
    };
    let mut client = world.connect().await;
    let packages = client.call(bind(9, b""), vec![]).await;
    assert_eq!((packages.code, packages.matched.as_slice()), (0, &b"NTLM"[..]));
    let challenge = client.call(bind(10, &negotiate(0)), vec![]).await;
    assert_eq!(challenge.code, 0);
    assert!(challenge.matched.starts_with(b"NTLMSSP\0\x02"), "{:02x?}", challenge.matched);
    let token = authenticate(&challenge.matched, "asmith", &password(&world), None);
    let outcome = client.call(bind(11, &token), vec![]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let who = client.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    assert_eq!(who.value.as_deref(), Some(&b"u:ACME\\asmith"[..]));
    let replay = client.call(bind(11, &token), vec![]).await;
    assert_ne!(replay.code, 0, "a response without its challenge");
    let openldap = World::of("openldap").await;
    assert_eq!(openldap.connect().await.call(bind(9, b""), vec![]).await.code, 7);
}
