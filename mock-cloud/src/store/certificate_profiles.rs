//! Certificate profiles: what certificates of one purpose look like, whose devices get one, and which version is current.

use causeway_protocol::certificate::Profile;
use rusqlite::{Connection, Row, params};

use super::audit::{self, Entry};
use super::rows::{json, signed, to_json, unsigned};
use super::{Store, StoreError};

/// A profile as the cloud keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// Name for people.
    pub name: String,
    /// What agents get.
    pub profile: Profile,
    /// The version since which certificates look as they do now.
    pub shape: u64,
    /// Whose devices get it: logins, principal names or mail addresses; everyone's when empty.
    pub users: Vec<String>,
    /// Unix milliseconds of the last change.
    pub changed_ms: i64,
}

impl ProfileRow {
    /// Whether two versions lead to the same certificates.
    fn looks_like(&self, other: &Profile) -> bool {
        let ours = &self.profile;
        (&ours.authority, &ours.template, ours.key_mode, ours.key, &ours.subject, &ours.alternative_names)
            == (
                &other.authority,
                &other.template,
                other.key_mode,
                other.key,
                &other.subject,
                &other.alternative_names,
            )
    }
}

impl Store {
    /// Writes a profile. The version counts up when something of it has changed; repeating a write changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_certificate_profile(
        &self,
        tenant: &str,
        name: String,
        mut profile: Profile,
        users: Vec<String>,
        actor: &str,
        now_ms: i64,
    ) -> Result<ProfileRow, StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let old = one(connection, &tenant, &profile.id)?;
            profile.version = old.as_ref().map_or(1, |old| old.profile.version);
            if let Some(old) = &old
                && old.profile != profile
            {
                profile.version += 1;
            }
            let looks_the_same = old.as_ref().filter(|old| old.looks_like(&profile));
            let shape = looks_the_same.map_or(profile.version, |old| old.shape);
            let row = ProfileRow { name, profile, shape, users, changed_ms: now_ms };
            if let Some(old) = old
                && (&old.name, &old.profile, &old.users) == (&row.name, &row.profile, &row.users)
            {
                return Ok(old);
            }
            connection.execute(
                "INSERT INTO certificate_profiles (tenant, id, name, version, shape, profile, users, changed_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (tenant, id) DO UPDATE SET \
                 name = excluded.name, version = excluded.version, shape = excluded.shape, \
                 profile = excluded.profile, users = excluded.users, changed_ms = excluded.changed_ms",
                params![
                    tenant,
                    row.profile.id,
                    row.name,
                    signed(row.profile.version),
                    signed(row.shape),
                    to_json(&row.profile),
                    to_json(&row.users),
                    now_ms
                ],
            )?;
            let body = serde_json::json!({ "profile": row.profile.id, "version": row.profile.version });
            audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "certificate_profile_changed", body))?;
            Ok(row)
        })
        .await
    }

    /// One profile.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_profile(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<ProfileRow>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| one(connection, &tenant, &id)).await
    }

    /// All profiles by their ids; a tenant has few.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_profiles(&self, tenant: &str) -> Result<Vec<ProfileRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT name, shape, profile, users, changed_ms FROM certificate_profiles WHERE tenant = ?1 ORDER BY id",
            )?;
            let mut rows = query.query([tenant])?;
            let mut profiles = Vec::new();
            while let Some(row) = rows.next()? {
                profiles.push(read(row)?);
            }
            Ok(profiles)
        })
        .await
    }

    /// Removes a profile: nothing is issued or renewed by it any more. `false` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_certificate_profile(
        &self,
        tenant: &str,
        id: &str,
        actor: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, id, actor) = (tenant.to_owned(), id.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let removed = connection.execute(
                "DELETE FROM certificate_profiles WHERE tenant = ?1 AND id = ?2",
                params![tenant, id],
            )?;
            if removed == 1 {
                let body = serde_json::json!({ "profile": id });
                audit::append(
                    connection,
                    &Entry::new(&tenant, now_ms, &actor, "certificate_profile_removed", body),
                )?;
            }
            Ok(removed == 1)
        })
        .await
    }

    /// Tenants that have a profile, or certificates that may still have to be revoked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_tenants(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT tenant FROM certificate_profiles UNION SELECT tenant FROM certificates ORDER BY 1",
            )?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .await
    }
}

pub(super) fn one(connection: &Connection, tenant: &str, id: &str) -> Result<Option<ProfileRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT name, shape, profile, users, changed_ms FROM certificate_profiles WHERE tenant = ?1 AND id = ?2",
    )?;
    let mut rows = query.query(params![tenant, id])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<ProfileRow, StoreError> {
    Ok(ProfileRow {
        name: row.get("name")?,
        profile: json("certificate profile", &row.get::<_, String>("profile")?)?,
        shape: unsigned(row, "shape")?,
        users: json("users of a certificate profile", &row.get::<_, String>("users")?)?,
        changed_ms: row.get("changed_ms")?,
    })
}
