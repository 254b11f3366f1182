//! Writing people, groups, units and memberships as uploads bring them.

use std::collections::HashMap;
use std::ops::AddAssign;

use causeway_protocol::record::{GroupRecord, Kind, OuRecord, UserRecord};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::StoreError;
use super::rows::{signed, to_json};
use crate::ingest::{Change, Row};
use crate::limits::NUMBERS_KEPT_MAX;

/// Rows written and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Written.
    pub(super) upserts: u64,
    /// Deleted.
    pub(super) deletes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.upserts += more.upserts;
        self.deletes += more.deletes;
    }
}

impl Counts {
    /// What a batch asks for, applied or not.
    pub(super) fn named(changes: &[Change]) -> Self {
        let deletes = changes.iter().filter(|change| matches!(change.row, Row::Gone(..))).count() as u64;
        Self { upserts: changes.len() as u64 - deletes, deletes }
    }
}

/// What the writing thread keeps from batch to batch of one upload; thrown away when anything is undone. While an upload
/// goes on, nothing but its batches changes the objects of its source.
#[derive(Default)]
pub(super) struct Kept {
    upload: String,
    numbers: Numbers,
}

/// Numbers of directory ids: memberships name the same ones again and again.
pub(super) type Numbers = HashMap<String, i64>;

impl Kept {
    /// The numbers met in this upload so far.
    pub(super) fn numbers_for(&mut self, upload: &str) -> &mut Numbers {
        if self.upload != upload || self.numbers.len() > NUMBERS_KEPT_MAX {
            *self = Self { upload: upload.to_owned(), numbers: Numbers::new() };
        }
        &mut self.numbers
    }
}

/// Applies a batch's changes to one source, stamping rows with `epoch`.
pub(super) fn apply(
    connection: &Connection,
    numbers: &mut Numbers,
    tenant: &str,
    source: i64,
    epoch: u64,
    changes: &[Change],
) -> Result<Counts, StoreError> {
    let tally = Tally::default();
    let mut writer = Writer { connection, tenant, source, epoch: signed(epoch), numbers, tally };
    let mut counts = Counts::default();
    for change in changes {
        match &change.row {
            Row::Ou(ou) => writer.ou(&change.key, ou)?,
            Row::User(user) => writer.user(&change.key, user)?,
            Row::Group(group) => writer.group(&change.key, group)?,
            Row::Member(member) => writer.member(&change.key, member)?,
            Row::Device(device) => writer.device(&change.key, device)?,
            Row::DevicePolicy(policy) => writer.device_policy(&change.key, policy)?,
            Row::MailOrganization(organization) => writer.mail_organization(&change.key, organization)?,
            Row::Gone(kind, member) => {
                counts.deletes += writer.gone(*kind, &change.key, member.as_deref())?;
                continue;
            }
        }
        counts.upserts += 1;
    }
    writer.tally.add_to(connection, source)?;
    Ok(counts)
}

/// How many rows of each kind a source gained (or lost). Kept in `sources`, so that showing them counts nothing; not by
/// triggers, because with one every row's statement opens and truncates a journal, which grew with the square of an
/// upload's size.
#[derive(Default)]
struct Tally([i64; Kind::ALL.len()]);

impl Tally {
    fn of(&mut self, kind: Kind) -> &mut i64 {
        &mut self.0[kind as usize]
    }

    fn add_to(&self, connection: &Connection, source: i64) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            let rows = self.0[kind as usize];
            if rows != 0 {
                // A column of `sources` is named after the table it counts.
                let table = table_of(kind);
                let sql = format!("UPDATE sources SET {table} = {table} + ?2 WHERE id = ?1");
                connection.prepare_cached(&sql)?.execute(params![source, rows])?;
            }
        }
        Ok(())
    }
}

/// Where rows of a kind are.
fn table_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Ou => "ous",
        Kind::User => "users",
        Kind::Group => "groups",
        Kind::Member => "members",
        Kind::Device => "devices",
        Kind::DevicePolicy => "device_policies",
        Kind::MailOrganization => "mail_organizations",
    }
}

/// Objects a snapshot's commit would delete, and objects there are. Memberships follow their objects and do not count.
pub(super) fn doomed(connection: &Connection, source: i64, epoch: u64) -> Result<(u64, u64), StoreError> {
    let (mut doomed, mut total) = (0, 0);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Member) {
        let table = table_of(kind);
        let sql =
            format!("SELECT count(*), count(*) FILTER (WHERE epoch <> ?2) FROM {table} WHERE source = ?1");
        let (all, old): (i64, i64) = connection
            .prepare_cached(&sql)?
            .query_row(params![source, signed(epoch)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        total += all.unsigned_abs();
        doomed += old.unsigned_abs();
    }
    Ok((doomed, total))
}

/// Deletes what a snapshot did not name.
pub(super) fn sweep(connection: &Connection, source: i64, epoch: u64) -> Result<u64, StoreError> {
    let (mut deletes, mut tally) = (0, Tally::default());
    for kind in Kind::ALL {
        let sql = format!("DELETE FROM {} WHERE source = ?1 AND epoch <> ?2", table_of(kind));
        let deleted = connection.prepare_cached(&sql)?.execute(params![source, signed(epoch)])?;
        *tally.of(kind) -= i64::try_from(deleted).unwrap_or(i64::MAX);
        deletes += u64::try_from(deleted).unwrap_or(u64::MAX);
    }
    tally.add_to(connection, source)?;
    if deletes > 0 {
        let sql = format!("DELETE FROM objects WHERE source = ?1 AND {UNUSED}");
        connection.prepare_cached(&sql)?.execute([source])?;
    }
    Ok(deletes)
}

/// What writes one batch into one source; `mobile_rows` adds the kinds of mail systems.
pub(super) struct Writer<'a> {
    pub(super) connection: &'a Connection,
    pub(super) tenant: &'a str,
    pub(super) source: i64,
    pub(super) epoch: i64,
    numbers: &'a mut Numbers,
    tally: Tally,
}

impl Writer<'_> {
    /// The small number of a directory id, made at first sight.
    fn number(&mut self, key: &str) -> Result<i64, StoreError> {
        self.number_or_new(key).map(|(number, _)| number)
    }

    /// The same, and whether it was made now: then nothing else knows it yet.
    fn number_or_new(&mut self, key: &str) -> Result<(i64, bool), StoreError> {
        if let Some(number) = self.numbers.get(key) {
            return Ok((*number, false));
        }
        let (number, is_new) = match self.known_number(key)? {
            Some(number) => (number, false),
            None => {
                let mut insert =
                    self.connection.prepare_cached("INSERT INTO objects (source, key) VALUES (?1, ?2)")?;
                (insert.insert(params![self.source, key])?, true)
            }
        };
        self.numbers.insert(key.to_owned(), number);
        Ok((number, is_new))
    }

    /// The number of an object about to be written, which is counted if its row is not there yet.
    pub(super) fn counted(&mut self, kind: Kind, key: &str) -> Result<i64, StoreError> {
        let (id, is_new) = self.number_or_new(key)?;
        if is_new || !self.has_row(kind, id)? {
            *self.tally.of(kind) += 1;
        }
        Ok(id)
    }

    fn known_number(&self, key: &str) -> Result<Option<i64>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT id FROM objects WHERE source = ?1 AND key = ?2")?
            .query_row(params![self.source, key], |row| row.get(0))
            .optional()?)
    }

    fn has_row(&self, kind: Kind, id: i64) -> Result<bool, StoreError> {
        let sql = format!("SELECT 1 FROM {} WHERE id = ?1", table_of(kind));
        Ok(self.connection.prepare_cached(&sql)?.exists([id])?)
    }

    fn user(&mut self, key: &str, user: &UserRecord) -> Result<(), StoreError> {
        let id = self.counted(Kind::User, key)?;
        let name = user.display_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&user.login);
        let texts = [
            Some(user.login.as_str()),
            user.display_name.as_deref(),
            user.given_name.as_deref(),
            user.surname.as_deref(),
            user.mail.as_deref(),
            user.upn.as_deref(),
        ];
        self.connection
            .prepare_cached(
                "INSERT INTO users (id, tenant, source, key, epoch, login, dn, parent, enabled, upn, display_name, \
                 given_name, surname, mail, attributes, sort, search) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
                 ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, login = excluded.login, dn = excluded.dn, \
                 parent = excluded.parent, enabled = excluded.enabled, upn = excluded.upn, \
                 display_name = excluded.display_name, given_name = excluded.given_name, \
                 surname = excluded.surname, mail = excluded.mail, attributes = excluded.attributes, \
                 sort = excluded.sort, search = excluded.search",
            )?
            .execute(params![
                id,
                self.tenant,
                self.source,
                key,
                self.epoch,
                user.login,
                user.dn,
                user.parent,
                user.enabled,
                user.upn,
                user.display_name,
                user.given_name,
                user.surname,
                user.mail,
                to_json(&user.attributes),
                name.to_lowercase(),
                search_text(&texts)
            ])?;
        Ok(())
    }

    fn group(&mut self, key: &str, group: &GroupRecord) -> Result<(), StoreError> {
        let id = self.counted(Kind::Group, key)?;
        let texts = [Some(group.name.as_str()), group.description.as_deref(), group.mail.as_deref()];
        self.connection
            .prepare_cached(
                "INSERT INTO groups (id, tenant, source, key, epoch, name, dn, parent, description, mail, security, \
                 sort, search) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
                 ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, name = excluded.name, dn = excluded.dn, \
                 parent = excluded.parent, description = excluded.description, mail = excluded.mail, \
                 security = excluded.security, sort = excluded.sort, search = excluded.search",
            )?
            .execute(params![
                id,
                self.tenant,
                self.source,
                key,
                self.epoch,
                group.name,
                group.dn,
                group.parent,
                group.description,
                group.mail,
                group.security,
                group.name.to_lowercase(),
                search_text(&texts)
            ])?;
        Ok(())
    }

    fn ou(&mut self, key: &str, ou: &OuRecord) -> Result<(), StoreError> {
        let id = self.counted(Kind::Ou, key)?;
        self.connection
            .prepare_cached(
                "INSERT INTO ous (id, tenant, source, key, epoch, name, dn, parent, sort, search) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
                 ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, name = excluded.name, dn = excluded.dn, \
                 parent = excluded.parent, sort = excluded.sort, search = excluded.search",
            )?
            .execute(params![
                id,
                self.tenant,
                self.source,
                key,
                self.epoch,
                ou.name,
                ou.dn,
                ou.parent,
                ou.name.to_lowercase(),
                search_text(&[Some(ou.name.as_str())])
            ])?;
        Ok(())
    }

    fn member(&mut self, group: &str, member: &str) -> Result<(), StoreError> {
        let (group, member) = (self.number(group)?, self.number(member)?);
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO members (group_id, member_id, source, epoch) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (group_id, member_id) DO NOTHING",
            )?
            .execute(params![group, member, self.source, self.epoch])?;
        if inserted == 1 {
            *self.tally.of(Kind::Member) += 1;
            return Ok(());
        }
        self.connection
            .prepare_cached("UPDATE members SET epoch = ?3 WHERE group_id = ?1 AND member_id = ?2")?
            .execute(params![group, member, self.epoch])?;
        Ok(())
    }

    fn gone(&mut self, kind: Kind, key: &str, member: Option<&str>) -> Result<u64, StoreError> {
        let Some(id) = self.known_number(key)? else { return Ok(0) };
        let sql = match kind {
            Kind::Member => "DELETE FROM members WHERE group_id = ?1 AND member_id = ?2".to_owned(),
            kind => format!("DELETE FROM {} WHERE id = ?1", table_of(kind)),
        };
        let mut statement = self.connection.prepare_cached(&sql)?;
        let deleted = match (kind, member) {
            (Kind::Member, Some(member)) => match self.known_number(member)? {
                Some(number) => {
                    let deleted = statement.execute(params![id, number])?;
                    self.forget_if_unused(number, member)?;
                    deleted
                }
                None => 0,
            },
            (Kind::Member, None) => 0,
            _ => statement.execute([id])?,
        };
        self.forget_if_unused(id, key)?;
        *self.tally.of(kind) -= i64::try_from(deleted).unwrap_or(i64::MAX);
        Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
    }

    /// Forgets the number of an id that nothing refers to any more. An object and its memberships go in any order, so
    /// each deletion looks.
    fn forget_if_unused(&mut self, number: i64, key: &str) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM objects WHERE id = ?1 AND {UNUSED}");
        if self.connection.prepare_cached(&sql)?.execute([number])? > 0 {
            self.numbers.remove(key);
        }
        Ok(())
    }
}

/// Whether nothing refers to a row of `objects`.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM users u WHERE u.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM ous o WHERE o.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM device_policies p WHERE p.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM mail_organizations a WHERE a.id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM members m WHERE m.member_id = objects.id) \
                      AND NOT EXISTS (SELECT 1 FROM members m WHERE m.group_id = objects.id)";

/// What a search looks through: lower case, one text.
pub(super) fn search_text(texts: &[Option<&str>]) -> String {
    let mut all = String::new();
    for text in texts.iter().flatten() {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&text.to_lowercase());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for script in crate::store::SCHEMA {
            connection.execute_batch(script).unwrap();
        }
        connection
            .execute_batch(
                "INSERT INTO tenants (id, name, created_ms) VALUES ('t', 'T', 0); \
                 INSERT INTO sources (id, tenant, source) VALUES (1, 't', 'directory');",
            )
            .unwrap();
        connection
    }

    fn user(key: &str) -> Change {
        Change { key: key.to_owned(), row: Row::User(Box::default()) }
    }

    fn group(key: &str) -> Change {
        Change { key: key.to_owned(), row: Row::Group(Box::default()) }
    }

    fn member(group: &str, member: &str) -> Change {
        Change { key: group.to_owned(), row: Row::Member(member.to_owned()) }
    }

    fn gone(kind: Kind, key: &str, member: Option<&str>) -> Change {
        Change { key: key.to_owned(), row: Row::Gone(kind, member.map(str::to_owned)) }
    }

    fn keys(connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare("SELECT key FROM objects ORDER BY key").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn ids_of_what_is_gone_are_forgotten_whatever_went_first() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let connection = store();
            let all = [user("u"), user("stays"), group("g"), member("g", "u")];
            apply(&connection, &mut Numbers::new(), "t", 1, 1, &all).unwrap();
            let mut gone = [
                gone(Kind::User, "u", None),
                gone(Kind::Member, "g", Some("u")),
                gone(Kind::Group, "g", None),
            ]
            .map(Some);
            let changes: Vec<Change> = order.iter().filter_map(|n| gone[*n].take()).collect();
            assert_eq!(apply(&connection, &mut Numbers::new(), "t", 1, 2, &changes).unwrap().deletes, 3);
            assert_eq!(keys(&connection), ["stays"], "{order:?}");
        }
    }

    #[test]
    fn an_id_that_comes_back_in_the_same_batch_is_there() {
        let connection = store();
        let changes = [user("u"), gone(Kind::User, "u", None), user("u"), member("g", "u")];
        apply(&connection, &mut Numbers::new(), "t", 1, 1, &changes).unwrap();
        assert_eq!(keys(&connection), ["g", "u"]);
        let users: i64 = connection.query_row("SELECT users FROM sources", [], |row| row.get(0)).unwrap();
        assert_eq!(users, 1);
    }

    #[test]
    fn numbers_are_kept_for_one_upload_and_forgotten_with_their_objects() {
        let (connection, mut kept) = (store(), Kept::default());
        let mut batch = |upload: &str, changes: &[Change]| {
            let numbers = kept.numbers_for(upload);
            apply(&connection, numbers, "t", 1, 1, changes).unwrap();
            numbers.len()
        };
        assert_eq!(batch("one", &[group("g"), user("u"), member("g", "u")]), 2);
        assert_eq!(batch("one", &[gone(Kind::Member, "g", Some("u")), gone(Kind::User, "u", None)]), 1);
        assert_eq!(batch("one", &[member("g", "u"), user("v")]), 3);
        assert_eq!(batch("two", &[member("g", "v")]), 2);
        assert_eq!(keys(&connection), ["g", "u", "v"]);
        let dangling = "SELECT count(*) FROM members WHERE member_id NOT IN (SELECT id FROM objects)";
        assert_eq!(connection.query_row(dangling, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn a_snapshot_forgets_what_it_does_not_name() {
        let connection = store();
        let before = [user("old"), user("kept"), group("g"), member("g", "old")];
        apply(&connection, &mut Numbers::new(), "t", 1, 1, &before).unwrap();
        apply(&connection, &mut Numbers::new(), "t", 1, 2, &[user("kept"), user("new")]).unwrap();
        assert_eq!(sweep(&connection, 1, 2).unwrap(), 3);
        assert_eq!(keys(&connection), ["kept", "new"]);
    }
}
