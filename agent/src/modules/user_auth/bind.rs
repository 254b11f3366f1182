//! One attempt: find the user, bind once, read the verdict.
//!
//! Looking up may go to any server and be repeated. The bind may not: as soon as the password may have reached a
//! server, this attempt is over, whatever happened to the answer. Another server is asked only when the connection
//! could not be had, or when the server said busy or unavailable, which it says before it looks at a password.

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::Secret;
use causeway_protocol::auth::{AuthOutcome, AuthReply, AuthUser};
use tokio::time::{Instant, timeout};

use super::config::Lookup;
use super::username::{Domains, Typed};
use super::verdict::{self, Verdict};
use super::{Found, Shared};
use crate::chain::Chain;
use crate::directory::connection::Connection;
use crate::directory::controls::PASSWORD_POLICY;
use crate::directory::discover::RootDse;
use crate::directory::entry::Entry;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::message::{Control, SearchRequest};
use crate::directory::personality::Personality;
use crate::directory::servers::Server;
use crate::directory::{Directory, Net, dn};

/// What a lookup may take on one server, so that a silent one leaves time for the next within the cloud's 4 s.
const LOOKUP_WITHIN: Duration = Duration::from_millis(1_500);

/// What we learned about the directory once.
pub(super) struct Profile {
    pub(super) personality: Arc<Personality>,
    pub(super) base: String,
    pub(super) domains: Domains,
    pub(super) controls: Vec<Control>,
    pub(super) lockout: Option<Lockout>,
    pub(super) learned: Instant,
}

/// The domain's lockout policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lockout {
    /// Failures that lock; 0 for never.
    pub(super) threshold: u32,
    pub(super) window: Duration,
}

/// What a lookup found.
pub(super) enum Looked {
    User(Found),
    Nobody,
    /// So many accounts answer to that name.
    Several(usize),
}

/// How an attempt ended.
pub(super) struct Ended {
    pub(super) outcome: AuthOutcome,
    pub(super) user: Option<AuthUser>,
    pub(super) server: Option<String>,
    pub(super) detail: Option<String>,
}

impl Ended {
    pub(super) fn plain(outcome: AuthOutcome) -> Self {
        Self { outcome, user: None, server: None, detail: None }
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::plain(AuthOutcome::Unavailable) }
    }

    pub(super) fn reply(self) -> AuthReply {
        AuthReply { outcome: self.outcome, user: self.user, server: self.server, detail: self.detail }
    }
}

impl Shared {
    /// Finds the user on the first server that answers.
    pub(super) async fn look_up(&self, net: &Net, typed: &Typed<'_>) -> Result<Looked, DirectoryError> {
        let mut last = None;
        let candidates = self.directory.candidates(net).await?;
        let tried = candidates.len();
        for server in candidates {
            match self.look_up_on(net, &server, typed).await {
                Ok(looked) => return Ok(looked),
                Err(error) if error.is_servers_fault() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(match last {
            Some(last) => DirectoryError::AllFailed { tried, last: Box::new(last) },
            None => DirectoryError::NoServer { domain: self.settings.directory.clone() },
        })
    }

    async fn look_up_on(
        &self,
        net: &Net,
        server: &Arc<Server>,
        typed: &Typed<'_>,
    ) -> Result<Looked, DirectoryError> {
        let looking = async {
            let mut lent = self.directory.searcher(net, server).await?;
            let profile = self.profile(net, &mut lent).await?;
            let Some(filter) = typed.filter(&profile.personality, &profile.domains) else {
                return Ok(Looked::Nobody);
            };
            self.search_user(&mut lent, &profile, typed, filter).await
        };
        let looked = match timeout(LOOKUP_WITHIN, looking).await {
            Ok(looked) => looked,
            Err(_) => Err(DirectoryError::TimedOut {
                server: server.name().to_string(),
                operation: "search",
                within: LOOKUP_WITHIN,
            }),
        };
        self.directory.note(net, server, looked)
    }

    async fn search_user(
        &self,
        connection: &mut Connection,
        profile: &Profile,
        typed: &Typed<'_>,
        filter: Filter,
    ) -> Result<Looked, DirectoryError> {
        /// Enough to say "several" and to see that something is wrong.
        const ENTRIES_MAX: usize = 10;
        let personality = &profile.personality;
        let mut conditions = vec![Personality::filter(&personality.user_filter), filter];
        if let Some(text) = &self.settings.filter {
            conditions.push(Personality::filter(text));
        }
        let attributes = user_attributes(personality);
        let attributes: Vec<&str> = attributes.iter().map(String::as_str).collect();
        let mut request = SearchRequest::subtree(profile.base.as_str(), Filter::all(conditions), &attributes);
        request.controls.clone_from(&profile.controls);
        let mut found = match typed {
            // A typed name is looked at where it points, never below.
            Typed::Dn(name) => {
                request.base = (*name).to_owned();
                request.scope = crate::directory::message::Scope::Base;
                connection.read(&request).await.map(|entry| entry.into_iter().collect::<Vec<_>>())
            }
            _ => connection.search(&request, ENTRIES_MAX).await,
        }?;
        Ok(match found.len() {
            0 => Looked::Nobody,
            1 => Looked::User(found_user(personality, &found.remove(0))),
            several => Looked::Several(several),
        })
    }

    /// The profile, learned once an hour from whichever server is at hand.
    async fn profile(&self, net: &Net, connection: &mut Connection) -> Result<Arc<Profile>, DirectoryError> {
        const KEPT: Duration = Duration::from_secs(3_600);
        let now = net.clock.now();
        if let Some(known) = self.known_profile()
            && now.saturating_duration_since(known.learned) < KEPT
        {
            return Ok(known);
        }
        let root = RootDse::read(connection).await?;
        let personality = self.directory.personality(&root);
        let base = self.directory.base(&root);
        let mut domains = Domains::of_base(&base);
        let mut lockout = None;
        if let Some(attributes) = &personality.lockout {
            domains.netbios = netbios_name(connection, &base).await;
            let request = SearchRequest::read(base.as_str(), &[&attributes.threshold, &attributes.window]);
            // Not everyone may read the policy; without it there is no cap of our own.
            if let Ok(Some(entry)) = connection.read(&request).await {
                lockout = lockout_policy(&entry, &attributes.threshold, &attributes.window);
            }
        }
        let controls = Directory::search_controls(&root);
        let profile = Arc::new(Profile { personality, base, domains, controls, lockout, learned: now });
        self.learn(profile.clone());
        Ok(profile)
    }

    /// Binds once. `until` is when nobody waits any more.
    pub(super) async fn bind_once(&self, net: &Net, name: &str, password: &Secret, until: Instant) -> Ended {
        let candidates = match self.directory.candidates(net).await {
            Ok(candidates) => candidates,
            Err(error) => return Ended::unavailable(Chain(&error).to_string()),
        };
        let mut last = "no directory server is configured".to_owned();
        for server in candidates {
            // Nothing has been sent yet: connecting may be tried elsewhere.
            let mut lent = match self.directory.binder(net, &server).await {
                Ok(lent) => lent,
                Err(error) => {
                    last = Chain(&error).to_string();
                    continue;
                }
            };
            let personality = match self.personality(&mut lent).await {
                Ok(personality) => personality,
                Err(error) => {
                    last = Chain(&error).to_string();
                    let _ = self.directory.note(net, &server, Err::<(), _>(error));
                    continue;
                }
            };
            let left = until.saturating_duration_since(net.clock.now());
            if left.is_zero() {
                return Ended::unavailable(format!("no time left to ask; before: {last}"));
            }
            let controls = bind_controls(&personality);
            let started = net.clock.now();
            self.count_bind();
            let answer = lent.bind(name, password.expose().as_bytes(), &controls, left).await;
            let result = match answer {
                Ok(result) => result,
                Err(failure) => {
                    let detail = Chain(&failure.error).to_string();
                    let _ = self.directory.note(net, &server, Err::<(), _>(failure.error));
                    // The password may have been counted: asking another server could count it twice.
                    return Ended {
                        server: Some(server.name().to_string()),
                        ..Ended::unavailable(format!("{detail}; the password was not tried again"))
                    };
                }
            };
            tracing::debug!(
                server = %server.name(),
                status = %result.code,
                elapsed_ms = started.elapsed().as_millis() as u64,
                "bind"
            );
            match verdict::read(&personality, &result) {
                Verdict::Final(outcome) => {
                    let user = self.own_entry(&mut lent, name, outcome).await;
                    let server = Some(server.name().to_string());
                    return Ended { outcome, user, server, detail: None };
                }
                Verdict::Elsewhere => {
                    let error = lent.refused(result, "bind");
                    last = Chain(&error).to_string();
                    let _ = self.directory.note(net, &server, Err::<(), _>(error));
                }
                Verdict::None => {
                    let error = lent.refused(result, "bind");
                    return Ended {
                        server: Some(server.name().to_string()),
                        ..Ended::unavailable(Chain(&error).to_string())
                    };
                }
            }
        }
        Ended::unavailable(last)
    }

    /// The personality, read from the rootDSE over this connection if no lookup has done so before (direct binds).
    async fn personality(&self, connection: &mut Connection) -> Result<Arc<Personality>, DirectoryError> {
        match self.directory.known_personality() {
            Some(known) => Ok(known),
            None => {
                let root = RootDse::read(connection).await?;
                Ok(self.directory.personality(&root))
            }
        }
    }

    /// After a direct bind, the user's own entry as the user may see it.
    async fn own_entry(
        &self,
        connection: &mut Connection,
        name: &str,
        outcome: AuthOutcome,
    ) -> Option<AuthUser> {
        if self.settings.lookup == Lookup::Search || outcome != AuthOutcome::Ok {
            return None;
        }
        let read = async {
            let root = RootDse::read(connection).await?;
            let personality = self.directory.personality(&root);
            let base = self.directory.base(&root);
            let profile = Profile {
                personality,
                domains: Domains::of_base(&base),
                base,
                controls: Directory::search_controls(&root),
                lockout: None,
                learned: Instant::now(),
            };
            let typed = Typed::read(name, true);
            let filter = typed
                .filter(&profile.personality, &Domains::default())
                .unwrap_or_else(|| Filter::present("objectClass"));
            self.search_user(connection, &profile, &typed, filter).await
        };
        match timeout(LOOKUP_WITHIN, read).await {
            Ok(Ok(Looked::User(found))) => Some(found.user),
            _ => None,
        }
    }
}

/// The name that a template makes of a login, escaped for a DN where the template is one.
pub(super) fn from_template(template: &str, login: &str) -> String {
    let is_dn = template.contains('=');
    let value = if is_dn { dn::escape(login) } else { login.to_owned() };
    template.replace("{login}", &value)
}

fn bind_controls(personality: &Personality) -> Vec<Control> {
    if personality.password_policy { vec![Control::bare(PASSWORD_POLICY, false)] } else { Vec::new() }
}

fn user_attributes(personality: &Personality) -> Vec<String> {
    let mut names = vec![personality.id.attribute.clone(), personality.mail.clone()];
    names.extend(personality.login.iter().cloned());
    names.extend(personality.display_name.iter().cloned());
    names
}

fn found_user(personality: &Personality, entry: &Entry) -> Found {
    let first =
        |names: &[String]| names.iter().find_map(|name| entry.text(name)).map(|text| text.into_owned());
    let dn = entry.dn().into_owned();
    let id = entry
        .first(&personality.id.attribute)
        .and_then(|value| personality.id.codec.decode(value))
        .map(|id| personality.id.codec.text(id));
    Found {
        dn: dn.clone(),
        user: AuthUser {
            id: id.unwrap_or_default(),
            login: first(&personality.login).unwrap_or_default(),
            dn,
            mail: entry.text(&personality.mail).map(|text| text.into_owned()),
            display_name: first(&personality.display_name),
        },
    }
}

/// nETBIOSName of the domain (MS-ADTS 6.1.1.2.1.1): on the crossRef that names our naming context.
async fn netbios_name(connection: &mut Connection, base: &str) -> Option<String> {
    let root = SearchRequest::read("", &["configurationNamingContext"]);
    let configuration = connection.read(&root).await.ok()??.text("configurationNamingContext")?.into_owned();
    let filter = Filter::all([Filter::equals("objectClass", "crossRef"), Filter::equals("nCName", base)]);
    let request = SearchRequest {
        scope: crate::directory::message::Scope::OneLevel,
        ..SearchRequest::subtree(format!("CN=Partitions,{configuration}"), filter, &["nETBIOSName"])
    };
    let entries = connection.search(&request, 2).await.ok()?;
    entries.first()?.text("nETBIOSName").map(|name| name.into_owned())
}

fn lockout_policy(entry: &Entry, threshold: &str, window: &str) -> Option<Lockout> {
    /// 100 ns (MS-ADTS: an interval as a negative number).
    const TICKS_PER_SEC: u64 = 10_000_000;
    let threshold = entry.text(threshold)?.trim().parse().ok()?;
    let ticks: i64 = entry.text(window).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(Lockout { threshold, window: Duration::from_secs(ticks.unsigned_abs() / TICKS_PER_SEC) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::entry::tests::entry;

    #[test]
    fn a_login_cannot_leave_its_place_in_a_template() {
        let template = "uid={login},ou=people,dc=acme,dc=example";
        let name = from_template(template, "x,ou=admins,dc=evil\0");
        assert_eq!(dn::parent(&name), Some("ou=people,dc=acme,dc=example"));
        assert_eq!(from_template("{login}@acme.example", "asmith"), "asmith@acme.example");
    }

    #[test]
    fn the_lockout_policy_is_read() {
        let entry =
            entry("DC=x", &[("lockoutThreshold", &[b"5"]), ("lockOutObservationWindow", &[b"-18000000000"])]);
        let policy = lockout_policy(&entry, "lockoutThreshold", "lockOutObservationWindow").unwrap();
        assert_eq!(policy, Lockout { threshold: 5, window: Duration::from_secs(1_800) });
    }
}
