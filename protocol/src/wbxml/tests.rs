use proptest::prelude::*;

use super::tags::{air_sync, compose_mail, provision, settings};
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Written by pyactivesync 0.17.0.
const SYNC: &str = "03016a00455c4f4b033000015203350001550332350001010101";
const PROVISION: &str = "03016a00000e45001256485703707961637469766573796e6300015a034c696e757800010101000e46474803\
                         4d532d4541532d50726f766973696f6e696e672d5742584d4c0001010101";

#[test]
fn a_strangers_sync_request() {
    use air_sync::{COLLECTION, COLLECTION_ID, COLLECTIONS, SYNC_KEY, WINDOW_SIZE};
    let expected = Element::new(air_sync::SYNC).with(
        Element::new(COLLECTIONS).with(
            Element::new(COLLECTION)
                .with(Element::leaf(SYNC_KEY, 0))
                .with(Element::leaf(COLLECTION_ID, 5))
                .with(Element::leaf(WINDOW_SIZE, 25)),
        ),
    );
    let wire = bytes(SYNC);
    assert_eq!(decode(&wire, &Limits::default()).unwrap(), expected);
    assert_eq!(encode(&expected).unwrap(), wire);
}

#[test]
fn a_strangers_provision_request_switches_pages() {
    let wire = bytes(PROVISION);
    let root = decode(&wire, &Limits::default()).unwrap();
    let model = root.at(&[settings::DEVICE_INFORMATION, settings::SET, settings::MODEL]).unwrap();
    assert_eq!(model.text(), "pyactivesync");
    let kind = root.at(&[provision::POLICIES, provision::POLICY, provision::POLICY_TYPE]).unwrap();
    assert_eq!(kind.text(), "MS-EAS-Provisioning-WBXML");
    assert_eq!(encode(&root).unwrap(), wire);
}

#[test]
fn opaque_bytes_of_more_than_one_length_byte() {
    let mail = Element::new(compose_mail::SEND_MAIL)
        .with(Element::leaf(compose_mail::CLIENT_ID, "m1"))
        .with(Element::new(compose_mail::SAVE_IN_SENT_ITEMS))
        .with(Element::bytes(compose_mail::MIME, vec![b'x'; 200]));
    let wire = encode(&mail).unwrap();
    // The beginning as pyactivesync 0.17.0 writes it.
    assert_eq!(wire[..20], bytes("03016a0000154551036d3100010850c381487878"));
    assert_eq!(wire.len(), 220);
    assert_eq!(decode(&wire, &Limits::default()).unwrap(), mail);
}

#[test]
fn every_token_is_listed_once_in_order() {
    for page in PAGES {
        assert!(page.tags.windows(2).all(|pair| pair[0].0 < pair[1].0), "page {}", page.name);
        let tokens = token::FIRST_TAG..=token::TAG_BITS;
        assert!(page.tags.iter().all(|(number, _)| tokens.contains(number)), "page {}", page.name);
    }
    assert_eq!(provision::ACCOUNT_ONLY_REMOTE_WIPE, Tag { page: 14, token: 0x3B });
    assert_eq!(provision::ACCOUNT_ONLY_REMOTE_WIPE.to_string(), "Provision:AccountOnlyRemoteWipe");
}

#[test]
fn what_activesync_does_not_use_is_refused_by_name() {
    use DecodeError as E;
    let cases: &[(&[u8], DecodeError)] = &[
        (&[], E::Truncated { at: 0 }),
        (&[0x02, 0x01, 0x6A, 0x00, 0x05], E::Version { version: 2 }),
        (&[0x03, 0x02, 0x6A, 0x00, 0x05], E::PublicId { number: 2 }),
        (&[0x03, 0x01, 0x04, 0x00, 0x05], E::Charset { charset: 4 }),
        (&[0x03, 0x01, 0x6A, 0x03, b'a', b'b', 0], E::StringTable { bytes: 3 }),
        (&[0x03, 0x01, 0x6A, 0x9F, 0xFF, 0xFF, 0xFF, 0x7F], E::Integer { at: 3 }),
        (&[0x03, 0x01, 0x6A, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80], E::Integer { at: 3 }),
        (&[0x03, 0x01, 0x6A, 0x00], E::Truncated { at: 4 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45], E::Truncated { at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x4B, 0x03, b'1', 0, 0x01], E::Truncated { at: 10 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x01, 0x01], E::OutsideRoot { byte: 1, at: 6 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x01], E::OutsideRoot { byte: 1, at: 4 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x05, 0x05], E::OutsideRoot { byte: 5, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x05, 0x45, 0x01], E::OutsideRoot { byte: 0x45, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x03, b'1', 0], E::OutsideRoot { byte: 3, at: 4 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x03, 0x05], E::UnknownPage { page: 3, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x00, 0xFF, 0x05], E::UnknownPage { page: 255, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x85, 0x01], E::Attributes { at: 4 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x02, 0x20, 0x01], E::Token { token: 2, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x83, 0x00, 0x01], E::Token { token: 0x83, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x43, 0x01], E::Token { token: 0x43, at: 5 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x03, 0xFF, 0x00, 0x01], E::NotUtf8 { at: 6 }),
        (&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x03, b'x', b'x'], E::Truncated { at: 6 }),
        (
            &[0x03, 0x01, 0x6A, 0x00, 0x45, 0xC3, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F, 0x01],
            E::OpaqueTooLong { at: 6, bytes: u32::MAX, left: 1 },
        ),
    ];
    for (wire, error) in cases {
        assert_eq!(decode(wire, &Limits::default()).as_ref(), Err(error), "{wire:02X?}");
    }
}

#[test]
fn limits_of_depth_count_and_size() {
    let mut deep = PROLOGUE.to_vec();
    deep.extend([0x45; 10_000]);
    let limits = Limits::default();
    assert_eq!(decode(&deep, &limits), Err(DecodeError::TooDeep { max: limits.depth_max }));
    let mut just = PROLOGUE.to_vec();
    just.extend(vec![0x45; limits.depth_max]);
    just.push(0x05);
    just.extend(vec![0x01; limits.depth_max]);
    decode(&just, &limits).unwrap();

    let mut wide = PROLOGUE.to_vec();
    wide.push(0x45);
    wide.extend(vec![0x0D; limits.nodes_max]);
    wide.push(0x01);
    assert_eq!(decode(&wide, &limits), Err(DecodeError::TooManyNodes { max: limits.nodes_max }));

    let mut texts = PROLOGUE.to_vec();
    texts.push(0x45);
    texts.extend([0x03, 0x00].repeat(limits.nodes_max + 1));
    assert_eq!(decode(&texts, &limits), Err(DecodeError::TooManyNodes { max: limits.nodes_max }));

    let small = Limits { max_bytes: 4, ..limits };
    assert_eq!(decode(&bytes(SYNC), &small), Err(DecodeError::TooLarge { bytes: 26, max: 4 }));
}

#[test]
fn unknown_tokens_of_known_pages_are_kept() {
    let new = Tag { page: 0, token: 0x3E };
    assert_eq!((new.name(), new.to_string().as_str()), (None, "AirSync:0x3E"));
    let root = Element::new(air_sync::SYNC).with(Element::leaf(new, "later"));
    assert_eq!(decode(&encode(&root).unwrap(), &Limits::default()).unwrap(), root);
}

#[test]
fn what_cannot_be_written_is_said() {
    let nul = Element::leaf(air_sync::STATUS, "a\0b");
    assert_eq!(encode(&nul), Err(EncodeError::NulInText { tag: air_sync::STATUS }));
    let tag = Element::new(Tag { page: 0, token: 0x40 });
    assert_eq!(encode(&tag), Err(EncodeError::Token { token: 0x40 }));
}

#[test]
fn shown_without_a_recovery_password() {
    let root = Element::new(settings::SETTINGS).with(
        Element::new(settings::DEVICE_PASSWORD).with(
            Element::new(settings::SET)
                .with(Element::leaf(settings::PASSWORD, "hunter2"))
                .with(Element::leaf(settings::OS, "a<b")),
        ),
    );
    for shown in [root.to_string(), format!("{root:?}"), format!("{:?}", root.content)] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("<Settings:OS>a&lt;b</Settings:OS>"), "{shown}");
    }
}

fn trees() -> impl Strategy<Value = Element> {
    let tag = (prop::sample::select(PAGES), 0x05_u8..=0x3F)
        .prop_map(|(page, token)| Tag { page: page.number, token });
    let node = prop_oneof![
        "[^\0]{0,20}".prop_map(Node::Text),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Node::Opaque),
    ];
    let leaf = (tag.clone(), prop::collection::vec(node.clone(), 0..3))
        .prop_map(|(tag, content)| Element { tag, content });
    leaf.prop_recursive(6, 64, 5, move |inner| {
        let node = prop_oneof![3 => inner.prop_map(Node::Element), 1 => node.clone()];
        (tag.clone(), prop::collection::vec(node, 0..5)).prop_map(|(tag, content)| Element { tag, content })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tree in trees()) {
        let wire = encode(&tree).unwrap();
        prop_assert_eq!(decode(&wire, &Limits::default()).unwrap(), tree);
    }

    #[test]
    fn a_document_cut_anywhere_is_refused(tree in trees(), cut in any::<prop::sample::Index>()) {
        let wire = encode(&tree).unwrap();
        let cut = cut.index(wire.len());
        prop_assert!(decode(&wire[..cut], &Limits::default()).is_err());
    }

    #[test]
    fn arbitrary_bytes_give_a_tree_no_larger_than_they_are(tail in prop::collection::vec(any::<u8>(), 0..600)) {
        let wire: Vec<u8> = PROLOGUE.into_iter().chain(tail).collect();
        if let Ok(root) = decode(&wire, &Limits::default()) {
            prop_assert!(held(&root) <= wire.len());
            prop_assert_eq!(decode(&encode(&root).unwrap(), &Limits::default()).unwrap(), root);
        }
        let _ = decode(&wire[4..], &Limits::default());
    }
}

/// Elements and bytes of text and opaques in a tree.
fn held(element: &Element) -> usize {
    let content = element.content.iter().map(|node| match node {
        Node::Element(child) => held(child),
        Node::Text(text) => text.len(),
        Node::Opaque(bytes) => bytes.len(),
    });
    1 + content.sum::<usize>()
}
