//! Changes by a retro changelog (draft-good-ldap-changelog): entries below `cn=changelog`, numbered by one server.

use std::collections::HashSet;

use super::changes::Changes;
use super::error::SyncError;
use super::source::{Members, Source};
use super::state::Cursor;
use crate::directory::discover::RootDse;
use crate::directory::dn;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::message::SearchRequest;
use crate::directory::page::Item;

const NAME: &str = "changelog";

/// Where it is unless the rootDSE says otherwise (draft-good-ldap-changelog 3).
const CHANGELOG: &str = "cn=changelog";

/// The last change right now. Must be taken before anything is read.
pub(super) async fn start(source: &Source) -> Result<Cursor, SyncError> {
    let mut lent = source.connection().await?;
    let root = RootDse::read(&mut lent).await?;
    let unusable = |problem: &str| DirectoryError::misbehaved(source.server.name(), "search", problem);
    let number = root.last_change.ok_or_else(|| unusable("no lastChangeNumber"))?;
    // 389-ds tells everybody its numbers, and who may not read the changes finds none, without an error.
    let base = root.changelog.as_deref().unwrap_or(CHANGELOG);
    if lent.read(&SearchRequest::read(base, &["1.1"])).await?.is_none() {
        return Err(unusable("the changelog is not shown to this account").into());
    }
    Ok(Cursor::Changelog { server: source.server.name().to_string(), number })
}

/// Everything since the cursor.
pub(super) async fn changes(
    source: &Source,
    server: &str,
    number: u64,
) -> Result<(Changes, Cursor), SyncError> {
    // Every server numbers its own changes.
    if server != &**source.server.name() {
        return Err(lost("it was made by another server"));
    }
    let mut lent = source.connection().await?;
    let root = RootDse::read(&mut lent).await?;
    drop(lent);
    let (first, last) = (root.first_change.unwrap_or(0), root.last_change.unwrap_or(0));
    if last < number || (first > number + 1 && last > number) {
        return Err(lost("the server has trimmed or restarted its changelog"));
    }
    let next = Cursor::Changelog { server: server.to_owned(), number: last };
    let mut changes = Changes::default();
    if last == number {
        return Ok((changes, next));
    }
    let (mut ids, mut names, mut found) = (HashSet::new(), Vec::new(), false);
    let base = root.changelog.unwrap_or_else(|| CHANGELOG.to_owned());
    let filter = Filter::all([
        Filter::at_least("changeNumber", (number + 1).to_string()),
        Filter::at_most("changeNumber", last.to_string()),
    ]);
    let id_attribute = format!("target{}", capitalised(&source.mapper.personality().id.attribute));
    let attributes = ["changeNumber", "targetDn", "newRDN", "newSuperior", &id_attribute, "targetUniqueId"];
    let mut chunks = source.subtree(&base, filter, &attributes).await?;
    loop {
        let chunk = chunks.next().await?;
        for item in &chunk.items {
            let Item::Entry(entry, _) = item else { continue };
            found = true;
            let id = [id_attribute.as_str(), "targetUniqueId"]
                .iter()
                .find_map(|name| source.mapper.codec().decode(entry.first(name)?));
            match (id, entry.text("targetDn")) {
                (Some(id), _) => {
                    ids.insert(id);
                }
                (None, Some(name)) => {
                    names.push(renamed(&name, entry.text("newRDN"), entry.text("newSuperior")))
                }
                (None, None) => {}
            }
        }
        if ids.len() + names.len() > super::limits::CHANGES_MAX {
            return Err(SyncError::TooManyChanges { limit: super::limits::CHANGES_MAX });
        }
        if chunk.done.is_some() {
            break;
        }
    }
    if !found {
        return Err(lost("there are changes, and none is shown to this account"));
    }
    let ids: Vec<ObjectId> = ids.into_iter().collect();
    changes.read(source, &ids, Members::Read).await?;
    for name in names {
        changes.read_named(source, &name).await?;
    }
    Ok((changes, next))
}

impl Changes {
    /// An object known by its name only. If there is none of that name any more, only a comparison of ids can tell who
    /// it was.
    async fn read_named(&mut self, source: &Source, name: &str) -> Result<(), SyncError> {
        let mut found = Vec::new();
        match source.gather(name, source.scope.any_kind(), Members::Read, &mut found).await {
            Ok(()) => found.into_iter().try_for_each(|whole| self.upsert(whole)),
            Err(SyncError::Directory { source: error })
                if error.result_code() == Some(crate::directory::message::ResultCode::NO_SUCH_OBJECT) =>
            {
                self.reconcile = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Where an object is after a modifyDN.
fn renamed<'a>(
    name: &str,
    rdn: Option<std::borrow::Cow<'a, str>>,
    superior: Option<std::borrow::Cow<'a, str>>,
) -> String {
    let Some(rdn) = rdn else { return name.to_owned() };
    let parent = superior.as_deref().or_else(|| dn::parent(name));
    match parent {
        Some(parent) => format!("{rdn},{parent}"),
        None => rdn.into_owned(),
    }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn lost(reason: &str) -> SyncError {
    SyncError::CursorLost { strategy: NAME, reason: reason.to_owned() }
}
