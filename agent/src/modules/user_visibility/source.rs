//! One server, as the source of one run: what it can do, and how objects are read from it.

use std::sync::Arc;

use aws_lc_rs::digest;
use causeway_protocol::record::Kind;

use super::config::Settings;
use super::error::SyncError;
use super::mapping::{Mapped, Mapper, member_name};
use super::scope::Scope;
use crate::directory::connection::Connection;
use crate::directory::controls::{DIRSYNC, PAGED, SYNC_REQUEST};
use crate::directory::discover::RootDse;
use crate::directory::dn::{self, NameHash};
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::message::{Control, SearchRequest};
use crate::directory::page::{Chunks, Item, Paging};
use crate::directory::personality::Strategy;
use crate::directory::servers::Server;
use crate::directory::{Directory, Net, limits, range};

/// The server of a run.
pub(super) struct Source {
    pub(super) net: Net,
    pub(super) directory: Arc<Directory>,
    pub(super) server: Arc<Server>,
    pub(super) root: RootDse,
    pub(super) mapper: Mapper,
    pub(super) scope: Scope,
    pub(super) base: String,
    groups: bool,
}

/// An object read in full.
pub(super) struct Whole {
    pub(super) mapped: Mapped,
    /// Names of its members, for a group whose members were asked for.
    pub(super) members: Option<Vec<NameHash>>,
}

impl Source {
    /// Connects to a server and learns what it is.
    pub(super) async fn open(
        net: &Net,
        directory: &Arc<Directory>,
        server: &Arc<Server>,
        settings: &Settings,
    ) -> Result<Self, SyncError> {
        let opened = async {
            let mut lent = directory.searcher(net, server).await?;
            let root = RootDse::read(&mut lent).await?;
            if !root.synchronized {
                return Err(DirectoryError::misbehaved(server.name(), "search", "it has not replicated yet"));
            }
            Ok(root)
        };
        let root = directory.note(net, server, opened.await)?;
        let personality = directory.personality(&root);
        let base = directory.base(&root);
        let scope = Scope::new(settings, &personality, &base);
        let mapper = Mapper::new(personality, &settings.attributes);
        Ok(Self {
            net: net.clone(),
            directory: directory.clone(),
            server: server.clone(),
            root,
            mapper,
            scope,
            base,
            groups: settings.groups,
        })
    }

    /// The best way to learn of changes that the personality knows and the server offers.
    pub(super) fn strategy(&self, wanted: Option<Strategy>) -> Strategy {
        self.strategies(wanted).next().unwrap_or(Strategy::Scan)
    }

    /// All ways, best first.
    pub(super) fn strategies(&self, wanted: Option<Strategy>) -> impl Iterator<Item = Strategy> {
        let offered = move |strategy: &Strategy| match strategy {
            Strategy::Dirsync => self.root.supports(DIRSYNC),
            Strategy::Usn => self.root.highest_usn.is_some() && self.root.service_name.is_some(),
            Strategy::Syncrepl => self.root.supports(SYNC_REQUEST),
            Strategy::Changelog => self.root.changelog.is_some() && self.root.last_change.is_some(),
            Strategy::Scan => true,
        };
        let known = self.mapper.personality().strategies.clone();
        wanted.into_iter().chain(known).filter(offered)
    }

    /// Hash of everything that decides which objects exist and what they look like.
    pub(super) fn fingerprint(&self, settings: &Settings) -> String {
        let personality = format!("{:?}", self.mapper.personality());
        let settings = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            settings.directory,
            settings.bases,
            settings.excluded_bases,
            settings.user_filter,
            settings.group_filter,
            settings.groups,
            settings.attributes,
        );
        let text = format!("{personality} {settings} {}", self.base);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        hash.as_ref()[..16].iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Controls of every search.
    pub(super) fn controls(&self) -> Vec<Control> {
        Directory::search_controls(&self.root)
    }

    /// A connection for small searches.
    pub(super) async fn connection(&self) -> Result<crate::directory::servers::Lent, SyncError> {
        Ok(self.directory.searcher(&self.net, &self.server).await?)
    }

    /// Starts reading a subtree.
    pub(super) async fn subtree(
        &self,
        base: &str,
        filter: Filter,
        attributes: &[&str],
    ) -> Result<Chunks, SyncError> {
        let mut request = SearchRequest::subtree(base, filter, attributes);
        request.controls = self.controls();
        self.chunks(request, self.paging()).await
    }

    /// Starts any search on a connection of its own.
    pub(super) async fn chunks(&self, request: SearchRequest, paging: Paging) -> Result<Chunks, SyncError> {
        Ok(Chunks::start(self.connection().await?, request, paging))
    }

    fn paging(&self) -> Paging {
        if self.root.supports(PAGED) {
            Paging::Pages(self.directory.settings().page_size)
        } else {
            Paging::Whole
        }
    }

    /// Attributes of an object without its members, and with them.
    pub(super) fn attributes(&self, members: bool) -> Vec<&str> {
        let mut names: Vec<&str> = self.mapper.attributes.iter().map(String::as_str).collect();
        if members {
            names.extend(self.mapper.member_attributes().map(|(name, _)| name));
        }
        names
    }

    /// Maps an entry that a search in scope has found; `None` when it is not in scope after all.
    pub(super) fn in_scope(&self, entry: &Entry) -> Option<Mapped> {
        if !self.scope.excludes_nothing() && !self.scope.holds(&entry.dn()) {
            return None;
        }
        self.mapper.map(entry)
    }

    /// Names of a group's members, long lists included.
    pub(super) async fn members(
        &self,
        ranges: &mut Option<crate::directory::servers::Lent>,
        entry: &Entry,
    ) -> Result<Vec<NameHash>, SyncError> {
        let mut found = Vec::new();
        for (attribute, names) in self.mapper.member_attributes() {
            let mut each = |value: &[u8]| found.push(member_name(names, value));
            if range::is_partial(entry, attribute) {
                // Beside the search that is under way, on another connection.
                if ranges.is_none() {
                    *ranges = Some(self.connection().await?);
                }
                let connection: &mut Connection = ranges.as_mut().expect("it was just opened");
                range::all_values(connection, entry, attribute, &mut each).await?;
            } else {
                for found in entry.attributes().filter(|found| found.base().eq_ignore_ascii_case(attribute)) {
                    found.values().for_each(&mut each);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Reads objects by id, as far as they are in scope.
    pub(super) async fn read(&self, ids: &[ObjectId], members: Members<'_>) -> Result<Vec<Whole>, SyncError> {
        let mut whole = Vec::with_capacity(ids.len());
        let attribute = self.mapper.personality().id.attribute.clone();
        for batch in ids.chunks(limits::IDS_PER_SEARCH) {
            let one_of =
                batch.iter().map(|id| Filter::equals(&attribute, self.mapper.codec().assertion(*id)));
            let filter = Filter::all([self.scope.any_kind(), Filter::any(one_of)]);
            self.gather(&self.scope.root, filter, members, &mut whole).await?;
        }
        Ok(whole)
    }

    /// Reads every object in scope below a name.
    pub(super) async fn below(&self, base: &str, members: Members<'_>) -> Result<Vec<Whole>, SyncError> {
        let mut whole = Vec::new();
        self.gather(base, self.scope.any_kind(), members, &mut whole).await?;
        Ok(whole)
    }

    /// Reads what a filter finds, in scope.
    pub(super) async fn gather(
        &self,
        base: &str,
        filter: Filter,
        members: Members<'_>,
        into: &mut Vec<Whole>,
    ) -> Result<(), SyncError> {
        let attributes = self.attributes(!matches!(members, Members::Unread));
        let mut chunks = self.subtree(base, filter, &attributes).await?;
        let mut ranges = None;
        loop {
            let chunk = chunks.next().await?;
            for item in &chunk.items {
                let Item::Entry(entry, _) = item else { continue };
                if let Some(whole) = self.whole(entry, members, &mut ranges).await? {
                    into.push(whole);
                }
                if into.len() > super::limits::CHANGES_MAX {
                    return Err(SyncError::TooManyChanges { limit: super::limits::CHANGES_MAX });
                }
            }
            if chunk.done.is_some() {
                return Ok(());
            }
        }
    }

    /// An entry with its members, if it is in scope.
    pub(super) async fn whole(
        &self,
        entry: &Entry,
        members: Members<'_>,
        ranges: &mut Option<crate::directory::servers::Lent>,
    ) -> Result<Option<Whole>, SyncError> {
        if !self.scope.holds(&entry.dn()) {
            return Ok(None);
        }
        let Some(mapped) = self.mapper.map(entry) else { return Ok(None) };
        if mapped.kind() == Kind::Group && !self.groups {
            return Ok(None);
        }
        let wanted = match members {
            Members::Unread => false,
            Members::Read => true,
            Members::ReadUnless(known) => !known.contains(&mapped.id),
        };
        let members = match mapped.kind() {
            Kind::Group if wanted => Some(self.members(ranges, entry).await?),
            _ => None,
        };
        Ok(Some(Whole { mapped, members }))
    }

    /// The head of the naming context that the collection is in: DirSync works on nothing less.
    pub(super) fn naming_context(&self) -> String {
        let base = dn::normal(&self.base);
        let mut holding: Vec<&String> = self
            .root
            .naming_contexts
            .iter()
            .filter(|context| !context.is_empty() && dn::is_within_normal(&base, &dn::normal(context)))
            .collect();
        // The longest is the nearest.
        holding.sort_by_key(|context| std::cmp::Reverse(context.len()));
        holding.first().map_or_else(|| self.base.clone(), |context| (*context).clone())
    }
}

/// Whether members of groups are read.
#[derive(Clone, Copy)]
pub(super) enum Members<'a> {
    Unread,
    Read,
    /// Those of groups not in here.
    ReadUnless(&'a std::collections::HashSet<ObjectId>),
}
