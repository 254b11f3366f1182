//! Certificates of devices: who gets which, when they are renewed, and how they end.
//!
//! Nothing here depends on a timer that must not be missed: [`reconcile`] looks at profiles, devices, requests and the
//! inventory as they stand and does what is lacking, whenever one of them changes, when a moment in them comes, and after a
//! start. One request is open for a device and profile at most; its id is the order's idempotency key, so that whatever is
//! repeated after a crash leads to the same order.

mod orders;
mod outcome;
mod reading;
mod reconcile;
mod renewal;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use causeway_protocol::certificate::{Profile, Stage};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::events::kinds;
use crate::state::{Changes, Cloud};
use crate::store::{
    ActionRow, CertificateRequest, DeviceCertificate, EnrolledDevice, ProfileRow, StoreError,
};

pub(crate) use orders::{
    HandInError, Handover, challenge, hand_in, is_for, meant_for, publish_profiles, renew, sealed_elsewhere,
    want,
};
pub(crate) use outcome::{certified, recorded};
pub(crate) use reading::{names_of, pem_of, subject_words};
pub(crate) use reconcile::device_wiped;

/// Kind of the agents' module.
pub const MODULE: &str = "certificates";
/// Verb of the order for a certificate.
pub const ISSUE: &str = "issue_certificate";
/// Verb of a revocation.
pub const REVOKE: &str = "revoke_certificate";

/// Tenants that must be looked at, and who waits for their requests.
#[derive(Default)]
pub struct Certificates {
    /// With whether wipes in mail systems are news too, which cost a look at every phone.
    touched: Mutex<BTreeMap<String, bool>>,
    wake: Notify,
    /// Wakes devices that wait, by their ids.
    pub(crate) devices: Changes,
    /// When each tenant was last looked at, by the cloud's clock.
    looked: Mutex<BTreeMap<String, i64>>,
    /// What alerts said last, by tenant, code and subject.
    said: Mutex<BTreeMap<String, String>>,
}

impl Certificates {
    /// Something that certificates of this tenant depend on has changed.
    pub fn touch(&self, tenant: &str) {
        self.touch_with(tenant, false);
    }

    /// As [`Self::touch`], for an upload that may bring news of wipes.
    pub fn touch_phones(&self, tenant: &str) {
        self.touch_with(tenant, true);
    }

    fn touch_with(&self, tenant: &str, phones: bool) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        *touched.entry(tenant.to_owned()).or_default() |= phones;
        drop(touched);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeMap<String, bool> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the tenant was last looked at: everything that was due then has been begun.
    pub fn looked_ms(&self, tenant: &str) -> i64 {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or(0)
    }

    fn is_news(&self, key: String, words: String) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(key, words.clone()).as_ref() != Some(&words)
    }

    fn looked(&self, tenant: &str, now_ms: i64) {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.to_owned(), now_ms);
    }
}

/// Starts what looks after certificates.
pub(crate) fn start(cloud: &Arc<Cloud>) {
    tokio::spawn(reconcile::watch(Arc::clone(cloud)));
}

/// Whether an action orders a certificate.
pub(crate) fn is_about(action: &ActionRow) -> bool {
    action.module == MODULE && matches!(action.action.as_str(), ISSUE | REVOKE)
}

/// An agent says how far an order is.
///
/// # Errors
/// When the store fails.
pub(crate) async fn progressed(
    cloud: &Cloud,
    action: &ActionRow,
    result: Option<&Value>,
) -> Result<(), StoreError> {
    let Some(result) = result.filter(|_| is_about(action)) else { return Ok(()) };
    let Some((stage, detail)) = stage_of(result) else { return Ok(()) };
    let changed =
        cloud.store.request_stage(&action.tenant, &action.id, stage, detail, cloud.now_ms()).await?;
    if let Some(request) = changed {
        request_changed(cloud, &action.tenant, &request);
    }
    Ok(())
}

/// The word for a stage, alone or as `stage` of an object whose `detail` is for people.
fn stage_of(result: &Value) -> Option<(&'static str, String)> {
    let word = result.get("stage").unwrap_or(result);
    let stage: Stage = serde_json::from_value(word.clone()).ok()?;
    let stage = match stage {
        Stage::Checked => "checked",
        Stage::Submitted => "submitted",
        Stage::AwaitingApproval => crate::store::stages::AWAITING_APPROVAL,
        Stage::Retrying => "retrying",
    };
    let detail = result.get("detail").and_then(Value::as_str).unwrap_or_default();
    Some((stage, detail.to_owned()))
}

/// A result came after the action had ended: the certificate exists all the same.
///
/// # Errors
/// When the store fails.
pub(crate) async fn came_late(cloud: &Cloud, action: &ActionRow, result: Value) -> Result<(), StoreError> {
    if action.action == ISSUE {
        outcome::issued(cloud, &action.tenant, action, &result).await?;
    }
    Ok(())
}

/// What a device has, and must do, of one profile.
pub(crate) struct Assignment {
    pub(crate) profile: Profile,
    pub(crate) name: String,
    /// The certificate it has, or may fetch.
    pub(crate) certificate: Option<DeviceCertificate>,
    /// The newest request.
    pub(crate) request: Option<CertificateRequest>,
    /// What the device must do now: `enrol`, `renew`, `replace`, `install`, or nothing.
    pub(crate) wanted: Option<String>,
}

/// Everything a device is to have.
///
/// # Errors
/// When the store fails.
pub(crate) async fn assignments(
    cloud: &Cloud,
    tenant: &str,
    device: &EnrolledDevice,
) -> Result<Vec<Assignment>, StoreError> {
    let now_ms = cloud.now_ms();
    let profiles = cloud.store.certificate_profiles(tenant).await?;
    let has = cloud.store.certificates_of_device(tenant, &device.id, now_ms).await?;
    let requests = cloud.store.newest_requests(tenant, &device.id).await?;
    let assigned = profiles.into_iter().filter(|row| is_for(row, device));
    Ok(assigned.map(|row| assignment(row, &has, &requests)).collect())
}

fn assignment(row: ProfileRow, has: &[DeviceCertificate], requests: &[CertificateRequest]) -> Assignment {
    use crate::store::stages;
    let mine = |profile: &String| *profile == row.profile.id;
    let in_use = has.iter().rfind(|it| mine(&it.profile) && it.installed_ms.is_some());
    let certificate = in_use.or_else(|| has.iter().rfind(|it| mine(&it.profile))).cloned();
    let request = requests.iter().find(|it| mine(&it.profile)).cloned();
    let wanted = match &request {
        Some(request) if request.open => match request.stage.as_str() {
            stages::WANTED | stages::CHALLENGED => Some(request.reason.clone()),
            stages::ISSUED => Some("install".to_owned()),
            _ => None,
        },
        // What it had is gone or never was. Renewals of what it has come as requests.
        _ if in_use.is_none() => Some(crate::store::reasons::ENROL.to_owned()),
        _ => None,
    };
    Assignment { profile: row.profile, name: row.name, certificate, request, wanted }
}

/// Tells live feeds, the device and those who wait for the request. Call it after the commit.
pub(crate) fn request_changed(cloud: &Cloud, tenant: &str, request: &CertificateRequest) {
    let body = json!({
        "request": request.id, "certificate": request.certificate, "device": request.device, "user": request.user,
        "profile": request.profile, "step": request.stage,
    });
    cloud.events.emit(tenant, kinds::CERTIFICATE, body);
    cloud.certificates.devices.changed(&request.device);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_as_words_or_with_a_detail() {
        assert_eq!(stage_of(&json!("submitted")), Some(("submitted", String::new())));
        let held = json!({"stage": "awaiting_approval", "detail": "request 17 waits"});
        assert_eq!(stage_of(&held), Some(("awaiting_approval", "request 17 waits".to_owned())));
        assert_eq!(stage_of(&json!({"held": true})), None);
        assert_eq!(stage_of(&json!("issued")), None, "what has ended does not come as progress");
    }
}
