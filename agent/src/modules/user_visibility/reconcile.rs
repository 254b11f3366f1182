//! Comparing ids and names only: finds what history does not tell, such as an object that stopped matching a filter.

use std::collections::HashSet;

use super::changes::Changes;
use super::error::SyncError;
use super::limits;
use super::source::{Members, Source};
use super::state::{State, Store};
use crate::directory::dn::NameHash;
use crate::directory::guid::ObjectId;
use crate::directory::page::Item;

/// Adds to `changes` what is in scope and unknown, what has another name, and what is known and not in scope any more.
pub(super) async fn compare(
    source: &Source,
    store: &Store,
    state: &State,
    changes: &mut Changes,
) -> Result<(), SyncError> {
    let attribute = source.mapper.personality().id.attribute.clone();
    let mut seen: HashSet<ObjectId> = HashSet::new();
    let mut read = Vec::new();
    for base in &source.scope.bases {
        let mut chunks = source.subtree(base, source.scope.any_kind(), &[&attribute]).await?;
        loop {
            let chunk = chunks.next().await?;
            let mut page = Vec::with_capacity(chunk.items.len());
            for item in &chunk.items {
                let Item::Entry(entry, _) = item else { continue };
                let name = entry.dn();
                if let Some(id) = source.mapper.id(entry).filter(|_| source.scope.holds(&name)) {
                    page.push((id, NameHash::of_dn(&name)));
                }
            }
            let ids: Vec<ObjectId> = page.iter().map(|(id, _)| *id).collect();
            let rows = store.rows(state.generation, &ids).await?;
            for ((id, name), row) in page.into_iter().zip(rows) {
                seen.insert(id);
                if row.is_none_or(|row| row.name != name) && !changes.upserts.contains_key(&id) {
                    read.push(id);
                }
            }
            if read.len() > limits::CHANGES_MAX {
                return Err(SyncError::TooManyChanges { limit: limits::CHANGES_MAX });
            }
            // Only a search that came to its end is evidence; every other way out of here is an error.
            if chunk.done.is_some() {
                break;
            }
        }
    }
    changes.read(source, &read, Members::Read).await?;
    let mut last = None;
    loop {
        let page = store.objects_after(state.generation, last).await?;
        let Some((id, _)) = page.last() else { return Ok(()) };
        last = Some(*id);
        for (id, _) in page.into_iter().filter(|(id, _)| !seen.contains(id)) {
            if !changes.upserts.contains_key(&id) {
                changes.delete(id)?;
            }
        }
    }
}
