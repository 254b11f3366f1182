//! Enrolment keys: verifiers only, each good for one agent.

use rusqlite::{OptionalExtension as _, params};

use super::audit::{self, Entry};
use super::{Store, StoreError};
use crate::channel::scram::Verifier;
use crate::pki::AgentIdentity;

/// A key to store.
pub struct NewEnrollmentKey {
    /// Its public half, the SCRAM user name.
    pub id: String,
    /// What proves its secret half.
    pub verifier: Verifier,
    /// Unix milliseconds.
    pub expires_ms: i64,
}

/// A stored key.
pub struct EnrollmentKeyRow {
    /// Whose agent it makes.
    pub tenant: String,
    /// What proves its secret half.
    pub verifier: Verifier,
    /// Unix milliseconds.
    pub expires_ms: i64,
    /// Host name of the agent that used it.
    pub used_by: Option<String>,
}

/// An agent to enrol.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Who it is from now on.
    pub identity: AgentIdentity,
    /// Host name, for people.
    pub host: String,
    /// Serial number of its certificate.
    pub serial: String,
    /// Unix milliseconds of the certificate's end.
    pub expires_ms: i64,
}

/// What became of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The agent exists and the key is used up.
    Done,
    /// Someone else used the key first, or it is over.
    KeyUsed,
}

impl Store {
    /// Stores a key's verifier.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_enrollment_key(
        &self,
        tenant: &str,
        new: NewEnrollmentKey,
        actor: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let verifier = &new.verifier;
            connection.execute(
                "INSERT INTO enrollment_keys (id, tenant, salt, iterations, stored_key, server_key, created_ms, \
                 expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    new.id,
                    tenant,
                    verifier.salt,
                    verifier.iterations,
                    verifier.stored_key,
                    verifier.server_key,
                    now_ms,
                    new.expires_ms
                ],
            )?;
            let body = serde_json::json!({ "key": new.id, "expires_ms": new.expires_ms });
            audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "enrollment_key_created", body))
        })
        .await
    }

    /// Looks a key up by its public half.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enrollment_key(&self, id: &str) -> Result<Option<EnrollmentKeyRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT tenant, salt, iterations, stored_key, server_key, expires_ms, used_by \
                 FROM enrollment_keys WHERE id = ?1",
            )?;
            let key = query
                .query_row([id], |row| {
                    Ok(EnrollmentKeyRow {
                        tenant: row.get(0)?,
                        verifier: Verifier {
                            salt: row.get(1)?,
                            iterations: row.get(2)?,
                            stored_key: row.get(3)?,
                            server_key: row.get(4)?,
                        },
                        expires_ms: row.get(5)?,
                        used_by: row.get(6)?,
                    })
                })
                .optional()?;
            Ok(key)
        })
        .await
    }

    /// Uses the key up and creates the agent: both or neither.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enroll(&self, key: &str, agent: NewAgent, now_ms: i64) -> Result<Enrolled, StoreError> {
        let key = key.to_owned();
        self.write(move |connection| {
            let AgentIdentity { tenant, instance } = &agent.identity;
            let used = connection.execute(
                "UPDATE enrollment_keys SET used_ms = ?3, used_by = ?4 \
                 WHERE id = ?1 AND tenant = ?2 AND used_ms IS NULL AND expires_ms > ?3",
                params![key, tenant, now_ms, agent.host],
            )?;
            if used == 0 {
                return Ok(Enrolled::KeyUsed);
            }
            connection.execute(
                "INSERT INTO agents (tenant, instance, host, enrolled_ms, certificate_serial, \
                 certificate_expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![tenant, instance, agent.host, now_ms, agent.serial, agent.expires_ms],
            )?;
            let body = serde_json::json!({ "agent": instance, "host": agent.host, "key": key });
            audit::append(connection, &Entry::new(tenant, now_ms, "channel", "agent_enrolled", body))?;
            Ok(Enrolled::Done)
        })
        .await
    }

    /// A new certificate is signed for an agent. The one it has stays good until it shows the new one: the answer
    /// may be lost, or the agent die before it has kept it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renewed(
        &self,
        identity: &AgentIdentity,
        serial: String,
        expires_ms: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let identity = identity.clone();
        self.write(move |connection| {
            connection.execute(
                "UPDATE agents SET certificate_before = \
                   CASE certificate_before WHEN '' THEN certificate_serial ELSE certificate_before END, \
                 certificate_serial = ?3, certificate_expires_ms = ?4 WHERE tenant = ?1 AND instance = ?2",
                params![identity.tenant, identity.instance, serial, expires_ms],
            )?;
            let body = serde_json::json!({ "agent": identity.instance, "serial": serial });
            let entry = Entry::new(&identity.tenant, now_ms, "channel", "certificate_renewed", body);
            audit::append(connection, &entry)
        })
        .await
    }

    /// The agent has shown its newest certificate: the one before is of no use any more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_shown(&self, identity: &AgentIdentity, serial: &str) -> Result<(), StoreError> {
        let (identity, serial) = (identity.clone(), serial.to_owned());
        self.write(move |connection| {
            connection.execute(
                "UPDATE agents SET certificate_before = '' \
                 WHERE tenant = ?1 AND instance = ?2 AND certificate_serial = ?3",
                params![identity.tenant, identity.instance, serial],
            )?;
            Ok(())
        })
        .await
    }
}
