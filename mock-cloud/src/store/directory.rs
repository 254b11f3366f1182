//! People, groups and units as the last uploads left them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::rows::{Page, json, json_opt, one_more, unsigned};
use super::{Store, StoreError};
use crate::limits::NESTING_MAX;

/// A person's account.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    /// The directory's stable id.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// Login name.
    pub login: String,
    /// Where the directory keeps it.
    pub dn: String,
    /// Stable id of the unit it is in.
    pub ou: Option<String>,
    /// Whether the account can be used.
    pub enabled: bool,
    /// userPrincipalName, where the directory has one.
    pub upn: Option<String>,
    /// Name for people to read.
    pub display_name: Option<String>,
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub surname: Option<String>,
    /// Mail address.
    pub mail: Option<String>,
    /// Further attributes that the customer allowed.
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// A group.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Group {
    /// The directory's stable id.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// Name.
    pub name: String,
    /// Where the directory keeps it.
    pub dn: String,
    /// Stable id of the unit it is in.
    pub ou: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Mail address of a distribution list.
    pub mail: Option<String>,
    /// Whether it grants rights; otherwise it only receives mail.
    pub security: bool,
    /// Direct members.
    pub members: u64,
}

/// An organisational unit or container.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ou {
    /// The directory's stable id.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// Name within the parent.
    pub name: String,
    /// Where it is.
    pub dn: String,
    /// Stable id of the parent, if the parent is in scope.
    pub parent: Option<String>,
    /// Users directly in it.
    pub users: u64,
}

/// A group a user is in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Membership {
    /// The group's stable id.
    pub id: String,
    /// The group's name.
    pub name: String,
    /// Whether the user is a member itself; otherwise through other groups only.
    pub direct: bool,
    /// Steps from the user to the group, 1 for a direct membership.
    pub depth: u64,
    /// Whether it grants rights.
    pub security: bool,
}

/// A direct member of a group.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Member {
    /// Stable id.
    pub id: String,
    /// `user` or `group`; `unresolved` when the object has not arrived (it may be out of scope).
    pub kind: String,
    /// Display name or group name, the id when unresolved.
    pub name: String,
    /// Login name of a user.
    pub login: Option<String>,
    #[serde(skip)]
    number: i64,
}

/// Something that is collected, and how far that is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Source {
    /// Its name, also the leased resource.
    pub source: String,
    /// Grows with every committed upload.
    pub epoch: u64,
    /// Unix milliseconds of the last commit, 0 for none.
    pub committed_ms: i64,
    /// What the cloud has of it now.
    pub counts: SourceCounts,
    /// How the running or last collection went, as the agent told.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Value>,
    /// The agent that told it.
    pub progress_agent: Option<String>,
    /// Unix milliseconds of that.
    pub progress_ms: i64,
}

/// Objects and memberships of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SourceCounts {
    /// Users.
    pub users: u64,
    /// Groups.
    pub groups: u64,
    /// Organisational units.
    pub ous: u64,
    /// Direct memberships.
    pub members: u64,
    /// Phones, once for each mailbox they are in.
    pub devices: u64,
    /// Policies for phones.
    pub device_policies: u64,
    /// Mail systems.
    pub mail_organizations: u64,
}

/// Which rows of a list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Part of a name, login or mail address, any case.
    pub q: Option<String>,
    /// Only in this unit (stable id).
    pub ou: Option<String>,
    /// Rows on the page.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

/// Place in a list ordered by name.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    pub(super) sort: String,
    pub(super) id: i64,
}

impl Cursor {
    /// Reads what [`Page::next`] said. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (sort, id) = serde_json::from_slice(&bytes).ok()?;
        Some(Self { sort, id })
    }

    /// Before the first row.
    pub(super) fn start() -> Self {
        Self { sort: String::new(), id: -1 }
    }

    pub(super) fn text(sort: &str, id: i64) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!([sort, id]).to_string())
    }
}

const USER: &str = "u.id, u.key, s.source, u.login, u.dn, u.parent, u.enabled, u.upn, u.display_name, u.given_name, \
                    u.surname, u.mail, u.attributes, u.sort";
const GROUP: &str = "g.id, g.key, s.source, g.name, g.dn, g.parent, g.description, g.mail, g.security, g.sort, \
                     (SELECT count(*) FROM members m WHERE m.group_id = g.id) AS members";
const OU: &str = "o.id, o.key, s.source, o.name, o.dn, o.parent, o.sort";

impl Store {
    /// Users in the order of their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn users(&self, tenant: &str, search: Search) -> Result<Page<User>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let query = format!(
                "SELECT {USER} FROM users u JOIN sources s ON s.id = u.source WHERE u.tenant = ?1 \
                 AND (u.sort, u.id) > (?2, ?3) AND (?4 IS NULL OR instr(u.search, ?4) > 0) \
                 AND (?5 IS NULL OR u.parent = ?5) ORDER BY u.sort, u.id LIMIT ?6"
            );
            list(connection, &query, &tenant, &search, read_user)
        })
        .await
    }

    /// One user and every group it is in, directly or through groups in groups.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn user(&self, tenant: &str, id: &str) -> Result<Option<(User, Vec<Membership>)>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let query = format!(
                "SELECT {USER} FROM users u JOIN sources s ON s.id = u.source WHERE u.tenant = ?1 AND u.key = ?2 \
                 AND u.id IN (SELECT id FROM objects WHERE key = ?2 AND source IN \
                 (SELECT id FROM sources WHERE tenant = ?1))"
            );
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![tenant, id])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (_, number, user) = read_user(row)?;
            Ok(Some((user, effective_groups(connection, &tenant, number)?)))
        })
        .await
    }

    /// Groups in the order of their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn groups(&self, tenant: &str, search: Search) -> Result<Page<Group>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let query = format!(
                "SELECT {GROUP} FROM groups g JOIN sources s ON s.id = g.source WHERE g.tenant = ?1 \
                 AND (g.sort, g.id) > (?2, ?3) AND (?4 IS NULL OR instr(g.search, ?4) > 0) \
                 AND (?5 IS NULL OR g.parent = ?5) ORDER BY g.sort, g.id LIMIT ?6"
            );
            list(connection, &query, &tenant, &search, read_group)
        })
        .await
    }

    /// One group.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn group(&self, tenant: &str, id: &str) -> Result<Option<Group>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(number) = group_number(connection, &tenant, &id)? else { return Ok(None) };
            let query =
                format!("SELECT {GROUP} FROM groups g JOIN sources s ON s.id = g.source WHERE g.id = ?1");
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query([number])?;
            Ok(rows.next()?.map(read_group).transpose()?.map(|(_, _, group)| group))
        })
        .await
    }

    /// Direct members of a group in the order of their ids in the store; `None` when there is no such group.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn group_members(
        &self,
        tenant: &str,
        id: &str,
        limit: usize,
        after: Option<i64>,
    ) -> Result<Option<Page<Member>>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(number) = group_number(connection, &tenant, &id)? else { return Ok(None) };
            let mut query = connection.prepare_cached(
                "SELECT m.member_id, o.key, u.login, coalesce(u.display_name, u.login, g.name, o.key) AS name, \
                 CASE WHEN u.id IS NOT NULL THEN 'user' WHEN g.id IS NOT NULL THEN 'group' ELSE 'unresolved' END \
                 AS kind FROM members m JOIN objects o ON o.id = m.member_id \
                 LEFT JOIN users u ON u.id = m.member_id LEFT JOIN groups g ON g.id = m.member_id \
                 WHERE m.group_id = ?1 AND m.member_id > ?2 ORDER BY m.member_id LIMIT ?3",
            )?;
            let members = query
                .query_map(params![number, after.unwrap_or(-1), one_more(limit)], |row| {
                    Ok(Member {
                        number: row.get("member_id")?,
                        id: row.get("key")?,
                        kind: row.get("kind")?,
                        name: row.get("name")?,
                        login: row.get("login")?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Some(Page::cut(members, limit, |member| member.number.to_string())))
        })
        .await
    }

    /// The groups a group is directly in, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn group_parents(&self, tenant: &str, id: &str) -> Result<Vec<Membership>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(number) = group_number(connection, &tenant, &id)? else { return Ok(Vec::new()) };
            effective_groups(connection, &tenant, number)
        })
        .await
    }

    /// Units in the order of their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ous(&self, tenant: &str, search: Search) -> Result<Page<Ou>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let query = format!(
                "SELECT {OU}, (SELECT count(*) FROM users u WHERE u.tenant = ?1 AND u.parent = o.key) AS users \
                 FROM ous o JOIN sources s ON s.id = o.source WHERE o.tenant = ?1 AND (o.sort, o.id) > (?2, ?3) \
                 AND (?4 IS NULL OR instr(o.search, ?4) > 0) AND (?5 IS NULL OR o.parent = ?5) \
                 ORDER BY o.sort, o.id LIMIT ?6"
            );
            list(connection, &query, &tenant, &search, read_ou)
        })
        .await
    }

    /// What is collected for a tenant, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sources(&self, tenant: &str) -> Result<Vec<Source>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT source, epoch, committed_ms, users, groups, ous, members, devices, device_policies, \
                 mail_organizations, progress, progress_agent, progress_ms FROM sources WHERE tenant = ?1 ORDER BY source",
            )?;
            let mut rows = query.query([tenant])?;
            let mut sources = Vec::new();
            while let Some(row) = rows.next()? {
                sources.push(Source {
                    source: row.get("source")?,
                    epoch: unsigned(row, "epoch")?,
                    committed_ms: row.get("committed_ms")?,
                    counts: SourceCounts {
                        users: unsigned(row, "users")?,
                        groups: unsigned(row, "groups")?,
                        ous: unsigned(row, "ous")?,
                        members: unsigned(row, "members")?,
                        devices: unsigned(row, "devices")?,
                        device_policies: unsigned(row, "device_policies")?,
                        mail_organizations: unsigned(row, "mail_organizations")?,
                    },
                    progress: json_opt("progress", row.get("progress")?)?,
                    progress_agent: row.get("progress_agent")?,
                    progress_ms: row.get("progress_ms")?,
                });
            }
            Ok(sources)
        })
        .await
    }

    /// Keeps the newest progress of a source.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn source_progress(
        &self,
        tenant: &str,
        source: &str,
        agent: &str,
        progress: Value,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, source, agent) = (tenant.to_owned(), source.to_owned(), agent.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO sources (tenant, source, progress, progress_agent, progress_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (tenant, source) DO UPDATE SET \
                     progress = excluded.progress, progress_agent = excluded.progress_agent, \
                     progress_ms = excluded.progress_ms",
                )?
                .execute(params![tenant, source, progress.to_string(), agent, now_ms])?;
            Ok(())
        })
        .await
    }
}

fn list<T>(
    connection: &Connection,
    query: &str,
    tenant: &str,
    search: &Search,
    read: impl Fn(&Row<'_>) -> Result<(String, i64, T), StoreError>,
) -> Result<Page<T>, StoreError> {
    let after = search.after.clone().unwrap_or_else(Cursor::start);
    let q = search.q.as_deref().map(str::trim).filter(|q| !q.is_empty()).map(str::to_lowercase);
    let mut statement = connection.prepare_cached(query)?;
    let mut rows =
        statement.query(params![tenant, after.sort, after.id, q, search.ou, one_more(search.limit)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(read(row)?);
    }
    let page = Page::cut(items, search.limit, |(sort, id, _)| Cursor::text(sort, *id));
    Ok(Page { items: page.items.into_iter().map(|(_, _, item)| item).collect(), next: page.next })
}

/// Walks upwards. `UNION` (not `UNION ALL`) over the ids alone would end in a cycle by itself; the depth that people
/// want to see makes rows differ, so the walk is bounded by [`NESTING_MAX`] as well.
fn effective_groups(
    connection: &Connection,
    tenant: &str,
    member: i64,
) -> Result<Vec<Membership>, StoreError> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE up(id, depth) AS (SELECT group_id, 1 FROM members WHERE member_id = ?1 \
         UNION SELECT m.group_id, up.depth + 1 FROM up JOIN members m ON m.member_id = up.id WHERE up.depth < ?3) \
         SELECT g.key, g.name, g.security, min(up.depth) AS depth FROM up JOIN groups g ON g.id = up.id \
         WHERE g.tenant = ?2 AND g.id <> ?1 GROUP BY g.id ORDER BY depth, g.sort",
    )?;
    let rows = statement.query_map(params![member, tenant, NESTING_MAX], |row| {
        let depth = unsigned(row, "depth")?;
        Ok(Membership {
            id: row.get("key")?,
            name: row.get("name")?,
            direct: depth == 1,
            depth,
            security: row.get("security")?,
        })
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

fn group_number(connection: &Connection, tenant: &str, key: &str) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT g.id FROM objects o JOIN sources s ON s.id = o.source JOIN groups g ON g.id = o.id \
             WHERE s.tenant = ?1 AND o.key = ?2",
        )?
        .query_row(params![tenant, key], |row| row.get(0))
        .optional()?)
}

fn read_user(row: &Row<'_>) -> Result<(String, i64, User), StoreError> {
    let user = User {
        id: row.get("key")?,
        source: row.get("source")?,
        login: row.get("login")?,
        dn: row.get("dn")?,
        ou: row.get("parent")?,
        enabled: row.get("enabled")?,
        upn: row.get("upn")?,
        display_name: row.get("display_name")?,
        given_name: row.get("given_name")?,
        surname: row.get("surname")?,
        mail: row.get("mail")?,
        attributes: json("user attributes", &row.get::<_, String>("attributes")?)?,
    };
    Ok((row.get("sort")?, row.get("id")?, user))
}

fn read_group(row: &Row<'_>) -> Result<(String, i64, Group), StoreError> {
    let group = Group {
        id: row.get("key")?,
        source: row.get("source")?,
        name: row.get("name")?,
        dn: row.get("dn")?,
        ou: row.get("parent")?,
        description: row.get("description")?,
        mail: row.get("mail")?,
        security: row.get("security")?,
        members: unsigned(row, "members")?,
    };
    Ok((row.get("sort")?, row.get("id")?, group))
}

fn read_ou(row: &Row<'_>) -> Result<(String, i64, Ou), StoreError> {
    let ou = Ou {
        id: row.get("key")?,
        source: row.get("source")?,
        name: row.get("name")?,
        dn: row.get("dn")?,
        parent: row.get("parent")?,
        users: unsigned(row, "users")?,
    };
    Ok((row.get("sort")?, row.get("id")?, ou))
}
