//! Direct memberships, as edges between stable ids. Nesting and cycles are left as they are: the cloud follows edges,
//! and an edge from a group to itself is just an edge.

use causeway_protocol::record::{Op, Record};

use super::mapping::Mapper;
use crate::directory::guid::ObjectId;

/// Sorted, without repetition.
pub(super) fn sorted(mut ids: Vec<[u8; 16]>) -> Vec<[u8; 16]> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Both lists as one. Each must be sorted.
pub(super) fn union(a: &[[u8; 16]], b: &[[u8; 16]]) -> Vec<[u8; 16]> {
    if b.is_empty() {
        return a.to_vec();
    }
    sorted([a, b].concat())
}

/// Records that lead from one set of members to another. Both must be sorted.
pub(super) fn difference<'a>(
    mapper: &'a Mapper,
    group: ObjectId,
    before: &'a [[u8; 16]],
    after: &'a [[u8; 16]],
) -> impl Iterator<Item = Record> + 'a {
    let record = move |op, member: &[u8; 16]| mapper.member(op, group, ObjectId(*member));
    let gone = before.iter().filter(|id| after.binary_search(id).is_err());
    let new = after.iter().filter(|id| before.binary_search(id).is_err());
    gone.map(move |id| record(Op::Delete, id)).chain(new.map(move |id| record(Op::Upsert, id)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::directory::personality::Personality;

    proptest! {
        #[test]
        fn a_difference_leads_from_one_set_to_the_other(before: Vec<u8>, after: Vec<u8>) {
            let ids = |numbers: &[u8]| sorted(numbers.iter().map(|n| [*n; 16]).collect());
            let (before, after) = (ids(&before), ids(&after));
            let mapper = Mapper::new(Arc::new(Personality::named("openldap").unwrap()), &[]);
            let mut set: std::collections::BTreeSet<String> =
                before.iter().map(|id| mapper.key(ObjectId(*id))).collect();
            for record in difference(&mapper, ObjectId([0; 16]), &before, &after) {
                let member = record.member.unwrap();
                let fresh = if record.op == Op::Upsert { set.insert(member) } else { set.remove(&member) };
                prop_assert!(fresh, "no record without effect");
            }
            let expected = after.iter().map(|id| mapper.key(ObjectId(*id))).collect();
            prop_assert_eq!(set, expected);
        }
    }
}
