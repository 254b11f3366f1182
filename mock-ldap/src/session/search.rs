//! Search: which kind of search the controls make it, limits, sorting and paging.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;

use super::fault::{self, Twist};
use super::page::{CookieError, PageSet, QueryPrint};
use super::run::{Items, Run, Tail};
use super::{Call, Session, virtual_list};
use crate::controls::{self, Controls, SortKey};
use crate::dit::{
    EntryId, ExtendedDn, Identity, LdapFailure, Matches, ResultCode, Scope, SearchPlan, Selection, View,
};
use crate::message::{Request, ResponseControl, SearchRequest};
use crate::personality::{PageMode, Vendor};

/// unwillingToPerform from the sort control's own list (RFC 2891 section 1.2).
const SORT_UNWILLING: u32 = 53;
/// sortControlMissing of the VLV draft.
pub(super) const SORT_CONTROL_MISSING: ResultCode = ResultCode(60);

impl Session {
    pub(super) fn search(
        &mut self,
        mut call: Call,
        search: &SearchRequest<'_>,
        request: &Request<'_>,
        controls: &Controls<'_>,
        twist: Twist,
    ) {
        call.detail = describe(search, controls);
        let outcome = if let Some(count) = twist.entry_with_values {
            let mut body = BytesMut::new();
            fault::put_entry_with_values(&mut body, &call.subject, count);
            let items = Items::Bodies(vec![body.freeze()]);
            Ok(Run::new(call.clone(), items, Arc::default(), Tail::done(None, Vec::new())))
        } else if search.base.is_empty() && search.scope == Scope::Base {
            Ok(self.root_dse(&call, search, controls))
        } else if controls.sync.is_some() {
            self.sync_search(&call, search, controls)
        } else if controls.dirsync.is_some() {
            self.dirsync_search(&call, search, controls)
        } else if controls.notification || controls.persistent.is_some() {
            self.watching_search(&call, search, controls)
        } else {
            self.entry_search(&call, search, request, controls, twist)
        };
        match outcome {
            Ok(mut run) => {
                run.twist = twist;
                run.deadline_ms = self.deadline_ms(search.time_limit_secs);
                self.running.push_back(run);
            }
            Err(refusal) => self.finish(&call, Some(&refusal.failure), &refusal.controls),
        }
    }

    pub(super) fn selection(&self, search: &SearchRequest<'_>, controls: &Controls<'_>) -> Arc<Selection> {
        let names = search.attributes.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        let mut selection = Selection::new(names.collect());
        selection.types_only = search.types_only;
        selection.extended_dn =
            controls.extended_dn.map(|text| if text { ExtendedDn::Text } else { ExtendedDn::Hex });
        selection.view = self.front.view;
        selection.values_max = self.shared.effective.load().limits.values_max;
        selection.range_no_error = controls.range_no_error;
        selection.base_scope = search.scope == Scope::Base && controls.asq.is_none();
        selection.who = self.who.clone();
        Arc::new(selection)
    }

    fn root_dse(&self, call: &Call, search: &SearchRequest<'_>, controls: &Controls<'_>) -> Run {
        let selection = self.selection(search, controls);
        let mut bodies = Vec::new();
        if self.replica.root_dse_matches(&search.filter) {
            let mut body = BytesMut::new();
            self.replica.root_dse(&selection, self.wire.is_tls(), &mut body);
            bodies.push(body.freeze());
        }
        Run::new(call.clone(), Items::Bodies(bodies), selection, Tail::done(None, Vec::new()))
    }

    fn dirsync_search(
        &self,
        call: &Call,
        search: &SearchRequest<'_>,
        controls: &Controls<'_>,
    ) -> Result<Run, Refusal> {
        let Some(dirsync) = &controls.dirsync else { return Err(unwilling("")) };
        if controls.paged.is_some() || controls.vlv.is_some() || self.front.view == View::GlobalCatalog {
            return Err(unwilling(""));
        }
        let selection = self.selection(search, controls);
        let page = self.replica.dirsync(&crate::dit::DirSyncRequest {
            who: &self.who,
            base: search.base,
            scope: search.scope,
            filter: &search.filter,
            selection: &selection,
            flags: dirsync.flags,
            bytes_max: dirsync.max_bytes as usize,
            cookie: dirsync.cookie,
        })?;
        let response = controls::dirsync_response(page.more, &page.cookie);
        Ok(Run::new(call.clone(), Items::Bodies(page.entries), selection, Tail::done(None, vec![response])))
    }

    /// A search for entries as they are: plain, sorted, paged, or through a virtual list.
    fn entry_search(
        &mut self,
        call: &Call,
        search: &SearchRequest<'_>,
        request: &Request<'_>,
        controls: &Controls<'_>,
        twist: Twist,
    ) -> Result<Run, Refusal> {
        if controls.paged.is_some() && controls.vlv.is_some() {
            return Err(unwilling(""));
        }
        let selection = self.selection(search, controls);
        let query = QueryPrint::of(request, search.encoded);
        let mut page_size = None;
        if let Some(paged) = &controls.paged {
            if !paged.cookie.is_empty() && twist.refuse_cookie {
                return Err(self.cookie_refused());
            }
            if !paged.cookie.is_empty() {
                return self.next_page(call, search, controls, query, selection);
            }
            // A page as large as the size limit makes paging pointless (RFC 2696 section 3).
            let pointless = search.size_limit != 0 && paged.size >= search.size_limit;
            page_size = (!pointless && paged.size > 0).then_some(paged.size as usize);
        }
        let mut matches = self.find(search, controls, page_size.is_some())?;
        let mut responses = Vec::new();
        if let Some(keys) = &controls.sort {
            responses.push(self.sort(&mut matches.ids, keys, controls.sort_critical)?);
        }
        if let Some(vlv) = &controls.vlv {
            let keys = controls.sort.as_deref().ok_or_else(virtual_list::sort_missing)?;
            let window = virtual_list::window(&self.replica, &matches.ids, keys, vlv)?;
            responses.push(controls::vlv_response(window.position, matches.ids.len() as u32, 0));
            matches.ids = matches.ids[window.range].to_vec();
        }
        if let Some(first) = matches.ids.first() {
            self.replica.check_selection(*first, &selection)?;
        }
        let found = PageSet::first(matches.ids, matches.truncated, query);
        let mut run = match page_size {
            Some(size) => self.cut_page(call, found, size, selection, responses),
            None => {
                if controls.paged.is_some() {
                    responses.push(controls::paged_response(0, b""));
                }
                let failure = found.truncated.then(size_limit_exceeded);
                let end = found.ids.len();
                Run::new(
                    call.clone(),
                    Items::Entries { ids: found.ids, end },
                    selection,
                    Tail::done(failure, responses),
                )
            }
        };
        run.references = matches.references;
        Ok(run)
    }

    fn find(
        &self,
        search: &SearchRequest<'_>,
        controls: &Controls<'_>,
        paged: bool,
    ) -> Result<Matches, LdapFailure> {
        self.replica.search(&SearchPlan {
            base: search.base,
            scope: search.scope,
            filter: &search.filter,
            view: self.front.view,
            who: &self.who,
            show_deleted: controls.show_deleted,
            domain_scope: controls.domain_scope,
            phantom_root: controls.phantom_root,
            attribute_scope: controls.asq.as_deref(),
            count_max: self.count_max(search.size_limit as usize, paged),
        })
    }

    /// How many entries the whole search may return.
    fn count_max(&self, asked: usize, paged: bool) -> usize {
        let limits = &self.shared.effective.load().limits;
        let unlimited = self.is_exempt_from_limits();
        let administrative = match self.directory.personality().page_mode {
            PageMode::Capped if paged => 0,
            PageMode::Capped => limits.page_size_max,
            PageMode::CountedTotal | PageMode::None if unlimited => 0,
            PageMode::CountedTotal | PageMode::None => limits.size_limit,
        };
        let bounds = [asked, administrative];
        bounds.into_iter().filter(|bound| *bound > 0).min().unwrap_or(usize::MAX)
    }

    /// The manager always; the service account because an administrator who lets a program read a directory lifts
    /// the size limit for it (slapd.conf `limits`, nsSizeLimit).
    fn is_exempt_from_limits(&self) -> bool {
        match &self.who {
            Identity::Manager { .. } => true,
            Identity::Anonymous => false,
            Identity::Entry { dn, .. } => {
                self.shared.effective.load().service_size_unlimited && *dn == self.shared.service_dn()
            }
        }
    }

    fn next_page(
        &mut self,
        call: &Call,
        search: &SearchRequest<'_>,
        controls: &Controls<'_>,
        query: QueryPrint,
        selection: Arc<Selection>,
    ) -> Result<Run, Refusal> {
        let Some(paged) = &controls.paged else { return Err(unwilling("")) };
        if paged.size == 0 {
            self.pages.release(paged.cookie);
            let done = Tail::done(None, vec![controls::paged_response(0, b"")]);
            return Ok(Run::new(call.clone(), Items::Bodies(Vec::new()), selection, done));
        }
        let set = self.pages.take(paged.cookie, query).map_err(|error| {
            tracing::debug!(?error, base = %String::from_utf8_lossy(search.base), "Paging cookie refused");
            match error {
                CookieError::Unknown | CookieError::OtherQuery => self.cookie_refused(),
            }
        })?;
        let sorted = controls.sort.as_ref().map(|_| controls::sort_response(0, None));
        Ok(self.cut_page(call, set, paged.size as usize, selection, sorted.into_iter().collect()))
    }

    fn cookie_refused(&self) -> Refusal {
        unwilling(&self.directory.personality().text("cookie_refused", &[]))
    }

    /// Answers one page of a result set and keeps the rest.
    fn cut_page(
        &mut self,
        call: &Call,
        set: PageSet,
        size: usize,
        selection: Arc<Selection>,
        mut responses: Vec<ResponseControl>,
    ) -> Run {
        let limits = self.shared.effective.load().limits.clone();
        let capped = self.directory.personality().page_mode == PageMode::Capped && limits.page_size_max > 0;
        let size = if capped { size.min(limits.page_size_max) } else { size };
        let (start, total) = (set.next, set.ids.len());
        let end = (start + size).min(total);
        let last = end == total;
        let cookie = if last {
            Vec::new()
        } else {
            let sets_max = limits.result_sets_max;
            self.pages.keep(Arc::clone(&set.ids), end, set.truncated, set.query, sets_max).to_vec()
        };
        responses.insert(0, controls::paged_response(self.page_estimate(total), &cookie));
        let failure = (last && set.truncated).then(size_limit_exceeded);
        let mut run = Run::new(
            call.clone(),
            Items::Entries { ids: set.ids, end },
            selection,
            Tail::done(failure, responses),
        );
        run.next = start;
        run
    }

    /// Active Directory always says 0; others tell what they know.
    fn page_estimate(&self, total: usize) -> u32 {
        match self.directory.personality().vendor {
            Vendor::ActiveDirectory | Vendor::OpenLdap => 0,
            _ => u32::try_from(total).unwrap_or(u32::MAX),
        }
    }

    /// Sorts in place. An order that cannot be made fails the search when the control was critical, and is told in
    /// the response control otherwise.
    fn sort(
        &self,
        ids: &mut [EntryId],
        keys: &[SortKey],
        critical: bool,
    ) -> Result<ResponseControl, Refusal> {
        let single = self.directory.personality().vendor == Vendor::ActiveDirectory;
        let refused = match keys {
            [] => Some((ResultCode::PROTOCOL_ERROR.0, None)),
            [_, _, ..] if single => Some((SORT_UNWILLING, None)),
            _ => {
                let sortable =
                    |key: &SortKey| ids.iter().any(|id| self.replica.sort_key(*id, &key.attribute).is_some());
                let unknown = keys.iter().find(|key| !ids.is_empty() && !sortable(key));
                unknown.map(|key| (ResultCode::NO_SUCH_ATTRIBUTE.0, Some(key.attribute.as_str())))
            }
        };
        if let Some((code, attribute)) = refused {
            let response = controls::sort_response(code, attribute);
            if critical {
                // RFC 2891 asks for unavailableCriticalExtension; these two answer with a reason instead.
                let (code, text) = match self.directory.personality().vendor {
                    Vendor::OpenLdap => {
                        (ResultCode(code), "serverSort control: Unrecognized attribute type in sort key")
                    }
                    Vendor::Ds389 => (ResultCode::UNWILLING_TO_PERFORM, "Sort Response Control"),
                    _ => (ResultCode::UNAVAILABLE_CRITICAL_EXTENSION, ""),
                };
                let failure = LdapFailure::new(code, text);
                return Err(Refusal { failure, controls: vec![response] });
            }
            return Ok(response);
        }
        ids.sort_by_cached_key(|id| {
            keys.iter()
                .map(|key| Ordered::new(self.replica.sort_key(*id, &key.attribute), key.reverse))
                .collect::<Vec<_>>()
        });
        Ok(controls::sort_response(0, None))
    }

    pub(super) fn deadline_ms(&self, asked_secs: u32) -> Option<i64> {
        let administrative = self.shared.effective.load().limits.query_duration_max_secs;
        let bounds = [u64::from(asked_secs), administrative];
        let secs = bounds.into_iter().filter(|bound| *bound > 0).min()?;
        let limit_ms = i64::try_from(secs).ok()?.checked_mul(1_000)?;
        self.shared.cx.clock.now_ms().checked_add(limit_ms)
    }
}

/// One sort key: a missing value is larger than every other (RFC 2891 section 2.2).
#[derive(PartialEq, Eq)]
struct Ordered {
    key: Option<Vec<u8>>,
    reverse: bool,
}

impl Ordered {
    fn new(key: Option<Vec<u8>>, reverse: bool) -> Self {
        Self { key, reverse }
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        let forward = match (&self.key, &other.key) {
            (Some(mine), Some(theirs)) => mine.cmp(theirs),
            (mine, theirs) => mine.is_none().cmp(&theirs.is_none()),
        };
        if self.reverse { forward.reverse() } else { forward }
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A search that ends before its first entry.
pub(super) struct Refusal {
    pub(super) failure: LdapFailure,
    pub(super) controls: Vec<ResponseControl>,
}

impl From<LdapFailure> for Refusal {
    fn from(failure: LdapFailure) -> Self {
        Self { failure, controls: Vec::new() }
    }
}

pub(super) fn unwilling(text: &str) -> Refusal {
    LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text).into()
}

fn size_limit_exceeded() -> LdapFailure {
    LdapFailure::new(ResultCode::SIZE_LIMIT_EXCEEDED, "")
}

/// What the journal tells about a search. Values asserted on passwords stay out of it.
fn describe(search: &SearchRequest<'_>, controls: &Controls<'_>) -> serde_json::Value {
    let scope = match search.scope {
        Scope::Base => "base",
        Scope::OneLevel => "one",
        Scope::Subtree => "sub",
        Scope::Subordinate => "children",
    };
    let kinds = [
        ("paged", controls.paged.is_some()),
        ("sort", controls.sort.is_some()),
        ("vlv", controls.vlv.is_some()),
        ("dirsync", controls.dirsync.is_some()),
        ("sync", controls.sync.is_some()),
        ("persistent", controls.persistent.is_some()),
        ("notification", controls.notification),
        ("show_deleted", controls.show_deleted),
    ];
    let kinds: Vec<_> = kinds.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect();
    json!({
        "scope": scope,
        "filter": super::describe::filter(&search.filter),
        "attributes": search.attributes.len(),
        "controls": kinds,
    })
}
