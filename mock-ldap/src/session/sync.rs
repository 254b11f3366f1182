//! Content synchronization (RFC 4533): the refresh stage. Staying in the persist stage is `persist.rs`.

use std::sync::Arc;

use super::persist::{Watch, WatchKind};
use super::run::{Items, Run, SyncItem, Tail};
use super::search::{Refusal, unwilling};
use super::{Call, Session};
use crate::controls::{self, Controls, sync_info};
use crate::dit::{Selection, SyncPhase, SyncRequest};
use crate::limits::SYNC_IDS_PER_MESSAGE_MAX;
use crate::message::SearchRequest;

impl Session {
    pub(super) fn sync_search(
        &mut self,
        call: &Call,
        search: &SearchRequest<'_>,
        controls: &Controls<'_>,
    ) -> Result<Run, Refusal> {
        let Some(asked) = &controls.sync else { return Err(unwilling("")) };
        if controls.paged.is_some() || controls.vlv.is_some() || controls.sort.is_some() {
            return Err(unwilling("content synchronization excludes paging and sorting"));
        }
        if asked.persist {
            self.check_watch_limit(false)?;
        }
        let batch = self.replica.syncrepl(&SyncRequest {
            who: &self.who,
            base: search.base,
            scope: search.scope,
            filter: &search.filter,
            cookie: asked.cookie,
            persist: false,
            reload: asked.reload_hint,
        })?;
        let (ids, deletes) = match batch.phase {
            SyncPhase::Present { present } => (present, false),
            SyncPhase::Delete { deleted } => (deleted, true),
        };
        let mut info: Vec<Vec<u8>> =
            ids.chunks(SYNC_IDS_PER_MESSAGE_MAX).map(|chunk| sync_info::id_set(deletes, chunk)).collect();
        let items =
            batch.entries.into_iter().map(|(id, state, uuid)| SyncItem::Entry(id, state, uuid)).collect();
        let selection = match batch.from_changelog {
            true => Arc::new(Selection { who: self.who.clone(), ..Selection::default() }),
            false => self.selection(search, controls),
        };
        let tail = if asked.persist {
            info.push(sync_info::refresh_done(deletes, &batch.cookie));
            let watch = Watch {
                call: call.clone(),
                kind: WatchKind::Sync { cookie: batch.cookie },
                base: search.base.to_vec(),
                scope: search.scope,
                filter: search.filter.clone(),
                selection: Arc::clone(&selection),
                since: batch.change_number,
                show_deleted: false,
                view: self.front.view,
            };
            Tail::Watch { sync_info: info, watch: Box::new(watch) }
        } else {
            let done = controls::sync_done(&batch.cookie, deletes && !batch.from_changelog);
            Tail::Done { failure: None, sync_info: info, controls: vec![done] }
        };
        Ok(Run::new(call.clone(), Items::Sync(items), selection, tail))
    }
}
