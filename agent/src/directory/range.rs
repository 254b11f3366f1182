//! Ranged retrieval of long value lists (MS-ADTS 3.1.1.3.1.3.3).

use super::connection::Connection;
use super::entry::{Attribute, Entry};
use super::error::DirectoryError;
use super::limits;
use super::message::SearchRequest;

/// Every value of one attribute of `entry`: those in it and, where the server sent only a range, the rest.
///
/// # Errors
/// When the server fails, or its ranges make no progress.
pub async fn all_values(
    connection: &mut Connection,
    entry: &Entry,
    attribute: &str,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), DirectoryError> {
    let mut next = take(entry, attribute, each);
    let mut total = 0;
    while let Some(start) = next {
        total += 1;
        let wanted = format!("{attribute};range={start}-*");
        let request = SearchRequest::read(entry.dn().into_owned(), &[&wanted]);
        let Some(part) = connection.read(&request).await? else { return Ok(()) };
        next = take(&part, attribute, each);
        let stuck = next.is_some_and(|end| end <= start);
        if stuck || start > limits::RANGED_VALUES_MAX as u64 || total > limits::RANGED_VALUES_MAX {
            let server = connection.server().clone();
            return Err(DirectoryError::misbehaved(
                &server,
                "search",
                format!("ranges of {attribute} without end"),
            ));
        }
    }
    Ok(())
}

/// Whether the entry holds only a part of the attribute's values.
pub fn is_partial(entry: &Entry, attribute: &str) -> bool {
    entry.attributes().any(|found| is_of(&found, attribute) && matches!(found.range(), Some((_, Some(_)))))
}

fn is_of(found: &Attribute<'_>, attribute: &str) -> bool {
    found.base().eq_ignore_ascii_case(attribute)
}

/// Feeds the values in this entry; where more follow, says the index of the next.
fn take(entry: &Entry, attribute: &str, each: &mut (dyn FnMut(&[u8]) + Send)) -> Option<u64> {
    let mut next = None;
    for found in entry.attributes().filter(|found| is_of(found, attribute)) {
        found.values().for_each(&mut *each);
        if let Some((_, Some(high))) = found.range() {
            next = Some(high + 1);
        }
    }
    next
}
