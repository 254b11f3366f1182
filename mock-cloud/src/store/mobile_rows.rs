//! Writing phones, their policies and mail systems as uploads bring them.

use causeway_protocol::mobile::{DevicePolicyRecord, DeviceRecord, MailOrganizationRecord};
use causeway_protocol::record::Kind;
use rusqlite::params;

use super::StoreError;
use super::people::{Writer, search_text};
use super::rows::to_json;

impl Writer<'_> {
    pub(super) fn device(&mut self, key: &str, device: &DeviceRecord) -> Result<(), StoreError> {
        let id = self.counted(Kind::Device, key)?;
        let texts = [
            device.display_name.as_deref(),
            device.user.as_deref(),
            device.address.as_deref(),
            device.friendly_name.as_deref(),
            device.model.as_deref(),
            device.device_type.as_deref(),
            device.os.as_deref(),
            device.imei.as_deref(),
            device.phone_number.as_deref(),
            Some(device.device_id.as_str()),
        ];
        let owner = owner_of(device);
        self.connection
            .prepare_cached(
                "INSERT INTO devices (id, tenant, source, key, epoch, device_id, owner, model, imei, state, \
                 policy, first_sync, record, sort, search) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
                 ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, device_id = excluded.device_id, \
                 owner = excluded.owner, model = excluded.model, imei = excluded.imei, state = excluded.state, \
                 policy = excluded.policy, first_sync = excluded.first_sync, record = excluded.record, sort = excluded.sort, \
                 search = excluded.search",
            )?
            .execute(params![
                id,
                self.tenant,
                self.source,
                key,
                self.epoch,
                device.device_id,
                owner,
                device.model,
                device.imei,
                device.access_state,
                device.policy,
                device.first_sync,
                to_json(device),
                device.display_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(owner).to_lowercase(),
                search_text(&texts)
            ])?;
        Ok(())
    }

    pub(super) fn device_policy(&mut self, key: &str, policy: &DevicePolicyRecord) -> Result<(), StoreError> {
        let id = self.counted(Kind::DevicePolicy, key)?;
        self.document("device_policies", id, key, &policy.name, &to_json(policy))
    }

    pub(super) fn mail_organization(
        &mut self,
        key: &str,
        organization: &MailOrganizationRecord,
    ) -> Result<(), StoreError> {
        let id = self.counted(Kind::MailOrganization, key)?;
        self.document("mail_organizations", id, key, &organization.name, &to_json(organization))
    }

    /// A row that is found by its name only.
    fn document(
        &self,
        table: &'static str,
        id: i64,
        key: &str,
        name: &str,
        record: &str,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO {table} (id, tenant, source, key, epoch, record, sort, search) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7) ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, \
             record = excluded.record, sort = excluded.sort, search = excluded.search"
        );
        self.connection.prepare_cached(&sql)?.execute(params![
            id,
            self.tenant,
            self.source,
            key,
            self.epoch,
            record,
            name.to_lowercase()
        ])?;
        Ok(())
    }
}

/// Whose phone it is, in the word that says most about that.
fn owner_of(device: &DeviceRecord) -> &str {
    let words = [device.user.as_deref(), device.address.as_deref()];
    words.into_iter().flatten().find(|word| !word.is_empty()).unwrap_or(&device.mailbox)
}
