//! Changes by the DirSync control (MS-ADTS 3.1.1.3.4.1.3). The cookie holds a vector over all domain controllers, so it
//! survives a change of server; a server that lags delivers later, and never loses.

use std::collections::HashSet;

use super::changes::Changes;
use super::error::SyncError;
use super::mapping::member_name;
use super::source::{Members, Source};
use super::state::{Cursor, State, Store};
use crate::directory::controls::{DIRSYNC, DIRSYNC_INCREMENTAL_VALUES, dirsync, dirsync_answer};
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::message::SearchRequest;
use crate::directory::page::{Item, Paging};
use crate::directory::personality::Personality;

const NAME: &str = "dirsync";

/// Rounds of "there is more" in one run: at some thousand objects each, more than any forest has.
const ROUNDS_MAX: u32 = 100_000;

/// The place in history right now, without reading it: a filter that nothing matches moves the cookie along.
pub(super) async fn start(source: &Source) -> Result<Cursor, SyncError> {
    let nobody = Filter::equals(&source.mapper.personality().id.attribute, [0; 16]);
    let context = source.naming_context();
    let cookie = rounds(source, &context, &nobody, &["objectGUID"], Vec::new(), |_| Ok(())).await?;
    Ok(Cursor::Dirsync { context, cookie })
}

/// Everything since the cookie.
pub(super) async fn changes(
    source: &Source,
    store: &Store,
    state: &State,
    context: &str,
    cookie: &[u8],
) -> Result<(Changes, Cursor), SyncError> {
    if context != source.naming_context() {
        return Err(lost("it belongs to another naming context"));
    }
    let filter = Personality::filter(&source.mapper.personality().change_filter);
    let mut attributes = source.attributes(true);
    // cn is not reported when it changes; name and parentGUID are.
    attributes.extend(["name", "isDeleted"]);
    let mut changes = Changes::default();
    let mut changed = HashSet::new();
    let mut listed = HashSet::new();
    let next = rounds(source, context, &filter, &attributes, cookie.to_vec(), |entry| {
        let Some(id) = source.mapper.id(entry) else { return Ok(()) };
        if entry.text("isDeleted").is_some_and(|flag| flag.eq_ignore_ascii_case("TRUE")) {
            changed.remove(&id);
            return changes.delete(id);
        }
        changed.insert(id);
        members_of(source, entry, id, &mut changes, &mut listed);
        if changed.len() > super::limits::CHANGES_MAX {
            return Err(SyncError::TooManyChanges { limit: super::limits::CHANGES_MAX });
        }
        Ok(())
    })
    .await?;
    // A delta names attributes, not objects: what changed is read again in full. Members only of groups that are new
    // to us, or whose server does not tell them one by one.
    let ids: Vec<ObjectId> = changed.into_iter().collect();
    let rows = store.rows(state.generation, &ids).await?;
    let known: HashSet<ObjectId> = ids
        .iter()
        .zip(rows)
        .filter(|(id, row)| row.is_some() && !listed.contains(*id))
        .map(|(id, _)| *id)
        .collect();
    changes.read(source, &ids, Members::ReadUnless(&known)).await?;
    let read: Vec<ObjectId> =
        changes.upserts.iter().filter(|(_, whole)| whole.members.is_some()).map(|(id, _)| *id).collect();
    read.iter().for_each(|id| {
        changes.edits.remove(id);
    });
    Ok((changes, Cursor::Dirsync { context: context.to_owned(), cookie: next }))
}

/// Reads added values (`member;range=1-1`) and removed ones (`member;range=0-0`); both may occur several times.
fn members_of(
    source: &Source,
    entry: &Entry,
    id: ObjectId,
    changes: &mut Changes,
    listed: &mut HashSet<ObjectId>,
) {
    for (attribute, names) in source.mapper.member_attributes() {
        for found in entry.attributes().filter(|found| found.base().eq_ignore_ascii_case(attribute)) {
            match found.range() {
                Some((1, Some(1))) | Some((0, Some(0))) => {
                    let added = found.range() == Some((1, Some(1)));
                    let edits = changes.edits.entry(id).or_default();
                    edits.extend(found.values().map(|value| (member_name(names, value), added)));
                }
                // The whole list, from a server that knows no increments.
                _ => {
                    listed.insert(id);
                }
            }
        }
    }
}

async fn rounds(
    source: &Source,
    context: &str,
    filter: &Filter,
    attributes: &[&str],
    mut cookie: Vec<u8>,
    mut each: impl FnMut(&Entry) -> Result<(), SyncError>,
) -> Result<Vec<u8>, SyncError> {
    for _ in 0..ROUNDS_MAX {
        let control = dirsync(DIRSYNC_INCREMENTAL_VALUES, i32::MAX, &cookie);
        let request = SearchRequest::subtree(context, filter.clone(), attributes).with(control);
        let mut chunks = source.chunks(request, Paging::Whole).await?;
        let done = loop {
            let chunk = chunks.next().await.map_err(|error| cursor_error(error, !cookie.is_empty()))?;
            for item in &chunk.items {
                if let Item::Entry(entry, _) = item {
                    each(entry)?;
                }
            }
            if let Some(done) = chunk.done {
                break done;
            }
        };
        let answer = done
            .control(DIRSYNC)
            .and_then(|control| control.value.as_ref())
            .and_then(|value| dirsync_answer(value).ok());
        let Some((more, next)) = answer else {
            return Err(
                DirectoryError::misbehaved(source.server.name(), "search", "no DirSync cookie").into()
            );
        };
        cookie = next.to_vec();
        if !more {
            return Ok(cookie);
        }
    }
    Err(DirectoryError::misbehaved(source.server.name(), "search", "DirSync without end").into())
}

/// Any refusal of a request with a cookie means that the cookie is not good any more; what the server says differs.
fn cursor_error(error: DirectoryError, has_cookie: bool) -> SyncError {
    match error.result_code() {
        Some(code) if has_cookie && !code.is_passing() => lost(&error.to_string()),
        _ => error.into(),
    }
}

fn lost(reason: &str) -> SyncError {
    SyncError::CursorLost { strategy: NAME, reason: reason.to_owned() }
}
