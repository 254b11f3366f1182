//! Whether the cloud has what the company has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Census, World};

impl World {
    /// Compares the cloud with the directory.
    ///
    /// # Errors
    /// The first difference.
    pub async fn in_step(&self) -> Result<String> {
        let directory = self.ldap.census().await?;
        let cloud = self.cloud_census().await?;
        if let Some(problem) = directory.difference(&cloud) {
            bail!("{problem}");
        }
        let edges: usize = directory.groups.values().map(BTreeSet::len).sum();
        let (people, groups) = (directory.people.len(), directory.groups.len());
        Ok(format!("{people} people, {groups} groups and {edges} memberships agree"))
    }

    async fn cloud_census(&self) -> Result<Census> {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (users, groups) = (self.tenant.all("users").await?, self.tenant.all("groups").await?);
        let both = users.iter().chain(&groups);
        let names: BTreeMap<String, String> =
            both.map(|object| (text(object, "id"), text(object, "dn"))).collect();
        let mut census = Census::default();
        census.people.extend(users.iter().map(|user| (text(user, "dn"), text(user, "mail"))));
        for group in &groups {
            let members = self.tenant.all(&format!("groups/{}/members", text(group, "id"))).await?;
            let members = members.iter().filter_map(|member| names.get(&text(member, "id")).cloned());
            census.groups.insert(text(group, "dn"), members.collect());
        }
        Ok(census)
    }

    /// Compares the phones in the cloud with those of the mail system.
    ///
    /// # Errors
    /// The first difference.
    pub async fn mail_in_step(&self) -> Result<String> {
        let theirs = self.mail()?.states();
        let text = |device: &Value, key: &str| device[key].as_str().unwrap_or_default().to_lowercase();
        let devices = self.tenant.all("devices").await?;
        let ours: BTreeMap<String, String> =
            devices.iter().map(|device| (text(device, "id"), text(device, "access_state"))).collect();
        let (here, there) = (ours.len(), theirs.len());
        if let Some((key, state)) = theirs.iter().find(|(key, state)| ours.get(*key) != Some(*state)) {
            let known = ours.get(key).map_or("not there", String::as_str);
            bail!(
                "the phone {key} is {state}, in the cloud it is {known} ({there} phones, {here} in the cloud)"
            );
        }
        if let Some(key) = ours.keys().find(|key| !theirs.contains_key(*key)) {
            bail!("the cloud has the phone {key}, the mail system does not");
        }
        Ok(format!("{there} phones agree"))
    }
}
