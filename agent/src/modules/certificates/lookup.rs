//! What the cloud does not know of a person and a name needs: looked up in the company's directory, which is also the
//! only one believed about security identifiers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::timeout;

use super::error::CertError;
use super::limits;
use crate::directory::discover::RootDse;
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::message::SearchRequest;
use crate::directory::personality::Personality;
use crate::directory::servers::Server;
use crate::directory::{Directory, Net, dn, guid};

/// Variables whose value is the directory's word, whatever an order says: a certificate with somebody else's
/// identifier would sign in as that person.
pub(super) const OF_DIRECTORY: &[&str] = &["sid", "dn", "ou", "cn", "dc"];

/// Variables the directory completes when an order lacks them.
const COMPLETED: &[&str] = &["upn", "email", "uname"];

/// By which variables of an order a person is found, the surest first.
const FOUND_BY: &[&str] = &["upn", "uname", "email"];

/// Whether a profile with these variables needs the directory for this order.
pub(super) fn needs(variables: &BTreeSet<&str>, known: &BTreeMap<String, String>) -> bool {
    OF_DIRECTORY.iter().any(|name| variables.contains(name))
        || COMPLETED.iter().any(|name| variables.contains(name) && !known.contains_key(*name))
}

/// Values of the directory for the person the order is about; none of it when there is no such person.
pub(super) async fn values(
    directory: &Arc<Directory>,
    net: &Net,
    known: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CertError> {
    let looking = async {
        let mut last = None;
        let candidates = directory.candidates(net).await?;
        let tried = candidates.len();
        for server in candidates {
            match directory.note(net, &server, on_server(directory, net, &server, known).await) {
                Ok(Found::One(values)) => return Ok(values),
                Ok(Found::Nobody) => return Ok(BTreeMap::new()),
                Ok(Found::Several(name)) => return Err(CertError::Ambiguous { name }),
                Err(error) if error.is_servers_fault() => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(match last {
            Some(last) => DirectoryError::AllFailed { tried, last: Box::new(last) },
            None => DirectoryError::NoServer { domain: directory.name().to_owned() },
        }
        .into())
    };
    match timeout(limits::LOOKUP_WITHIN, looking).await {
        Ok(found) => found,
        Err(_) => Err(DirectoryError::TimedOut {
            server: directory.name().to_owned(),
            operation: "search",
            within: limits::LOOKUP_WITHIN,
        }
        .into()),
    }
}

enum Found {
    Nobody,
    One(BTreeMap<String, String>),
    Several(String),
}

async fn on_server(
    directory: &Arc<Directory>,
    net: &Net,
    server: &Arc<Server>,
    known: &BTreeMap<String, String>,
) -> Result<Found, DirectoryError> {
    /// Enough to see that there are several.
    const ENTRIES_MAX: usize = 10;
    let mut lent = directory.searcher(net, server).await?;
    let root = RootDse::read(&mut lent).await?;
    let personality = directory.personality(&root);
    let Some((name, filter)) = filter(&personality, known) else { return Ok(Found::Nobody) };
    let conditions = Filter::all([Personality::filter(&personality.user_filter), filter]);
    let mut attributes: Vec<&str> = vec![&personality.mail];
    attributes.extend(personality.login.iter().map(String::as_str));
    attributes.extend(personality.upn.as_deref());
    attributes.extend(personality.sid.as_deref());
    let mut request = SearchRequest::subtree(directory.base(&root), conditions, &attributes);
    request.controls = Directory::search_controls(&root);
    let found = lent.search(&request, ENTRIES_MAX).await?;
    Ok(match found.as_slice() {
        [] => Found::Nobody,
        [entry] => Found::One(read(&personality, entry)),
        _ => Found::Several(name.to_owned()),
    })
}

fn filter<'a>(personality: &Personality, known: &'a BTreeMap<String, String>) -> Option<(&'a str, Filter)> {
    FOUND_BY.iter().find_map(|variable| {
        let value = known.get(*variable).filter(|value| !value.is_empty())?;
        let filter = match *variable {
            "upn" => Filter::equals(personality.upn.as_deref()?, value),
            "email" => Filter::equals(&personality.mail, value),
            _ => Filter::any(personality.login.iter().map(|attribute| Filter::equals(attribute, value))),
        };
        Some((value.as_str(), filter))
    })
}

fn read(personality: &Personality, entry: &Entry) -> BTreeMap<String, String> {
    let name = entry.dn().into_owned();
    let mut values = BTreeMap::new();
    let mut put = |variable: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            values.insert(variable.to_owned(), value);
        }
    };
    let sid = personality.sid.as_deref().and_then(|attribute| entry.first(attribute));
    put("sid", sid.and_then(guid::sid_text));
    put("cn", Some(dn::leaf_value(&name)));
    put("ou", nearest(&name, "ou="));
    put("dc", domain(&name));
    put("dn", Some(name));
    put("upn", personality.upn.as_deref().and_then(|attribute| entry.text(attribute)).map(Into::into));
    put("email", entry.text(&personality.mail).map(Into::into));
    put("uname", personality.login.iter().find_map(|attribute| entry.text(attribute)).map(Into::into));
    values
}

/// The lowest unit above a person.
fn nearest(name: &str, kind: &str) -> Option<String> {
    let mut rest = dn::parent(name);
    while let Some(name) = rest {
        if name.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)) {
            return Some(dn::leaf_value(name));
        }
        rest = dn::parent(name);
    }
    None
}

/// `acme.example` of `...,DC=acme,DC=example`.
fn domain(name: &str) -> Option<String> {
    let mut labels = Vec::new();
    let mut rest = Some(name);
    while let Some(name) = rest {
        if name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("dc=")) {
            labels.push(dn::leaf_value(name));
        }
        rest = dn::parent(name);
    }
    (!labels.is_empty()).then(|| labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_persons_name() {
        let name = "CN=Smith\\, Anna,OU=Berlin,OU=People,DC=acme,DC=example";
        assert_eq!(nearest(name, "ou=").as_deref(), Some("Berlin"));
        assert_eq!(domain(name).as_deref(), Some("acme.example"));
        assert_eq!(nearest("uid=asmith,o=acme", "ou="), None);
        assert_eq!(domain("uid=asmith,o=acme"), None);
    }

    #[test]
    fn the_directory_is_asked_only_for_what_a_profile_needs() {
        let known =
            BTreeMap::from([("uname".to_owned(), "asmith".to_owned()), ("sid".to_owned(), "x".to_owned())]);
        assert!(!needs(&BTreeSet::from(["uname", "udid"]), &known));
        assert!(needs(&BTreeSet::from(["uname", "sid"]), &known), "an order's word about it is not believed");
        assert!(needs(&BTreeSet::from(["email"]), &known));
    }
}
