//! The codec against strangers: what `ldap3_proto` encodes is understood, what we encode is read by it and by `lber`,
//! and no bytes make it panic or allocate without bound.

use bytes::BytesMut;
use causeway_mock_ldap::filter::Filter;
use causeway_mock_ldap::message::{self, Authentication, Operation, Outcome, ResponseControl};
use causeway_mock_ldap::{ber, controls, dit};
use ldap3_proto::LdapCodec;
use ldap3_proto::control::LdapControl;
use ldap3_proto::proto::{
    LdapAddRequest, LdapAttribute, LdapBindCred, LdapBindRequest, LdapCompareRequest, LdapDerefAliases,
    LdapExtendedRequest, LdapFilter, LdapMatchingRuleAssertion, LdapModify, LdapModifyDNRequest,
    LdapModifyRequest, LdapModifyType, LdapMsg, LdapOp, LdapPartialAttribute, LdapSearchRequest,
    LdapSearchScope, LdapSubstringFilter,
};
use proptest::prelude::*;
use tokio_util::codec::{Decoder as _, Encoder as _};

fn encode(msg: LdapMsg) -> BytesMut {
    let mut out = BytesMut::new();
    LdapCodec::new(Some(10 << 20), None).encode(msg, &mut out).expect("the oracle encodes");
    out
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9 ,=]{0,40}", "\\PC{0,20}", Just(String::new()), "x{200,300}"]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9-]{0,20}(;[a-z]{1,8})?"
}

fn leaf() -> impl Strategy<Value = LdapFilter> {
    prop_oneof![
        (name(), text()).prop_map(|(name, value)| LdapFilter::Equality(name, value)),
        (name(), text()).prop_map(|(name, value)| LdapFilter::GreaterOrEqual(name, value)),
        (name(), text()).prop_map(|(name, value)| LdapFilter::LessOrEqual(name, value)),
        (name(), text()).prop_map(|(name, value)| LdapFilter::Approx(name, value)),
        name().prop_map(LdapFilter::Present),
        (name(), proptest::option::of("[a-z]{1,9}"), prop::collection::vec("[a-z]{1,9}", 0..4), "[a-z]{1,9}")
            .prop_map(|(name, initial, any, last)| {
                LdapFilter::Substring(name, LdapSubstringFilter { initial, any, final_: Some(last) })
            }),
        (proptest::option::of(name()), name(), text(), any::<bool>()).prop_map(|(rule, name, value, dn)| {
            LdapFilter::Extensible(LdapMatchingRuleAssertion {
                matching_rule: rule,
                type_: Some(name),
                match_value: value,
                dn_attributes: dn,
            })
        }),
    ]
}

fn filter() -> impl Strategy<Value = LdapFilter> {
    leaf().prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(LdapFilter::And),
            prop::collection::vec(inner.clone(), 0..5).prop_map(LdapFilter::Or),
            inner.prop_map(|inner| LdapFilter::Not(Box::new(inner))),
        ]
    })
}

/// The oracle's filter as ours.
fn ours(filter: &LdapFilter) -> Filter {
    let low = |name: &String| name.to_ascii_lowercase();
    let raw = |value: &String| value.as_bytes().to_vec();
    match filter {
        LdapFilter::And(inner) => Filter::And(inner.iter().map(ours).collect()),
        LdapFilter::Or(inner) => Filter::Or(inner.iter().map(ours).collect()),
        LdapFilter::Not(inner) => Filter::Not(Box::new(ours(inner))),
        LdapFilter::Equality(attr, value) => Filter::Equality { attr: low(attr), value: raw(value) },
        LdapFilter::GreaterOrEqual(attr, value) => {
            Filter::GreaterOrEqual { attr: low(attr), value: raw(value) }
        }
        LdapFilter::LessOrEqual(attr, value) => Filter::LessOrEqual { attr: low(attr), value: raw(value) },
        LdapFilter::Approx(attr, value) => Filter::Approx { attr: low(attr), value: raw(value) },
        LdapFilter::Present(attr) => Filter::Present(low(attr)),
        LdapFilter::Substring(attr, parts) => Filter::Substrings {
            attr: low(attr),
            initial: parts.initial.as_ref().map(raw),
            any: parts.any.iter().map(raw).collect(),
            final_: parts.final_.as_ref().map(raw),
        },
        LdapFilter::Extensible(rule) => Filter::Extensible {
            rule: rule.matching_rule.as_ref().map(low),
            attr: rule.type_.as_ref().map(low),
            value: raw(&rule.match_value),
            dn_attributes: rule.dn_attributes,
        },
    }
}

fn values() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn searches_of_the_oracle_are_understood(
        id in 0..i32::MAX, base in text(), limits in (0..i32::MAX, 0..i32::MAX), only in any::<bool>(),
        filter in filter(), attrs in prop::collection::vec(name(), 0..6), cookie in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let request = LdapSearchRequest {
            base: base.clone(), scope: LdapSearchScope::OneLevel, aliases: LdapDerefAliases::Always,
            sizelimit: limits.0, timelimit: limits.1, typesonly: only, filter: filter.clone(), attrs: attrs.clone(),
        };
        let paging = LdapControl::SimplePagedResults { size: 77, cookie: cookie.clone() };
        let bytes = encode(LdapMsg::new_with_ctrls(id, LdapOp::SearchRequest(request), vec![paging]));
        let decoded = message::decode(&bytes).expect("understood");
        prop_assert_eq!(decoded.id, id);
        let Operation::Search(search) = decoded.operation else { panic!("a search") };
        prop_assert_eq!(search.base, base.as_bytes());
        prop_assert_eq!((search.scope, search.deref), (dit::Scope::OneLevel, 3));
        prop_assert_eq!((search.size_limit as i32, search.time_limit_secs as i32), limits);
        prop_assert_eq!(search.types_only, only);
        prop_assert_eq!(search.filter, ours(&filter));
        prop_assert_eq!(search.attributes, attrs.iter().map(String::as_bytes).collect::<Vec<_>>());
        let controls = controls::decode(&decoded.controls, |_| true).expect("understood");
        let paged = controls.paged.expect("the paging control");
        prop_assert_eq!((paged.size, paged.cookie), (77, cookie.as_slice()));
    }

    #[test]
    fn other_requests_of_the_oracle_are_understood(dn in text(), attr in name(), vals in values(), delete in any::<bool>()) {
        let binding = LdapBindRequest { version: 3, dn: dn.clone(), cred: LdapBindCred::Simple("pw".into()) };
        let bytes = encode(LdapMsg::new(1, LdapOp::BindRequest(binding)));
        let decoded = message::decode(&bytes).expect("understood").operation;
        let Operation::Bind { version: 3, name, authentication: Authentication::Simple(b"pw") } = decoded else { panic!("a bind") };
        prop_assert_eq!(name, dn.as_bytes());

        let attribute = LdapPartialAttribute { atype: attr.clone(), vals: vals.clone() };
        let change = LdapModify { operation: LdapModifyType::Replace, modification: attribute };
        let modify = LdapModifyRequest { dn: dn.clone(), changes: vec![change] };
        let bytes = encode(LdapMsg::new(2, LdapOp::ModifyRequest(modify)));
        let Operation::Modify { changes, .. } = message::decode(&bytes).expect("understood").operation else { panic!("a modify") };
        prop_assert_eq!((changes[0].kind, changes[0].attribute), (2, attr.as_bytes()));
        prop_assert_eq!(&changes[0].values, &vals);

        let add = LdapAddRequest { dn: dn.clone(), attributes: vec![LdapAttribute { atype: attr.clone(), vals: vals.clone() }] };
        let bytes = encode(LdapMsg::new(3, LdapOp::AddRequest(add)));
        let Operation::Add { attributes, .. } = message::decode(&bytes).expect("understood").operation else { panic!("an add") };
        prop_assert_eq!(&attributes[0].1, &vals);

        let rename = LdapModifyDNRequest { dn: dn.clone(), newrdn: attr.clone(), deleteoldrdn: delete, new_superior: Some(dn.clone()) };
        let bytes = encode(LdapMsg::new(4, LdapOp::ModifyDNRequest(rename)));
        let Operation::ModifyDn { new_rdn, delete_old, new_superior, .. } = message::decode(&bytes).expect("understood").operation else { panic!("a rename") };
        prop_assert_eq!((new_rdn, delete_old, new_superior), (attr.as_bytes(), delete, Some(dn.as_bytes())));

        let compare = LdapCompareRequest { dn: dn.clone(), atype: attr.clone(), val: vec![0xff, 0] };
        let bytes = encode(LdapMsg::new(5, LdapOp::CompareRequest(compare)));
        let Operation::Compare { value, .. } = message::decode(&bytes).expect("understood").operation else { panic!("a compare") };
        prop_assert_eq!(value, &[0xff, 0]);

        let extended = LdapExtendedRequest { name: "1.2.3".into(), value: Some(vec![0x80]) };
        let bytes = encode(LdapMsg::new(6, LdapOp::ExtendedRequest(extended)));
        let Operation::Extended { name: b"1.2.3", value: Some(&[0x80]) } = message::decode(&bytes).expect("understood").operation else { panic!("an extended") };

        let bytes = encode(LdapMsg::new(7, LdapOp::DelRequest(dn.clone())));
        let Operation::Delete { dn: deleted } = message::decode(&bytes).expect("understood").operation else { panic!("a delete") };
        prop_assert_eq!(deleted, dn.as_bytes());
        let bytes = encode(LdapMsg::new(8, LdapOp::AbandonRequest(77)));
        let abandons = matches!(message::decode(&bytes).expect("understood").operation, Operation::Abandon { id: 77 });
        prop_assert!(abandons);
    }

    #[test]
    fn our_entries_are_read_by_the_oracle(id in 0..i32::MAX, dn in text(), attr in name(), vals in values()) {
        let mut out = BytesMut::new();
        message::put_entry(&mut out, id, &[], |out| {
            ber::put_octets(out, dn.as_bytes());
            ber::constructed(out, ber::SEQUENCE, |out| {
                ber::constructed(out, ber::SEQUENCE, |out| {
                    ber::put_octets(out, attr.as_bytes());
                    ber::constructed(out, ber::SET, |out| vals.iter().for_each(|value| ber::put_octets(out, value)));
                });
            });
            true
        });
        let msg = LdapCodec::new(Some(10 << 20), None).decode(&mut out.clone()).expect("read").expect("whole");
        prop_assert_eq!(msg.msgid, id);
        let LdapOp::SearchResultEntry(entry) = msg.op else { panic!("an entry") };
        prop_assert_eq!(&entry.dn, &dn);
        prop_assert_eq!(&entry.attributes[0].vals, &vals);
        prop_assert!(lber::parse::parse_tag(&out).is_ok(), "and by the other codec");
    }

    #[test]
    fn our_results_are_read_by_the_oracle(id in 0..i32::MAX, matched in text(), message_text in text(), cookie in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut out = BytesMut::new();
        let outcome = Outcome { code: 32, matched_dn: matched.as_bytes(), message: message_text.as_bytes(), referrals: &[] };
        let paged = controls::paged_response(5, &cookie);
        let odd = ResponseControl { oid: "1.2.3.4", value: None };
        message::put_result(&mut out, id, message::tag::SEARCH_RESULT_DONE, outcome, &[paged, odd], |_| {});
        let msg = LdapCodec::new(Some(10 << 20), None).decode(&mut out.clone()).expect("read").expect("whole");
        let LdapOp::SearchResultDone(result) = msg.op else { panic!("a result") };
        prop_assert_eq!((&result.matcheddn, &result.message), (&matched, &message_text));
        let paged = LdapControl::SimplePagedResults { size: 5, cookie };
        prop_assert!(msg.ctrl.contains(&paged), "{:?}", msg.ctrl);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = ber::message_length(&bytes, 1 << 20);
        if let Ok(request) = message::decode(&bytes) {
            let _ = controls::decode(&request.controls, |_| true);
        }
    }

    #[test]
    fn damaged_messages_never_panic(filter in filter(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let request = LdapSearchRequest {
            base: "dc=a".into(), scope: LdapSearchScope::Subtree, aliases: LdapDerefAliases::Never,
            sizelimit: 0, timelimit: 0, typesonly: false, filter, attrs: vec![],
        };
        let paging = LdapControl::SimplePagedResults { size: 1, cookie: vec![1, 2, 3] };
        let mut bytes = encode(LdapMsg::new_with_ctrls(1, LdapOp::SearchRequest(request), vec![paging])).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(request) = message::decode(&bytes) {
            let _ = controls::decode(&request.controls, |_| true);
        }
    }

    #[test]
    fn integers_survive_both_codecs(value in any::<i64>()) {
        let mut out = BytesMut::new();
        ber::put_integer(&mut out, ber::INTEGER, value);
        prop_assert_eq!(ber::Reader::new(&out).integer(), Ok(value));
        let theirs = crate::client::encode(crate::client::integer(value));
        prop_assert_eq!(&out[..], theirs.as_slice(), "the shortest form");
    }
}
