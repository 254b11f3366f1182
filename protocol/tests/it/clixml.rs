//! CLIXML from outside: what Windows and others write is read, what we write is read back the same, and no text does
//! harm.

use std::sync::Arc;

use causeway_protocol::clixml::{ClixmlError, Content, ListKind, Object, Reader, Value, read, write};
use causeway_protocol::limits::{CLIXML_DEPTH_MAX, CLIXML_MAX_BYTES};
use proptest::collection::vec;
use proptest::prelude::*;

const DEVICE: &str = include_str!("corpus/mobile-device-object.clixml");

fn object(xml: &str) -> Object {
    match read(xml.as_bytes()) {
        Ok(Value::Object(object)) => *object,
        other => panic!("{xml} is {other:?}"),
    }
}

#[test]
fn the_device_of_the_corpus_is_read_and_written_the_same() {
    let device = object(DEVICE);
    assert_eq!(device.types.len(), 3);
    assert_eq!(device.to_string.as_deref(), Some("iPhone"));
    assert_eq!(device.adapted.len(), 44);
    assert_eq!(device.text("P37").unwrap(), "value-37-xxxxxxxxxxxxxxxxxxxx");
    assert_eq!(device.text("deviceaccessstate").unwrap(), "Allowed");
    assert_eq!(device.get("X1"), Some(&Value::Null));
    assert_eq!(device.get("Guid"), Some(&Value::Guid("80e208bc-ffcf-4889-9b57-169d0a53b57c".to_owned())));
    assert_eq!(device.get("PSShowComputerName"), Some(&Value::Bool(false)));
    // The corpus has the attributes of one element the other way round.
    let canonical =
        DEVICE.replace("N=\"DeviceAccessState\" RefId=\"1\"", "RefId=\"1\" N=\"DeviceAccessState\"");
    assert_eq!(write(&Value::Object(Box::new(device))), canonical);
}

#[test]
fn like_objects_share_names_and_types() {
    let mut reader = Reader::new();
    let mut device = || match reader.read(DEVICE.as_bytes()) {
        Ok(Value::Object(object)) => *object,
        other => panic!("{other:?}"),
    };
    let (first, second) = (device(), device());
    assert!(Arc::ptr_eq(&first.types, &second.types));
    assert!(Arc::ptr_eq(&first.adapted[0].0, &second.adapted[0].0));
}

#[test]
fn every_primitive_is_read() {
    for (xml, value) in [
        ("<S>a&lt;b_x000A_§</S>", Value::String("a<b\n§".to_owned())),
        ("<S/>", Value::String(String::new())),
        ("<S><![CDATA[a<b]]>&#x41;</S>", Value::String("a<bA".to_owned())),
        ("<C>65</C>", Value::Char(65)),
        ("<B>TRUE</B>", Value::Bool(true)),
        ("<DT>2024-01-01T00:00:00Z</DT>", Value::DateTime("2024-01-01T00:00:00Z".to_owned())),
        ("<TS>PT1.5S</TS>", Value::Duration("PT1.5S".to_owned())),
        ("<TS>-P1Y2M3DT4H5M6.5S</TS>", Value::Duration("-P1Y2M3DT4H5M6.5S".to_owned())),
        ("<DT>0001-01-01T00:00:00</DT>", Value::DateTime("0001-01-01T00:00:00".to_owned())),
        (
            "<DT>2026-11-23T06:00:00.1234567+01:00</DT>",
            Value::DateTime("2026-11-23T06:00:00.1234567+01:00".to_owned()),
        ),
        ("<By>255</By>", Value::U8(255)),
        ("<SB>-128</SB>", Value::I8(-128)),
        ("<U16>65535</U16>", Value::U16(65_535)),
        ("<I16>-1</I16>", Value::I16(-1)),
        ("<U32>1</U32>", Value::U32(1)),
        ("<I32> 7 </I32>", Value::I32(7)),
        ("<U64>18446744073709551615</U64>", Value::U64(u64::MAX)),
        ("<I64>-9223372036854775808</I64>", Value::I64(i64::MIN)),
        ("<Sg>1.5</Sg>", Value::Float(1.5)),
        ("<Db>-INF</Db>", Value::Double(f64::NEG_INFINITY)),
        ("<D>79228162514264337593543950335</D>", Value::Decimal("79228162514264337593543950335".to_owned())),
        ("<BA>AQ ID\n</BA>", Value::Bytes(vec![1, 2, 3])),
        (
            "<G>{80E208BC-FFCF-4889-9B57-169D0A53B57C}</G>",
            Value::Guid("80e208bc-ffcf-4889-9b57-169d0a53b57c".to_owned()),
        ),
        ("<URI>http://x/?a=1&amp;b</URI>", Value::Uri("http://x/?a=1&b".to_owned())),
        ("<Version>15.1.2507.6</Version>", Value::Version("15.1.2507.6".to_owned())),
        ("<XD>&lt;a/&gt;</XD>", Value::Xml("<a/>".to_owned())),
        ("<SBK>Get-Date</SBK>", Value::ScriptBlock("Get-Date".to_owned())),
        ("<SS>0100</SS>", Value::SecureString("0100".to_owned())),
        ("<Nil />", Value::Null),
        ("\u{feff}<?xml version=\"1.0\"?><!-- c --> <I32>1</I32>\n", Value::I32(1)),
        (
            "<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\"><S>a</S></Objs>",
            "a".into(),
        ),
    ] {
        assert_eq!(read(xml.as_bytes()), Ok(value), "{xml}");
    }
}

#[test]
fn wrong_primitive_text_is_refused() {
    for xml in [
        "<I32>1.5</I32>",
        "<I32></I32>",
        "<By>256</By>",
        "<C>65536</C>",
        "<B>yes</B>",
        "<BA>a-b_</BA>",
        "<G>80e208bc</G>",
        "<Db>one</Db>",
        "<D>1e999</D>",
        "<SB>128</SB>",
        "<U16>-1</U16>",
        "<I16>32768</I16>",
        "<U32>4294967296</U32>",
        "<I64>9223372036854775808</I64>",
        "<U64>-1</U64>",
        "<Sg>1,5</Sg>",
        "<DT>yesterday</DT>",
        "<DT>2026-11-23</DT>",
        "<DT>2026-13-23T06:00:00Z</DT>",
        "<DT>2026-11-23T06:00:00.Z</DT>",
        "<DT>2026-11-23T06:00:00 UTC</DT>",
        "<DT>2026-11-23T06:00:00+1:00</DT>",
        "<TS>90</TS>",
        "<TS>P</TS>",
        "<TS>PT</TS>",
        "<TS>P1DT</TS>",
        "<TS>PT1.5H</TS>",
        "<TS>PT1S1M</TS>",
        "<Version>15</Version>",
        "<Version>15.1.x</Version>",
        "<Version>1.2.3.4.5</Version>",
        "<Version>1.-2</Version>",
    ] {
        let outcome = read(xml.as_bytes());
        assert!(matches!(outcome, Err(ClixmlError::Primitive { .. })), "{xml}: {outcome:?}");
    }
}

#[test]
fn children_come_in_any_order_and_to_string_anywhere() {
    let error = object(
        "<Obj RefId='0'><MS><S N='A'>1</S></MS><ToString>words</ToString><TN RefId='0'><T>X</T></TN>\
         <Props><S N='a'>own</S></Props></Obj>",
    );
    assert_eq!(error.to_string.as_deref(), Some("words"));
    assert_eq!(*error.types, ["X".to_owned()]);
    // The object's own property comes before the one that was added, whatever the case.
    assert_eq!(error.text("A").unwrap(), "own");
}

#[test]
fn lists_dictionaries_and_enums_are_read() {
    for (element, kind) in [
        ("LST", ListKind::List),
        ("IE", ListKind::Enumerable),
        ("QUE", ListKind::Queue),
        ("STK", ListKind::Stack),
    ] {
        let list =
            object(&format!("<Obj RefId='0'><{element}><S>a</S><Nil/><Obj RefId='1'/></{element}></Obj>"));
        let empty = Value::Object(Box::default());
        assert_eq!(list.content, Content::List(kind, vec!["a".into(), Value::Null, empty]));
        let none = object(&format!("<Obj RefId='0'><{element}/></Obj>"));
        assert_eq!(none.content, Content::List(kind, vec![]));
    }
    let table = object(
        "<Obj RefId='0'><DCT><En><S N='Key'>Add</S><Obj N='Value' RefId='1'><LST><S>id</S></LST></Obj></En></DCT></Obj>",
    );
    let Content::Dictionary(entries) = &table.content else { panic!("{table:?}") };
    assert_eq!(entries[0].0, "Add".into());
    assert_eq!(entries[0].1.items(), ["id".into()]);
}

#[test]
fn references_give_the_same_again() {
    let twice = object(
        "<Obj RefId='0'><LST><Obj RefId='1'><TN RefId='0'><T>A</T></TN><Props><S N='x'>1</S></Props></Obj>\
         <Ref RefId='1'/><Obj RefId='2'><TNRef RefId='0'/></Obj></LST></Obj>",
    );
    let Content::List(_, values) = &twice.content else { panic!("{twice:?}") };
    assert_eq!(values[0], values[1]);
    let Value::Object(last) = &values[2] else { panic!("{values:?}") };
    assert_eq!(*last.types, ["A".to_owned()]);
}

#[test]
fn what_contains_itself_has_null_there() {
    let ring = object("<Obj RefId='0'><Props><Ref N='me' RefId='0'/><S N='name'>a</S></Props></Obj>");
    assert_eq!(ring.get("me"), Some(&Value::Null));
    assert_eq!(ring.text("name").unwrap(), "a");
}

#[test]
fn dangling_references_are_refused() {
    for xml in [
        "<Ref RefId='7'/>",
        "<Obj RefId='0'><TNRef RefId='3'/></Obj>",
        "<Obj RefId='0'><LST><Ref RefId='1'/><Obj RefId='1'/></LST></Obj>",
    ] {
        let outcome = read(xml.as_bytes());
        assert!(matches!(outcome, Err(ClixmlError::Dangling { .. })), "{xml}: {outcome:?}");
    }
    // The scope is one value: the next knows nothing of it.
    let mut reader = Reader::new();
    reader.read(b"<Obj RefId='1'><TN RefId='0'><T>A</T></TN></Obj>").unwrap();
    assert!(reader.read(b"<Ref RefId='1'/>").is_err());
    assert!(reader.read(b"<Obj RefId='1'><TNRef RefId='0'/></Obj>").is_err());
}

#[test]
fn references_that_multiply_are_bounded() {
    // Each object holds ten times the one before: ten billion strings in a few hundred bytes.
    let mut xml =
        "<Obj RefId='99'><LST><Obj RefId='0'><LST>".to_owned() + &"<S>lol</S>".repeat(10) + "</LST></Obj>";
    for level in 1..10 {
        let inner = format!("<Ref RefId='{}'/>", level - 1).repeat(10);
        xml += &format!("<Obj RefId='{level}'><LST>{inner}</LST></Obj>");
    }
    xml += "</LST></Obj>";
    let outcome = read(xml.as_bytes());
    assert!(matches!(outcome, Err(ClixmlError::TooMany | ClixmlError::TooLong)), "{outcome:?}");

    // Few values of much text.
    let long = "x".repeat(1 << 20);
    let refs = "<Ref RefId='1'/>".repeat(100);
    let xml =
        format!("<Obj RefId='0'><LST><Obj RefId='1'><ToString>{long}</ToString></Obj>{refs}</LST></Obj>");
    assert_eq!(read(xml.as_bytes()), Err(ClixmlError::TooLong));
}

#[test]
fn nested_ten_thousand_deep_is_refused() {
    let deep = |levels: usize| {
        let open: String = (0..levels).map(|id| format!("<Obj RefId='{id}'><LST>")).collect();
        open + &"</LST></Obj>".repeat(levels)
    };
    assert_eq!(read(deep(10_000).as_bytes()), Err(ClixmlError::TooDeep));
    assert_eq!(read(deep(CLIXML_DEPTH_MAX + 1).as_bytes()), Err(ClixmlError::TooDeep));
    assert!(read(deep(CLIXML_DEPTH_MAX).as_bytes()).is_ok());
    // The same without list and through contents that are objects.
    let open: String = (0..10_000).map(|id| format!("<Obj RefId='{id}'>")).collect();
    let bare = open + &"</Obj>".repeat(10_000);
    assert_eq!(read(bare.as_bytes()), Err(ClixmlError::TooDeep));
}

#[test]
fn document_types_and_entities_are_refused() {
    for xml in [
        "<!DOCTYPE a [<!ENTITY b 'c'>]><S>&b;</S>",
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><S/>",
        "<S>&b;</S>",
        "<Obj RefId='0'><Props><S N='&b;'/></Props></Obj>",
    ] {
        assert_eq!(read(xml.as_bytes()), Err(ClixmlError::Entity), "{xml}");
    }
}

#[test]
fn what_is_not_clixml_is_refused() {
    for xml in [
        "",
        "text",
        "<S>a",
        "<S>a</B>",
        "<S>a</S><S>b</S>",
        "<S><B>true</B></S>",
        "<Foo/>",
        "<Obj><Foo/></Obj>",
        "<Obj RefId='0'><Props><S>nameless</S></Props></Obj>",
        "<Obj RefId='0'><DCT><S N='Key'>a</S></DCT></Obj>",
        "<Obj RefId='0'><TN><T>no id</T></TN></Obj>",
        "<Obj RefId='0'><TN RefId='0'><X/></TN></Obj>",
        "<Ref/>",
    ] {
        assert!(read(xml.as_bytes()).is_err(), "{xml}");
    }
    assert_eq!(read(&[b'<', 0xff]), Err(ClixmlError::Encoding));
    assert_eq!(read(&vec![b' '; CLIXML_MAX_BYTES + 1]), Err(ClixmlError::TooLong));
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "[A-Za-z_<&\"'xX0-9 ]{1,12}".prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(_x[0-9A-F]{0,4}_?|§|\\PC|\r|\n|\t| ){0,8}"]
}

fn primitive() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        text().prop_map(Value::String),
        any::<u16>().prop_map(Value::Char),
        any::<bool>().prop_map(Value::Bool),
        "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(Z|[+-][0-9]{2}:[0-9]{2})?"
            .prop_map(Value::DateTime),
        "-?P[0-9]{1,5}D(T([0-9]{1,2}H)?[0-9]{1,2}M([0-9]{1,2}(\\.[0-9]{1,7})?S)?)?".prop_map(Value::Duration),
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        // Not a number is not equal to itself.
        any::<f32>().prop_filter("nan", |n| !n.is_nan()).prop_map(Value::Float),
        any::<f64>().prop_filter("nan", |n| !n.is_nan()).prop_map(Value::Double),
        "[0-9]{1,20}(\\.[0-9]{1,5})?".prop_map(Value::Decimal),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(Value::Guid),
        text().prop_map(Value::Uri),
        "[0-9]{1,9}(\\.[0-9]{1,9}){1,3}".prop_map(Value::Version),
        text().prop_map(Value::Xml),
        text().prop_map(Value::ScriptBlock),
        text().prop_map(Value::SecureString),
    ]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    primitive().prop_recursive(4, 30, 5, |inner| {
        let kind = prop_oneof![
            Just(ListKind::List),
            Just(ListKind::Enumerable),
            Just(ListKind::Queue),
            Just(ListKind::Stack)
        ];
        let content = prop_oneof![
            Just(Content::None),
            inner.clone().prop_map(Content::Primitive),
            (kind, vec(inner.clone(), 0..5)).prop_map(|(kind, values)| Content::List(kind, values)),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(Content::Dictionary),
        ];
        let types = vec("[A-Z][a-z.`\\[\\]]{0,10}", 0..3);
        let members = || vec((name(), inner.clone()), 0..5);
        (types, proptest::option::of(text()), members(), members(), content).prop_map(
            |(types, to_string, adapted, extended, content)| {
                Value::Object(Box::new(Object { types: types.into(), to_string, adapted, extended, content }))
            },
        )
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in value()) {
        let xml = write(&value);
        prop_assert_eq!(read(xml.as_bytes()), Ok(value), "{}", xml);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
    }

    /// Good text, damaged: the interesting places are behind the first tag.
    #[test]
    fn damaged_objects_never_panic(at in 0..DEVICE.len(), with in "[<>/&'\" a-zA-Z0-9]{0,6}", length in 0usize..40) {
        let mut bytes = DEVICE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.into_bytes());
        let _ = read(&bytes);
    }
}
