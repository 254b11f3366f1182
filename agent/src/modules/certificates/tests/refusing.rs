//! What never leaves.

use causeway_protocol::pkix::{BasicConstraints, Csr, Extension, KeyUsage, Oid, Template};

use super::*;

async fn refused(bench: &Bench, change: impl FnOnce(&mut CsrDraft)) -> String {
    let report = failure(bench.issue(&bench.device_order_with("a", change)).await);
    assert_eq!(bench.fake.state().submits, 0, "it left");
    assert_eq!(report.code, "request_refused", "{}", report.detail);
    report.detail
}

#[tokio::test]
async fn a_device_that_asks_for_more_than_was_ordered() {
    let bench = Bench::new();
    let upn = |name: &str| AlternativeName::Upn(name.to_owned());
    let detail = refused(&bench, |draft| draft.subject = Name::parse("/CN=bjones").unwrap()).await;
    assert!(detail.contains("CN=bjones"), "{detail}");
    refused(&bench, |draft| draft.subject.rdns.reverse()).await;
    refused(&bench, |draft| draft.alternative_names.push(upn("bjones@acme.example"))).await;
    refused(&bench, |draft| draft.alternative_names = vec![upn("bjones@acme.example")]).await;
    refused(&bench, |draft| draft.alternative_names.clear()).await;
    let detail = refused(&bench, |draft| draft.sid = Some("S-1-5-21-1-2-3-1104".into())).await;
    assert!(detail.contains("security identifier"), "{detail}");
    refused(&bench, |draft| draft.template = Some(Template::Name("EnrollmentAgent".into()))).await;
    let ca = BasicConstraints { ca: true, path_length: None };
    refused(&bench, |draft| draft.extensions.push(Extension::basic_constraints(ca))).await;
    refused(&bench, |draft| draft.extensions.push(Extension::key_usage(KeyUsage::CERT_SIGN))).await;
    for purpose in ["1.3.6.1.4.1.311.20.2.1", "2.5.29.37.0"] {
        let purpose = Oid::parse(purpose).unwrap();
        refused(&bench, |draft| draft.extensions.push(Extension::extended_key_usage(&[purpose]))).await;
    }
    let unknown = Extension::new(Oid::parse("1.2.3.4.5").unwrap(), vec![5, 0]);
    refused(&bench, |draft| draft.extensions.push(unknown)).await;
    // What everybody may ask for is no reason.
    let harmless = bench.device_order_with("a", |draft| {
        draft.extensions.push(Extension::key_usage(KeyUsage::DIGITAL_SIGNATURE));
        let client = Oid::parse("1.3.6.1.5.5.7.3.2").unwrap();
        draft.extensions.push(Extension::extended_key_usage(&[client]));
    });
    bench.issued(&harmless).await;
}

/// By name or by number, and by both: the profile's template is the only one.
#[tokio::test]
async fn a_device_that_asks_for_another_template() {
    let by_name = |name: &str| Template::Name(name.to_owned());
    let by_number = |id: &str| Template::Id { id: Oid::parse(id).unwrap(), major: 100, minor: 1 };
    let (own, other) = ("1.3.6.1.4.1.311.21.8.7.1", "1.3.6.1.4.1.311.21.8.7.2");
    for (ordered, allowed) in [("Device", by_name("Device")), (own, by_number(own))] {
        let mut desired = json!({ "profiles": [profile("vpn", "device")] });
        desired["profiles"][0]["template"] = json!(ordered);
        let bench = Bench::with(desired);
        for asked in [by_name("EnrollmentAgent"), by_number(other)] {
            let detail = refused(&bench, |draft| draft.template = Some(asked)).await;
            assert!(detail.contains("template"), "{detail}");
        }
        // Behind the right one.
        let mut hidden = CsrDraft { template: Some(by_name("EnrollmentAgent")), ..CsrDraft::default() };
        if ordered == "Device" {
            hidden.template = Some(by_number(other));
        }
        let hidden = template_extension(&hidden);
        let detail = refused(&bench, |draft| {
            draft.template = Some(allowed.clone());
            draft.extensions.push(hidden);
        })
        .await;
        assert!(detail.contains("template"), "{detail}");
        let honest = bench.device_order_with("a", |draft| draft.template = Some(allowed));
        bench.issued(&honest).await;
    }
}

/// The extension that a draft's template leads to.
fn template_extension(draft: &CsrDraft) -> Extension {
    let csr = draft.sign(&Key::generate(KeyKind::P256).unwrap(), Digest::Sha256).unwrap();
    Csr::read(&csr).unwrap().extensions().0[0].clone()
}

#[tokio::test]
async fn requests_that_are_none_or_not_the_devices() {
    let bench = Bench::new();
    let honest = bench.device_order("a");
    let csr = STANDARD.decode(honest["csr"].as_str().unwrap()).unwrap();
    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut renamed = csr.clone();
    let at = renamed.windows(6).position(|part| part == b"asmith").unwrap();
    renamed[at] = b'b';
    let with = |csr: &[u8]| {
        let mut order = honest.clone();
        order["csr"] = json!(STANDARD.encode(csr));
        order
    };
    for csr in [&forged[..], &renamed, &csr[..50], b"", &[0x30; 4096], &vec![0x30; 1 << 20]] {
        let report = failure(bench.issue(&with(csr)).await);
        assert_eq!(report.code, "request_refused", "{}", report.detail);
    }
    let large = bench.device_order_with("a", |draft| {
        draft.extensions.push(Extension::new(Oid::parse("1.2.3").unwrap(), vec![4; 1 << 20]));
    });
    let report = failure(bench.issue(&large).await);
    assert!(report.detail.contains("bytes"), "{}", report.detail);
    for csr in [json!(null), json!("%%%"), json!(7)] {
        let mut order = honest.clone();
        order["csr"] = csr;
        assert_eq!(failure(bench.issue(&order).await).code, "bad_parameters");
    }
    assert_eq!(bench.fake.state().submits, 0);
}

#[tokio::test]
async fn keys_that_are_weaker_than_the_profile() {
    let mut desired = json!({ "profiles": [profile("vpn", "device")] });
    desired["profiles"][0]["key"] = json!("rsa3072");
    let bench = Bench::with(desired);
    refused(&bench, |_| {}).await;
    let device = Arc::new(Key::generate(KeyKind::Rsa2048).unwrap());
    let bench = Bench { device, ..bench };
    let detail = refused(&bench, |_| {}).await;
    assert!(detail.contains("2048"), "{detail}");
}

#[tokio::test]
async fn names_of_administrators() {
    let bench = Bench::new();
    let code = async |name: &str, upn: &str| {
        let mut order = bench.agent_order("a");
        order["variables"] = json!({ "uname": name, "email": "x@acme.example", "upn": upn });
        failure(bench.issue(&order).await).code
    };
    for (name, upn) in [
        ("Administrator", "x@acme.example"),
        ("asmith", "ADMINISTRATOR@acme.example"),
        ("krbtgt_1234", "x@acme.example"),
        ("DC1$", "x@acme.example"),
        ("ACME\\administrator", "x@acme.example"),
        (" root ", "x@acme.example"),
    ] {
        assert_eq!(code(name, upn).await, "privileged_name", "{name} {upn}");
    }
    assert_eq!(bench.fake.state().submits, 0);
    let mut desired = json!({ "profiles": [profile("mail", "agent")], "privileged_names": ["*smith"] });
    let bench = bench.configured(desired.clone());
    assert_eq!(failure(bench.issue(&bench.agent_order("b")).await).code, "privileged_name");
    // The number of the account counts, whatever it is called.
    desired["privileged_names"] = json!([]);
    desired["profiles"][0]["alternative_names"] = json!(["uri:tag:microsoft.com,2022-09-14:sid:%sid%"]);
    let bench = bench.configured(desired);
    let mut order = bench.agent_order("c");
    order["variables"]["sid"] = json!("S-1-5-21-1-2-3-500");
    assert_eq!(failure(bench.issue(&order).await).code, "privileged_name");
    order["variables"]["sid"] = json!("S-1-5-21-1-2-3-1500");
    bench.issued(&order).await;
}

#[tokio::test]
async fn orders_that_cannot_be_carried_out() {
    let bench = Bench::new();
    let mut order = bench.agent_order("a");
    order["device_key"] = json!(null);
    assert_eq!(failure(bench.issue(&order).await).code, "bad_parameters");
    let mut order = bench.agent_order("a");
    order["variables"] = json!({});
    assert_eq!(failure(bench.issue(&order).await).code, "name_not_possible");
    let mut order = bench.agent_order("a");
    order["variables"]["uname"] = json!("a\u{0}b");
    assert_eq!(failure(bench.issue(&order).await).code, "name_not_possible");
    let mut order = bench.agent_order("");
    assert_eq!(failure(bench.issue(&order).await).code, "bad_parameters");
    order["request"] = json!("x".repeat(200));
    assert_eq!(failure(bench.issue(&order).await).code, "bad_parameters");
    let forbidden = json!({ "profiles": [profile("mail", "agent")], "authorities_forbidden": ["default"] });
    let (result, _) = pending(bench.configured(forbidden).issue(&bench.agent_order("a")).await);
    assert_eq!(result["code"], "forbidden_locally");
    assert_eq!(bench.fake.state().submits, 0);
}
