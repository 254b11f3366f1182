//! Changes by content synchronisation (RFC 4533), refreshOnly: changes are looked for as often as the settings say, and
//! nothing is held open meanwhile. OpenLDAP's cookie holds a change number per server of the replicated tree, so it
//! survives a change of server; that of 389-ds does not.

use std::collections::HashSet;

use super::changes::Changes;
use super::error::SyncError;
use super::source::{Members, Source};
use super::state::{Cursor, State, Store};
use crate::directory::controls::{
    SYNC_DONE, SYNC_INFO, SYNC_STATE, SyncInfo, SyncState, sync_done, sync_info, sync_request, sync_state,
};
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::message::{Control, OperationResult, SearchRequest};
use crate::directory::page::{Item, Paging};
use crate::directory::personality::Personality;

const NAME: &str = "syncrepl";

/// The place in history right now. Where the cookie does not depend on the filter, one that nothing matches is enough.
pub(super) async fn start(source: &Source) -> Result<Cursor, SyncError> {
    let filter = if source.mapper.personality().syncrepl_any_filter {
        Filter::equals("entryUUID", "00000000-0000-0000-0000-000000000000")
    } else {
        wanted(source)
    };
    let request =
        SearchRequest::subtree(source.scope.root.as_str(), filter, &["1.1"]).with(sync_request(None));
    let mut chunks = source.chunks(request, Paging::Whole).await?;
    loop {
        if let Some(done) = chunks.next().await?.done {
            let (cookie, _) = done_value(source, &done)?;
            let cookie = cookie.ok_or_else(|| misbehaved(source, "no sync cookie"))?;
            return Ok(Cursor::Syncrepl { cookie });
        }
    }
}

/// What is synchronised. Where the server does not tell what leaves the filter, everything, and we judge for ourselves.
fn wanted(source: &Source) -> Filter {
    let personality = source.mapper.personality();
    if personality.syncrepl_ids_only {
        Personality::filter(&personality.change_filter)
    } else {
        source.scope.any_kind()
    }
}

/// Everything since the cookie.
pub(super) async fn changes(
    source: &Source,
    store: &Store,
    state: &State,
    cookie: &[u8],
) -> Result<(Changes, Cursor), SyncError> {
    let ids_only = source.mapper.personality().syncrepl_ids_only;
    let attributes = if ids_only { vec!["1.1"] } else { source.attributes(true) };
    let request = SearchRequest::subtree(source.scope.root.as_str(), wanted(source), &attributes)
        .with(sync_request(Some(cookie)));
    let mut refresh = Refresh::new(source);
    let mut chunks = source.chunks(request, Paging::Whole).await?;
    let mut ranges = None;
    loop {
        let chunk = chunks.next().await.map_err(cursor_error)?;
        for item in &chunk.items {
            match item {
                Item::Entry(entry, controls) => refresh.entry(entry, controls, &mut ranges).await?,
                Item::Intermediate(name, value) => {
                    if let (Some(SYNC_INFO), Some(value)) = (name.as_deref(), value) {
                        let info =
                            sync_info(value).map_err(|error| misbehaved(source, &error.to_string()))?;
                        refresh.info(info)?;
                    }
                }
            }
        }
        if let Some(done) = chunk.done {
            let (last, deletes) = done_value(source, &done)?;
            if ids_only {
                let ids: Vec<ObjectId> = refresh.changed.drain().collect();
                refresh.changes.read(source, &ids, Members::Read).await?;
            } else if !deletes {
                refresh.sweep(store, state).await?;
            }
            let next = last.or(refresh.cookie).unwrap_or_else(|| cookie.to_vec());
            return Ok((refresh.changes, Cursor::Syncrepl { cookie: next }));
        }
    }
}

struct Refresh<'a> {
    source: &'a Source,
    changes: Changes,
    ids_only: bool,
    /// Objects to read, where the server tells ids only.
    changed: HashSet<ObjectId>,
    /// Objects the server says are unchanged. All others are gone, if it ends with a present phase.
    present: HashSet<ObjectId>,
    cookie: Option<Vec<u8>>,
}

impl<'a> Refresh<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            changes: Changes::default(),
            ids_only: source.mapper.personality().syncrepl_ids_only,
            changed: HashSet::new(),
            present: HashSet::new(),
            cookie: None,
        }
    }

    async fn entry(
        &mut self,
        entry: &Entry,
        controls: &[Control],
        ranges: &mut Option<crate::directory::servers::Lent>,
    ) -> Result<(), SyncError> {
        let state = controls
            .iter()
            .find(|control| control.oid == SYNC_STATE)
            .and_then(|control| control.value.as_ref())
            .and_then(|value| sync_state(value).ok());
        let Some((state, id)) = state else {
            return Err(misbehaved(self.source, "an entry without sync state"));
        };
        let id = ObjectId(id);
        match state {
            SyncState::Present => {
                self.present.insert(id);
                Ok(())
            }
            SyncState::Delete => self.changes.delete(id),
            SyncState::Add | SyncState::Modify if self.ids_only => {
                self.changed.insert(id);
                if self.changed.len() > super::limits::CHANGES_MAX {
                    return Err(SyncError::TooManyChanges { limit: super::limits::CHANGES_MAX });
                }
                Ok(())
            }
            SyncState::Add | SyncState::Modify => {
                match self.source.whole(entry, Members::Read, ranges).await? {
                    Some(whole) => self.changes.upsert(whole),
                    None => self.changes.delete(id),
                }
            }
        }
    }

    fn info(&mut self, info: SyncInfo) -> Result<(), SyncError> {
        match info {
            SyncInfo::IdSet { deletes: true, ids, .. } => {
                ids.into_iter().try_for_each(|id| self.changes.delete(ObjectId(id)))
            }
            SyncInfo::IdSet { ids, .. } => {
                self.present.extend(ids.into_iter().map(ObjectId));
                Ok(())
            }
            SyncInfo::NewCookie(cookie) => {
                self.cookie = Some(cookie.to_vec());
                Ok(())
            }
            SyncInfo::RefreshDelete { cookie, .. } | SyncInfo::RefreshPresent { cookie, .. } => {
                if let Some(cookie) = cookie {
                    self.cookie = Some(cookie.to_vec());
                }
                Ok(())
            }
        }
    }

    /// After a present phase: what was neither changed nor confirmed is gone.
    async fn sweep(&mut self, store: &Store, state: &State) -> Result<(), SyncError> {
        let mut last = None;
        loop {
            let page = store.objects_after(state.generation, last).await?;
            let Some((id, _)) = page.last() else { return Ok(()) };
            last = Some(*id);
            for (id, _) in page {
                if !self.present.contains(&id) && !self.changes.upserts.contains_key(&id) {
                    self.changes.delete(id)?;
                }
            }
        }
    }
}

fn done_value(source: &Source, done: &OperationResult) -> Result<(Option<Vec<u8>>, bool), SyncError> {
    let value = done
        .control(SYNC_DONE)
        .and_then(|control| control.value.as_ref())
        .ok_or_else(|| misbehaved(source, "no sync done control"))?;
    let (cookie, deletes) = sync_done(value).map_err(|error| misbehaved(source, &error.to_string()))?;
    Ok((cookie.map(|cookie| cookie.to_vec()), deletes))
}

/// e-syncRefreshRequired says it in so many words; other refusals of a cookie differ by product.
fn cursor_error(error: DirectoryError) -> SyncError {
    match error.result_code() {
        Some(code) if !code.is_passing() => {
            SyncError::CursorLost { strategy: NAME, reason: error.to_string() }
        }
        _ => error.into(),
    }
}

fn misbehaved(source: &Source, problem: &str) -> SyncError {
    DirectoryError::misbehaved(source.server.name(), "search", problem).into()
}
