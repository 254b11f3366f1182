//! Virtual list views (draft-ietf-ldapext-ldapv3-vlv-09): which part of a sorted list the client is looking at.

use std::ops::Range;

use super::search::{Refusal, SORT_CONTROL_MISSING};
use crate::controls::{self, SortKey, Vlv, VlvTarget};
use crate::dit::{EntryId, LdapFailure, Replica, ResultCode};

/// offsetRangeError.
const OFFSET_RANGE_ERROR: ResultCode = ResultCode(61);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// Of the target, from 1.
    pub(super) position: u32,
    pub(super) range: Range<usize>,
}

pub(super) fn window(
    replica: &Replica,
    sorted: &[EntryId],
    keys: &[SortKey],
    vlv: &Vlv<'_>,
) -> Result<Window, Refusal> {
    let position = match vlv.target {
        VlvTarget::Offset { offset, count } => {
            position_of_offset(offset, count, sorted.len()).ok_or_else(|| refused(OFFSET_RANGE_ERROR))?
        }
        VlvTarget::GreaterOrEqual(value) => {
            let key = keys.first().ok_or_else(sort_missing)?;
            let wanted = value.to_ascii_lowercase();
            let before = |id: &EntryId| match replica.sort_key(*id, &key.attribute) {
                Some(found) if key.reverse => found > wanted,
                Some(found) => found < wanted,
                // Missing values are the largest: first when reversed.
                None => key.reverse,
            };
            sorted.partition_point(before) + 1
        }
    };
    Ok(around(position, vlv.before as usize, vlv.after as usize, sorted.len()))
}

pub(super) fn sort_missing() -> Refusal {
    refused(SORT_CONTROL_MISSING)
}

/// A list that is not shown is still answered with the response control: ldapsearch repeats its request without
/// end otherwise.
fn refused(code: ResultCode) -> Refusal {
    Refusal { failure: LdapFailure::new(code, ""), controls: vec![controls::vlv_response(0, 0, code.0)] }
}

/// Section 6.1: the client's offset within its own idea of the list, carried over to the real one.
fn position_of_offset(offset: u32, count: u32, length: usize) -> Option<usize> {
    let (offset, count) = (offset as usize, count as usize);
    match offset {
        0 => None,
        1 => Some(1),
        _ if count == 0 || count == length => Some(offset.min(length + 1)),
        _ if offset >= count => Some(length.max(1)),
        _ => Some((length * offset / count).max(1)),
    }
}

fn around(position: usize, before: usize, after: usize, length: usize) -> Window {
    let target = position - 1;
    let start = target.saturating_sub(before).min(length);
    let end = target.saturating_add(after).saturating_add(1).min(length).max(start);
    Window { position: u32::try_from(position).unwrap_or(u32::MAX), range: start..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_scale_with_the_client_s_idea_of_the_list() {
        assert_eq!(position_of_offset(0, 0, 10), None);
        assert_eq!(position_of_offset(1, 500, 10), Some(1));
        assert_eq!(position_of_offset(500, 500, 10), Some(10));
        assert_eq!(position_of_offset(250, 500, 10), Some(5));
        assert_eq!(position_of_offset(7, 0, 10), Some(7));
        assert_eq!(position_of_offset(99, 0, 10), Some(11));
        assert_eq!(position_of_offset(3, 9, 0), Some(1));
    }

    #[test]
    fn windows_stay_inside_the_list() {
        assert_eq!(around(1, 5, 2, 10), Window { position: 1, range: 0..3 });
        assert_eq!(around(10, 2, 5, 10), Window { position: 10, range: 7..10 });
        assert_eq!(around(11, 2, 5, 10), Window { position: 11, range: 8..10 });
        assert_eq!(around(1, 0, 0, 0), Window { position: 1, range: 0..0 });
    }
}
