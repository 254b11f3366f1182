//! The checks of one directory: find, resolve, connect, TLS, bind, rootDSE, base. Each server on its own, because a
//! broken second server is found only when the first one dies. Servers are reached side by side, but the service
//! account binds to one after the other and stops at the first refusal: a wrong password must not be tried often.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Security};
use super::discover::RootDse;
use super::error::DirectoryError;
use super::filter::Filter;
use super::message::{ResultCode, SearchRequest};
use super::page::{Chunks, Item, Paging};
use super::personality::Personality;
use super::servers::Server;
use super::{Directory, Net, controls, limits};
use crate::chain::Chain;
use crate::checks::{CheckResult, Verdict, declare_checks};
use crate::dial::Target;
use crate::limits::CLOCK_SKEW_MAX;

declare_checks! {
    SERVERS = "directory.servers":
        "which servers there are, listed in agent.toml or found by DNS",
        "list servers in [directory.NAME], or name the domain whose records DNS has";
    PASSWORD = "directory.password":
        "whether the service account's password is stored here",
        "store it with causeway-agent configure directory --secret-from-stdin password";
    RESOLVE = "directory.resolve":
        "whether each server's name has an address",
        "check the name, and this machine's name servers";
    TCP = "directory.tcp":
        "whether each server's port takes connections",
        "check that the server runs, and that port and firewall are right";
    TLS = "directory.tls":
        "whether each server's certificate is trusted and for its name, and which TLS version is spoken",
        "set ca_file to the authority that signed the server's certificate";
    PROTECTION = "directory.protection":
        "whether passwords travel encrypted",
        "use ldaps:// or start_tls = true";
    CERTIFICATE = "directory.certificate":
        "how long each server's certificate is still valid",
        "renew the server's certificate before it expires; the agent refuses an expired one";
    LATENCY = "directory.latency":
        "how long each server takes to accept a connection, TLS included",
        "list a nearer server first, or look at the server's load";
    BIND = "directory.bind":
        "whether the service account may sign in at each server",
        "check the service account's name and password, and that it is neither locked nor expired";
    ROOT = "directory.root":
        "what each server says about itself in its rootDSE",
        "check that the address is a directory server";
    PERSONALITY = "directory.personality":
        "whether the product is the one that agent.toml names",
        "set personality = \"auto\" in [directory.NAME], or name the right product";
    REPLICATED = "directory.replicated":
        "whether each domain controller has finished its first replication",
        "wait for its replication, or take it off the list";
    SAME = "directory.same":
        "whether all servers hold the same directory",
        "list only servers of one domain in one [directory.NAME]; give others a directory of their own";
    CLOCK = "directory.clock":
        "how far this machine's clock is from each server's",
        "synchronise both clocks; Kerberos and certificates need them within 5 minutes";
    BASE = "directory.base":
        "whether the service account may read where searches start",
        "correct base_dn, or give the service account read rights";
    PAGING = "directory.paging":
        "whether each server answers searches in pages",
        "allow the paged results control for the service account";
    USERS = "directory.users":
        "how many users are in scope",
        "correct base_dn, or give the service account read rights on the users";
    ACCOUNT = "directory.account":
        "when the service account's password expires",
        "give the service account a password that does not expire, or change it in time with causeway-agent configure";
    CATALOG = "directory.global_catalog":
        "whether a global catalog of the domain answers, where the domain's servers are found by DNS",
        "check that a domain controller is a global catalog and that its port is open from here";
}

/// Certificates and passwords that end sooner than this are worth a warning: time for a change window.
const EXPIRY_WARNING_DAYS: i64 = 30;

/// A server that takes longer to connect to slows every sign-in down.
const SLOW: Duration = Duration::from_millis(500);

/// Users counted before "more than" is good enough.
const USERS_COUNTED_MAX: usize = 20_000;

/// Time to count them in.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// All checks of one directory, in the order a person would make them.
pub async fn run(directory: &Arc<Directory>, net: &Net) -> Vec<CheckResult> {
    let servers = match directory.servers(net).await {
        Ok(servers) => servers,
        Err(error) => return vec![failed(&SERVERS, &error).of(directory.name())],
    };
    let names: Vec<&str> = servers.iter().map(|server| server.name().as_ref()).collect();
    let alone =
        if names.len() == 1 { " (with a second one, sign-ins survive the loss of the first)" } else { "" };
    let found = CheckResult::ok(&SERVERS, format!("{}{alone}", names.join(", ")));
    let mut results = vec![found.of(directory.name())];
    let password = match directory.service_password() {
        Ok(Some(_)) => CheckResult::ok(&PASSWORD, "stored"),
        Ok(None) => CheckResult::ok(&PASSWORD, "none needed: no service account is named"),
        Err(error) => failed(&PASSWORD, &error),
    };
    let may_bind = password.remedy().is_empty();
    results.push(password.of(directory.name()));
    let reached = join_all(servers.iter().map(|server| reach(directory, net, server))).await;
    let mut open = Vec::new();
    for (server, (found, well)) in servers.iter().zip(reached) {
        results.extend(found);
        if well {
            open.push(server.clone());
        } else {
            results.push(CheckResult::skipped(&BIND, "the server cannot be reached").of(&**server.name()));
        }
    }
    results.extend(catalog(directory, net).await);
    if may_bind {
        results.extend(signed_in(directory, net, &open).await);
    }
    results
}

/// Every server, without signing in.
pub(crate) async fn reach_all(directory: &Arc<Directory>, net: &Net) -> Vec<CheckResult> {
    match directory.servers(net).await {
        Ok(servers) => {
            let reached = join_all(servers.iter().map(|server| reach(directory, net, server))).await;
            reached.into_iter().flat_map(|(results, _)| results).collect()
        }
        Err(error) => vec![failed(&SERVERS, &error).of(directory.name())],
    }
}

/// Signs in at the best server, once, and reads what it says about itself.
///
/// # Errors
/// The result that says what is wrong.
pub(crate) async fn first_look(
    directory: &Arc<Directory>,
    net: &Net,
) -> Result<(CheckResult, RootDse), Box<CheckResult>> {
    let servers = directory.servers(net).await.map_err(|error| failed(&SERVERS, &error))?;
    let mut last = CheckResult::fail(&SERVERS, "there is no server", "");
    for server in &servers {
        let name = &**server.name();
        let mut connection = match directory.open_bound(net, server).await {
            Ok(connection) => connection,
            Err(error) => {
                let detail = format!("{}: {}", directory.account(), Chain(&error));
                last = CheckResult::fail(&BIND, detail, error.remedy()).of(name);
                // Another server would say the same, and count it too.
                if error.is_servers_fault() {
                    continue;
                }
                break;
            }
        };
        let root = RootDse::read(&mut connection).await.map_err(|error| failed(&ROOT, &error).of(name))?;
        connection.close().await;
        return Ok((CheckResult::ok(&BIND, format!("as {}", directory.account())).of(name), root));
    }
    Err(Box::new(last))
}

/// Whether these results say that some server of the directory can be worked with.
pub(crate) fn usable(results: &[CheckResult]) -> bool {
    results.iter().any(|result| result.check() == &BIND && result.verdict() == Verdict::Ok)
}

/// A line for an operation that failed.
pub(crate) fn failed(check: &'static crate::checks::Check, error: &DirectoryError) -> CheckResult {
    CheckResult::fail(check, Chain(error).to_string(), error.remedy())
}

/// Everything that needs no password. True when a connection could be had.
async fn reach(directory: &Arc<Directory>, net: &Net, server: &Arc<Server>) -> (Vec<CheckResult>, bool) {
    let name = &**server.name();
    let endpoint = server.endpoint();
    let mut results = Vec::new();
    match net.dial.addresses(&endpoint.host).await {
        Ok(addresses) => {
            let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            results.push(CheckResult::ok(&RESOLVE, shown.join(", ")).of(name));
        }
        Err(error) => {
            results.push(CheckResult::fail(&RESOLVE, Chain(&error).to_string(), "").of(name));
            return (results, false);
        }
    }
    let target = Target::inside(endpoint.host.as_str(), endpoint.port);
    match timeout(limits::CONNECT_WITHIN, net.dial.connect(target)).await {
        Ok(Ok(_)) => results.push(CheckResult::ok(&TCP, "open").of(name)),
        Ok(Err(error)) => {
            results.push(CheckResult::fail(&TCP, Chain(&error).to_string(), "").of(name));
            return (results, false);
        }
        Err(_) => {
            let detail = format!("no answer within {} s", limits::CONNECT_WITHIN.as_secs());
            results.push(CheckResult::fail(&TCP, detail, "").of(name));
            return (results, false);
        }
    }
    let begun = net.clock.now();
    let connection = match directory.open(net, server).await {
        Ok(connection) => connection,
        Err(error) => {
            results.push(failed(&TLS, &error).of(name));
            return (results, false);
        }
    };
    results.push(latency(net.clock.now().saturating_duration_since(begun)).of(name));
    results.extend(protection(net, server, &connection).into_iter().map(|result| result.of(name)));
    connection.close().await;
    (results, true)
}

fn latency(took: Duration) -> CheckResult {
    let detail = format!("{} ms", took.as_millis());
    if took > SLOW { CheckResult::warn(&LATENCY, detail, "") } else { CheckResult::ok(&LATENCY, detail) }
}

fn protection(net: &Net, server: &Server, connection: &Connection) -> Vec<CheckResult> {
    let how = match server.endpoint().security {
        Security::Tls => "TLS",
        Security::StartTls => "StartTLS",
        Security::Plain => {
            let detail = "the connection is not encrypted; passwords travel in the clear";
            return vec![CheckResult::warn(&PROTECTION, detail, "")];
        }
    };
    let mut results = vec![CheckResult::ok(&PROTECTION, how)];
    let Some(certificate) = connection.certificate() else { return results };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        results.push(CheckResult::ok(&TLS, format!("{how}; the certificate cannot be read")));
        return results;
    };
    let signed = format!("{how}; certificate of {} signed by {}", parsed.subject(), parsed.issuer());
    results.push(CheckResult::ok(&TLS, signed));
    let until = parsed.validity().not_after;
    let days = (until.timestamp().saturating_mul(1000) - net.clock.now_ms()) / 86_400_000;
    let detail = format!("valid for {days} days, until {until}");
    results.push(if days < EXPIRY_WARNING_DAYS {
        CheckResult::warn(&CERTIFICATE, detail, "")
    } else {
        CheckResult::ok(&CERTIFICATE, detail)
    });
    results
}

/// Everything behind a bind, server by server.
async fn signed_in(directory: &Arc<Directory>, net: &Net, servers: &[Arc<Server>]) -> Vec<CheckResult> {
    let mut results = Vec::new();
    let mut refused: Option<String> = None;
    let mut bases: Vec<(String, String)> = Vec::new();
    for server in servers {
        let name = server.name().to_string();
        if let Some(by) = &refused {
            let because = format!("{by} refused the password, and trying it again could lock the account");
            results.push(CheckResult::skipped(&BIND, because).of(name));
            continue;
        }
        let mut connection = match directory.open_bound(net, server).await {
            Ok(connection) => connection,
            Err(error) => {
                if error.result_code() == Some(ResultCode::INVALID_CREDENTIALS) {
                    refused = Some(name.clone());
                }
                let detail = format!("{}: {}", directory.account(), Chain(&error));
                results.push(CheckResult::fail(&BIND, detail, error.remedy()).of(name));
                continue;
            }
        };
        results.push(CheckResult::ok(&BIND, format!("as {}", directory.account())).of(&*name));
        let first = bases.is_empty();
        let (found, root) = look(directory, net, &mut connection).await;
        let readable = found.iter().any(|result| result.check() == &BASE && result.verdict() == Verdict::Ok);
        results.extend(found.into_iter().map(|result| result.of(&*name)));
        connection.close().await;
        let Some(root) = root else { continue };
        bases.push((name, root.base()));
        if first && readable {
            results.push(count(directory, net, server, &root).await.of(directory.name()));
            results.extend(account(directory, net, server, &root).await);
        }
    }
    results.extend(same(directory, &bases));
    results
}

/// What a bound connection shows.
async fn look(
    directory: &Directory,
    net: &Net,
    connection: &mut Connection,
) -> (Vec<CheckResult>, Option<RootDse>) {
    let root = match RootDse::read(connection).await {
        Ok(root) => root,
        Err(error) => return (vec![failed(&ROOT, &error)], None),
    };
    let personality = directory.personality(&root);
    let base = directory.base(&root);
    let detail = format!("{}, base {base:?}, {} controls", personality.name, root.controls.len());
    let mut results = vec![CheckResult::ok(&ROOT, detail), recognised(directory, &root)];
    results.push(if root.synchronized {
        CheckResult::ok(&REPLICATED, "yes")
    } else {
        CheckResult::warn(&REPLICATED, "it has not replicated yet", "")
    });
    results.extend(clock(net, connection).await);
    // Domino's base is often empty, and an empty base is the rootDSE itself.
    let read = SearchRequest::read(base.as_str(), &["objectClass"]);
    match connection.read(&read).await {
        Ok(Some(_)) => results.push(CheckResult::ok(&BASE, format!("{base:?} is readable"))),
        Ok(None) => {
            let detail = format!("there is no object {base:?}, or the service account may not see it");
            results.push(CheckResult::fail(&BASE, detail, ""));
            return (results, Some(root));
        }
        Err(error) => {
            // A referral is how a server says that the name belongs elsewhere.
            let remedy = if error.code() == "directory_refused" { "" } else { error.remedy() };
            results.push(CheckResult::fail(&BASE, Chain(&error).to_string(), remedy));
            return (results, Some(root));
        }
    }
    results.push(paging(connection, &root, &base).await);
    (results, Some(root))
}

fn recognised(directory: &Directory, root: &RootDse) -> CheckResult {
    let seen = Personality::detect(root);
    match directory.settings().personality.as_str() {
        "auto" => CheckResult::ok(&PERSONALITY, format!("{seen}, recognised by the rootDSE")),
        named if named == seen => CheckResult::ok(&PERSONALITY, seen),
        named => CheckResult::warn(
            &PERSONALITY,
            format!("agent.toml says {named}, the server looks like {seen}"),
            "",
        ),
    }
}

/// Only Active Directory tells its time.
async fn clock(net: &Net, connection: &mut Connection) -> Option<CheckResult> {
    let entry = connection.read(&SearchRequest::read("", &["currentTime"])).await.ok()??;
    let theirs = generalized_time_ms(&entry.text("currentTime")?)?;
    let skew = Duration::from_millis((theirs - net.clock.now_ms()).unsigned_abs());
    let detail = format!("{} s apart", skew.as_secs());
    Some(if skew > CLOCK_SKEW_MAX {
        CheckResult::warn(&CLOCK, detail, "")
    } else {
        CheckResult::ok(&CLOCK, detail)
    })
}

/// `20260102030405.0Z` (RFC 4517 3.3.13, the form Active Directory writes) in Unix milliseconds.
fn generalized_time_ms(text: &str) -> Option<i64> {
    let format = time::macros::format_description!("[year][month][day][hour][minute][second]");
    let digits = text.get(..14)?;
    let read = time::PrimitiveDateTime::parse(digits, format).ok()?;
    Some(read.assume_utc().unix_timestamp().saturating_mul(1000))
}

async fn paging(connection: &mut Connection, root: &RootDse, base: &str) -> CheckResult {
    if !root.supports(controls::PAGED) {
        return CheckResult::warn(
            &PAGING,
            "the server does not offer pages; large searches hit its size limit",
            "",
        );
    }
    let request = SearchRequest::subtree(base, Filter::present("objectClass"), &["1.1"])
        .with(controls::paged(2, &[], true));
    match connection.search(&request, 2).await {
        Ok(page) => CheckResult::ok(&PAGING, format!("a page of {}", page.len())),
        Err(error) => failed(&PAGING, &error),
    }
}

async fn count(directory: &Arc<Directory>, net: &Net, server: &Arc<Server>, root: &RootDse) -> CheckResult {
    let personality = directory.personality(root);
    let lent = match directory.searcher(net, server).await {
        Ok(lent) => lent,
        Err(error) => return failed(&USERS, &error),
    };
    let mut request =
        SearchRequest::subtree(directory.base(root), Personality::filter(&personality.user_filter), &["1.1"]);
    request.controls.extend(Directory::search_controls(root));
    let paging = match root.supports(controls::PAGED) {
        true => Paging::Pages(directory.settings().page_size),
        false => Paging::Whole,
    };
    let mut chunks = Chunks::start(lent, request, paging);
    let deadline = Instant::now() + COUNT_WITHIN;
    let mut users = 0;
    loop {
        let chunk = match tokio::time::timeout_at(deadline, chunks.next()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => return failed(&USERS, &error),
            Err(_) => return CheckResult::ok(&USERS, format!("more than {users}")),
        };
        users += chunk.items.iter().filter(|item| matches!(item, Item::Entry(..))).count();
        match chunk.done {
            Some(_) if users == 0 => return CheckResult::warn(&USERS, "none can be seen", ""),
            Some(_) => return CheckResult::ok(&USERS, users.to_string()),
            None if users >= USERS_COUNTED_MAX => {
                return CheckResult::ok(&USERS, format!("more than {users}"));
            }
            None => {}
        }
    }
}

/// When the service account's password ends, where the directory tells (MS-ADA2 msDS-UserPasswordExpiryTimeComputed).
async fn account(
    directory: &Arc<Directory>,
    net: &Net,
    server: &Arc<Server>,
    root: &RootDse,
) -> Option<CheckResult> {
    const EXPIRY: &str = "msDS-UserPasswordExpiryTimeComputed";
    let name = directory.settings().bind_dn.as_str();
    if name.is_empty() || directory.personality(root).name != "active_directory" {
        return None;
    }
    let mut lent = directory.searcher(net, server).await.ok()?;
    let request = match (name.split_once('\\'), name.contains('=')) {
        (Some((_, login)), _) => {
            SearchRequest::subtree(directory.base(root), Filter::equals("sAMAccountName", login), &[EXPIRY])
        }
        (None, true) => SearchRequest::read(name, &[EXPIRY]),
        (None, false) => {
            SearchRequest::subtree(directory.base(root), Filter::equals("userPrincipalName", name), &[EXPIRY])
        }
    };
    let entry = lent.search(&request, 2).await.ok()?.into_iter().next()?;
    let ticks: i64 = entry.text(EXPIRY)?.trim().parse().ok()?;
    Some(expiry(ticks, net.clock.now_ms()).of(name))
}

/// `ticks` of 100 ns since 1601 (MS-DTYP FILETIME); the largest value means never.
fn expiry(ticks: i64, now_ms: i64) -> CheckResult {
    const UNIX_EPOCH_MS: i64 = 11_644_473_600_000;
    if ticks == i64::MAX {
        return CheckResult::ok(&ACCOUNT, "its password does not expire");
    }
    let left_ms = ticks / 10_000 - UNIX_EPOCH_MS - now_ms;
    let days = left_ms / 86_400_000;
    match left_ms {
        ..=0 => CheckResult::fail(&ACCOUNT, "its password has expired", ""),
        _ if days < EXPIRY_WARNING_DAYS => {
            CheckResult::warn(&ACCOUNT, format!("its password expires in {days} days"), "")
        }
        _ => CheckResult::ok(&ACCOUNT, format!("its password is valid for {days} days")),
    }
}

/// A directory is one tree; servers of another one would make people come and go.
fn same(directory: &Directory, bases: &[(String, String)]) -> Option<CheckResult> {
    let (first, rest) = bases.split_first()?;
    if rest.is_empty() {
        return None;
    }
    let different = rest.iter().find(|(_, base)| !base.eq_ignore_ascii_case(&first.1));
    let result = match different {
        None => CheckResult::ok(&SAME, format!("all hold {:?}", first.1)),
        Some((name, base)) => {
            let detail = format!("{} holds {:?}, {name} holds {base:?}", first.0, first.1);
            CheckResult::fail(&SAME, detail, "")
        }
    };
    Some(result.of(directory.name()))
}

async fn catalog(directory: &Directory, net: &Net) -> Option<CheckResult> {
    let settings = directory.settings();
    let domain = settings.domain.as_deref().filter(|_| settings.servers.is_empty())?;
    // Only Active Directory has these records; where there are none, none is missed.
    let service = net.dial.services(&format!("_gc._tcp.{domain}")).await.ok()?.into_iter().next()?;
    let target = Target::inside(service.host, service.port);
    let shown = target.to_string();
    let result = match timeout(limits::CONNECT_WITHIN, net.dial.connect(target)).await {
        Ok(Ok(_)) => CheckResult::ok(&CATALOG, "open"),
        Ok(Err(error)) => CheckResult::warn(&CATALOG, Chain(&error).to_string(), ""),
        Err(_) => CheckResult::warn(&CATALOG, "no answer", ""),
    };
    Some(result.of(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_directory_are_read() {
        assert_eq!(generalized_time_ms("19700101000010.0Z"), Some(10_000));
        assert_eq!(generalized_time_ms("1970"), None);
        assert_eq!(generalized_time_ms("19701301000010.0Z"), None);
    }

    #[test]
    fn a_password_that_ends_soon_is_a_warning_and_one_that_ended_a_failure() {
        let day = 86_400_000;
        let at = |left_ms: i64| expiry((left_ms + 11_644_473_600_000) * 10_000, 0).verdict();
        assert_eq!(at(-1), Verdict::Fail);
        assert_eq!(at(10 * day), Verdict::Warn);
        assert_eq!(at(60 * day), Verdict::Ok);
        assert_eq!(expiry(i64::MAX, 0).verdict(), Verdict::Ok);
    }
}
