//! Changes by polling uSNChanged ("Polling for Changes Using USNChanged"). The numbers belong to one database of one
//! domain controller, named by its invocationId; another one, or a restored one, makes the cursor void.

use std::collections::HashSet;

use super::changes::Changes;
use super::error::SyncError;
use super::source::{Members, Source};
use super::state::Cursor;
use crate::directory::controls::{SHOW_DELETED, paged};
use crate::directory::discover::RootDse;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::message::{Control, Scope, SearchRequest};
use crate::directory::page::{Chunks, Item};
use crate::directory::personality::Personality;

const NAME: &str = "usn";

/// The place in this server's history right now. Must be taken before anything is read.
pub(super) async fn start(source: &Source) -> Result<Cursor, SyncError> {
    let mut lent = source.connection().await?;
    let root = RootDse::read(&mut lent).await?;
    let misbehaved = |problem: &str| DirectoryError::misbehaved(source.server.name(), "search", problem);
    let usn = root.highest_usn.ok_or_else(|| misbehaved("no highestCommittedUSN"))?;
    let service = root.service_name.ok_or_else(|| misbehaved("no dsServiceName"))?;
    let settings = lent.read(&SearchRequest::read(service, &["invocationId"])).await?;
    let invocation = settings
        .as_ref()
        .and_then(|entry| entry.first("invocationId"))
        .map(|id| id.iter().map(|octet| format!("{octet:02x}")).collect())
        .ok_or_else(|| misbehaved("no readable invocationId"))?;
    Ok(Cursor::Usn { invocation, usn })
}

/// Everything between the cursor and now.
pub(super) async fn changes(
    source: &Source,
    invocation: &str,
    usn: u64,
) -> Result<(Changes, Cursor), SyncError> {
    let next = start(source).await?;
    let Cursor::Usn { invocation: now, usn: until } = &next else {
        return Err(lost("it is of another kind"));
    };
    if now != invocation {
        return Err(lost("the domain controller or its database is another one"));
    }
    let mut changes = Changes::default();
    if *until <= usn {
        return Ok((changes, next));
    }
    let between = [
        Filter::at_least("uSNChanged", (usn + 1).to_string()),
        Filter::at_most("uSNChanged", until.to_string()),
    ];
    let personality = source.mapper.personality();
    let kinds = Personality::filter(&personality.change_filter);
    let filter = Filter::all([vec![kinds], between.to_vec()].concat());
    // Below the directory's base and not the scope's, so that a move out of scope is seen.
    let changed =
        ids(source, source.subtree(&source.base, filter, &[&personality.id.attribute]).await?).await?;
    let changed: Vec<ObjectId> = changed.into_iter().collect();
    changes.read(source, &changed, Members::Read).await?;
    if deleted_objects_visible(source).await? {
        let filter = Filter::all([vec![Filter::equals("isDeleted", "TRUE")], between.to_vec()].concat());
        let mut request = SearchRequest::subtree(
            deleted_objects(source),
            filter,
            &[&personality.id.attribute, "isDeleted"],
        );
        request.controls = source.controls();
        let request = request.with(Control::bare(SHOW_DELETED, true));
        let page = crate::directory::page::Paging::Pages(source.directory.settings().page_size);
        for id in ids(source, source.chunks(request, page).await?).await? {
            changes.delete(id)?;
        }
    } else {
        changes.reconcile = true;
    }
    Ok((changes, next))
}

async fn ids(source: &Source, mut chunks: Chunks) -> Result<HashSet<ObjectId>, SyncError> {
    let mut found = HashSet::new();
    loop {
        let chunk = chunks.next().await?;
        for item in &chunk.items {
            if let Item::Entry(entry, _) = item {
                found.extend(source.mapper.id(entry));
            }
        }
        if found.len() > super::limits::CHANGES_MAX {
            return Err(SyncError::TooManyChanges { limit: super::limits::CHANGES_MAX });
        }
        if chunk.done.is_some() {
            return Ok(found);
        }
    }
}

/// Whether the service account may list what was deleted. By default only administrators may; others see the container's
/// name and nothing in it. The container inherits nothing, and its security descriptor gives reading it and listing it
/// together (MS-ADTS 6.1.1.4.2; `dsacls /g account:LCRP`), so an attribute of it proves the right; and so does a tombstone,
/// for whoever may list it and not read it. Whatever is missed all the same, the next comparison of ids finds.
pub(super) async fn deleted_objects_visible(source: &Source) -> Result<bool, SyncError> {
    let mut lent = source.connection().await?;
    let container =
        SearchRequest::read(deleted_objects(source), &["name"]).with(Control::bare(SHOW_DELETED, true));
    match lent.read(&container).await {
        Ok(Some(container)) if container.first("name").is_some() => return Ok(true),
        Err(error) if error.result_code().is_none_or(|code| code.is_passing()) => return Err(error.into()),
        _ => {}
    }
    let filter = Filter::equals("isDeleted", "TRUE");
    let request = SearchRequest {
        scope: Scope::OneLevel,
        ..SearchRequest::subtree(deleted_objects(source), filter, &["1.1"])
    };
    let request = request.with(Control::bare(SHOW_DELETED, true)).with(paged(1, b"", true));
    match lent.search(&request, 1).await {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) if error.result_code().is_some_and(|code| !code.is_passing()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn deleted_objects(source: &Source) -> String {
    format!("CN=Deleted Objects,{}", source.naming_context())
}

fn lost(reason: &str) -> SyncError {
    SyncError::CursorLost { strategy: NAME, reason: reason.to_owned() }
}
