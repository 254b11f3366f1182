//! Filters against a second, naive evaluator that knows nothing of indexes, links or computed values: it reads the
//! entries as they are sent.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const KNOWN: [&str; 7] = ["uid", "sn", "mail", "title", "departmentnumber", "description", "member"];

fn filters() -> impl Strategy<Value = Filter> {
    // Numbers stand for values that exist in the directory; see `fill`.
    let attr = prop_oneof![6 => prop::sample::select(&KNOWN[..]), 1 => Just("nosuchattribute"), 1 => Just("objectclass")];
    let attr = attr.prop_map(str::to_owned);
    let value = || prop_oneof![(0u8..40).prop_map(|number| vec![number]), Just(b"Nobody".to_vec())];
    let leaf = prop_oneof![
        (attr.clone(), value()).prop_map(|(attr, value)| Filter::Equality { attr, value }),
        (attr.clone(), value()).prop_map(|(attr, value)| Filter::GreaterOrEqual { attr, value }),
        (attr.clone(), value()).prop_map(|(attr, value)| Filter::LessOrEqual { attr, value }),
        attr.clone().prop_map(Filter::Present),
        (attr, value(), any::<bool>()).prop_map(|(attr, value, initial)| Filter::Substrings {
            attr,
            initial: initial.then(|| value.clone()),
            any: if initial { vec![] } else { vec![value] },
            final_: None,
        }),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

type Entries = Vec<(EntryId, Vec<(String, Vec<Vec<u8>>)>)>;

/// Puts real values where the generator left numbers, in odd capitals.
fn fill(filter: Filter, entries: &Entries) -> Filter {
    let real = |attr: &str, value: Vec<u8>| match value.as_slice() {
        [number] => {
            let (_, attributes) = &entries[usize::from(*number) % entries.len()];
            let found = attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(attr));
            let text = found.map_or(b"x".to_vec(), |(_, values)| values[0].clone());
            if *number % 2 == 0 { text.to_ascii_uppercase() } else { text }
        }
        _ => value,
    };
    match filter {
        Filter::And(parts) => Filter::And(parts.into_iter().map(|part| fill(part, entries)).collect()),
        Filter::Or(parts) => Filter::Or(parts.into_iter().map(|part| fill(part, entries)).collect()),
        Filter::Not(part) => Filter::Not(Box::new(fill(*part, entries))),
        Filter::Equality { attr, value } => Filter::Equality { value: real(&attr, value), attr },
        Filter::GreaterOrEqual { attr, value } => Filter::GreaterOrEqual { value: real(&attr, value), attr },
        Filter::LessOrEqual { attr, value } => Filter::LessOrEqual { value: real(&attr, value), attr },
        Filter::Substrings { attr, initial, any, .. } => {
            // A piece of a value, so that there is something to find.
            let piece = |value: Vec<u8>, from: usize| {
                let text = String::from_utf8_lossy(&real(&attr, value)).into_owned();
                text.chars().skip(from).take(3).collect::<String>().trim().to_owned().into_bytes()
            };
            let initial = initial.map(|value| piece(value, 0));
            let any = any.into_iter().map(|value| piece(value, 1)).collect();
            Filter::Substrings { attr, initial, any, final_: None }
        }
        other => other,
    }
}

/// Three-valued logic, straight from RFC 4511 4.5.1.7.
fn naive(filter: &Filter, entry: &[(String, Vec<Vec<u8>>)]) -> Option<bool> {
    let lower = |value: &[u8]| String::from_utf8_lossy(value).to_lowercase();
    let any = |attr: &str, test: &dyn Fn(String) -> bool| {
        let known = KNOWN.contains(&attr) || attr == "objectclass";
        let values = entry.iter().find(|(name, _)| name.eq_ignore_ascii_case(attr)).map(|(_, values)| values);
        known.then(|| values.is_some_and(|values| values.iter().any(|value| test(lower(value)))))
    };
    match filter {
        Filter::And(parts) => {
            let verdicts: Vec<_> = parts.iter().map(|part| naive(part, entry)).collect();
            if verdicts.contains(&Some(false)) {
                Some(false)
            } else if verdicts.contains(&None) {
                None
            } else {
                Some(true)
            }
        }
        Filter::Or(parts) => {
            let verdicts: Vec<_> = parts.iter().map(|part| naive(part, entry)).collect();
            if verdicts.contains(&Some(true)) {
                Some(true)
            } else if verdicts.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        Filter::Not(part) => naive(part, entry).map(|verdict| !verdict),
        Filter::Present(attr) => any(attr, &|_| true),
        // Classes have superiors, names of objects have no order or parts, and unknown classes are Undefined.
        Filter::Equality { attr, value } if attr == "objectclass" => {
            let known = ["inetorgperson", "groupofnames", "organizationalunit", "organization", "dcobject"];
            known
                .contains(&lower(value).as_str())
                .then(|| any(attr, &|stored| stored == lower(value)) == Some(true))
        }
        Filter::Equality { attr, value } => any(attr, &|stored| stored == lower(value)),
        Filter::GreaterOrEqual { attr, .. }
        | Filter::LessOrEqual { attr, .. }
        | Filter::Substrings { attr, .. }
            if attr == "member" =>
        {
            None
        }
        Filter::GreaterOrEqual { attr, value } => any(attr, &|stored| stored >= lower(value)),
        Filter::LessOrEqual { attr, value } => any(attr, &|stored| stored <= lower(value)),
        Filter::Substrings { attr, initial, any: parts, .. } => any(attr, &|stored| {
            initial.as_ref().is_none_or(|initial| stored.starts_with(&lower(initial)))
                && parts.iter().all(|part| stored.contains(&lower(part)))
        }),
        _ => None,
    }
}

#[test]
fn filters_agree_with_a_naive_evaluator() {
    let world = World::new(Vendor::OpenLdap);
    let admin = world.admin();
    let all = world.search(world.directory.base_dn(), Scope::Subtree, "(objectClass=*)", &admin).unwrap().ids;
    let read = |id: EntryId| {
        let mut out = BytesMut::new();
        assert!(world.server().encode_entry(id, &Selection::default(), &mut out));
        (id, decode(&out).1)
    };
    let entries: Entries = all.into_iter().map(read).collect();
    let mut runner = proptest::test_runner::TestRunner::default();
    let outcome = runner.run(&filters(), |filter| {
        let filter = fill(filter, &entries);
        let wanted =
            entries.iter().filter(|(_, entry)| naive(&filter, entry) == Some(true)).map(|(id, _)| *id);
        let wanted: std::collections::BTreeSet<EntryId> = wanted.collect();
        let plan = plan(world.directory.base_dn(), Scope::Subtree, &filter, &admin);
        let found = world.server().search(&plan).unwrap().ids;
        let found: std::collections::BTreeSet<EntryId> = found.into_iter().collect();
        prop_assert_eq!(found, wanted, "{}", filter);
        Ok(())
    });
    outcome.unwrap();
}
