//! Where mailboxes are, as the directory's global catalog says it: one search over the forest in place of a cmdlet for
//! each database, which would read every mailbox and count against the account's budget. Exchange 2007 is asked mailbox by
//! mailbox, so there it also spares the mailboxes of others.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::config::Scope;
use crate::directory::controls::PAGED;
use crate::directory::discover::RootDse;
use crate::directory::dn::leaf_value;
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::message::SearchRequest;
use crate::directory::page::{Chunks, Item, Paging};
use crate::directory::servers::Server;
use crate::directory::{Directory, Net};

/// What is read of each mailbox; the schema marks all of it for the global catalog.
const ATTRIBUTES: [&str; 3] = ["objectGUID", "homeMDB", "msExchHomeServerName"];

/// Ids of the mailboxes on the servers and in the databases of a scope. Sixteen bytes each are kept.
pub(super) async fn in_scope(
    catalog: &Arc<Directory>,
    net: &Net,
    scope: &Scope,
) -> Result<HashSet<Uuid>, DirectoryError> {
    let mut last = DirectoryError::NoServer { domain: catalog.name().to_owned() };
    for server in catalog.candidates(net).await? {
        match read(catalog, net, &server, scope).await {
            Ok(found) => return Ok(found),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn read(
    catalog: &Arc<Directory>,
    net: &Net,
    server: &Arc<Server>,
    scope: &Scope,
) -> Result<HashSet<Uuid>, DirectoryError> {
    let mut lent = catalog.searcher(net, server).await?;
    let root = RootDse::read(&mut lent).await?;
    let filter = Filter::all([Filter::equals("objectCategory", "person"), Filter::present("homeMDB")]);
    let mut request = SearchRequest::subtree(catalog.base(&root), filter, &ATTRIBUTES);
    request.controls = Directory::search_controls(&root);
    let pages = Paging::Pages(catalog.settings().page_size);
    let mut chunks = Chunks::start(lent, request, if root.supports(PAGED) { pages } else { Paging::Whole });
    let mut found = HashSet::new();
    loop {
        let chunk = chunks.next().await?;
        let entries = chunk.items.iter().filter_map(|item| match item {
            Item::Entry(entry, _) => Some(entry),
            Item::Intermediate(..) => None,
        });
        found.extend(entries.filter(|entry| is_in(entry, scope)).filter_map(id));
        if chunk.done.is_some() {
            return Ok(found);
        }
    }
}

/// Exchange calls a mailbox by its object's id.
fn id(entry: &Entry) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(entry.first("objectGUID")?.try_into().ok()?))
}

fn is_in(entry: &Entry, scope: &Scope) -> bool {
    let database = entry.text("homeMDB").map(|dn| leaf_value(&dn).to_lowercase());
    // `/o=Acme/ou=.../cn=Configuration/cn=Servers/cn=MAIL1`
    let server = entry.text("msExchHomeServerName").and_then(|name| {
        let (_, last) = name.rsplit_once('/')?;
        Some(last.split_once('=')?.1.to_lowercase())
    });
    let any = |wanted: &[String], found: Option<String>, short: bool| {
        wanted.is_empty()
            || wanted.iter().map(|wanted| wanted.to_lowercase()).any(|wanted| {
                let wanted = if short { wanted.split('.').next() } else { Some(&*wanted) };
                wanted == found.as_deref()
            })
    };
    any(&scope.databases, database, false) && any(&scope.servers, server, true)
}
