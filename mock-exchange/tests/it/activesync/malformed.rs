//! Bodies and queries that make no sense.

use causeway_protocol::wbxml::tags::air_sync;
use causeway_protocol::wbxml::{Element, encode};

use super::{Raw, folder_sync, mock, root, status};

const PROLOGUE: [u8; 4] = [0x03, 0x01, 0x6A, 0x00];

fn body(rest: &[u8]) -> Vec<u8> {
    [&PROLOGUE[..], rest].concat()
}

#[tokio::test]
async fn bodies_that_are_not_wbxml() {
    let mock = mock().await;
    let mut new = Raw::new(&mock, "BAD1", "16.1");
    let mut old = Raw::new(&mock, "BAD2", "12.1");
    new.provision().await;
    old.provision().await;
    let mut deep = body(&[]);
    deep.extend([0x45; 10_000]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("text", b"<FolderSync/>".to_vec()),
        ("unknown page", body(&[0x00, 0x63, 0x45, 0x01])),
        ("endless opaque", body(&[0x00, 0x07, 0x56, 0xC3, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F, 0x01])),
        ("too many ends", body(&[0x00, 0x07, 0x56, 0x01, 0x01])),
        ("too few ends", body(&[0x00, 0x07, 0x56, 0x52])),
        ("string table", vec![0x03, 0x01, 0x6A, 0x05, b'a', b'b', b'c', b'd', 0, 0x05]),
        ("attributes", body(&[0x00, 0x07, 0xD6, 0x01])),
        ("nested 10,000 deep", deep),
        ("text without end", body(&[0x00, 0x07, 0x56, 0x52, 0x03, b'0'])),
    ];
    for (what, bytes) in cases {
        let answer = root(&new.send("FolderSync", bytes.clone()).await.unwrap());
        assert_eq!(status(&answer), Some(102), "{what}: {answer}");
        assert_eq!(old.send("FolderSync", bytes).await.unwrap().status, 400, "{what}");
    }
    assert_eq!(new.folder_sync().await, (200, Some(1)), "and nothing is broken by it");
}

#[tokio::test]
async fn documents_of_another_command() {
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "BAD3", "16.1");
    phone.provision().await;
    let other = Element::new(air_sync::SYNC);
    for command in
        ["FolderSync", "Ping", "Settings", "GetItemEstimate", "ItemOperations", "Provision", "SendMail"]
    {
        assert_eq!(phone.verdict(command, &other).await, (200, Some(103)), "{command}");
    }
    assert_eq!(phone.verdict("Sync", &folder_sync("0")).await, (200, Some(103)));
    assert_eq!(phone.verdict("Sync", &other).await, (200, Some(4)));
}

#[tokio::test]
async fn queries_that_are_neither_form() {
    let mock = mock().await;
    let phone = Raw::new(&mock, "BAD4", "16.1");
    let folders = || encode(&folder_sync("0")).unwrap();
    for wrong in ["", "oQAJ", "User=asmith", "%00"] {
        let answer = phone.send_query(wrong, folders()).await.unwrap();
        assert_eq!(answer.status, 400, "{wrong:?}");
    }
    let long = format!("Cmd=FolderSync&User={}", "a".repeat(5_000));
    assert_eq!(phone.send_query(&long, folders()).await.unwrap().status, 400);
}

#[tokio::test]
async fn a_base64_query_means_what_a_plain_one_means() {
    use base64::Engine as _;
    let mock = mock().await;
    let mut phone = Raw::new(&mock, "BASE64ONE", "16.1");
    phone.provision().await;
    let key: u32 = phone.key.as_deref().unwrap().parse().unwrap();
    // Version 16.1, FolderSync, English, device id, policy key, device type, user.
    let mut bytes = vec![161, 9, 0x09, 0x04, 9];
    bytes.extend(b"BASE64ONE");
    bytes.push(4);
    bytes.extend(key.to_le_bytes());
    bytes.extend(b"\x09TestPhone\x08\x06asmith");
    let query = base64::engine::general_purpose::STANDARD.encode(bytes).replace('+', "%2B");
    phone.key = None;
    let answer = root(&phone.send_query(&query, encode(&folder_sync("0")).unwrap()).await.unwrap());
    assert_eq!(status(&answer), Some(1), "{answer}");
}
