//! One look at everything a tenant's certificates depend on, and what is lacking done.

use std::collections::HashMap;
use std::sync::Arc;

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::{KeyMode, Revoked};
use causeway_protocol::health::{Notice, Severity};
use serde_json::json;
use thiserror::Error;

use super::{MODULE, orders, outcome, publish_profiles, renewal, request_changed};
use crate::due::Due;
use crate::events::kinds;
use crate::limits::{CERTIFICATE_ENDS_SOON, CERTIFICATE_TURN_MAX, REVOCATION_TRIES_MAX};
use crate::mobile::{self, Enrolment, Phone};
use crate::state::Cloud;
use crate::store::{CertificateTroubles, DueCertificate, NewRequest, ProfileRow, StoreError, reasons};

const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Code of the alert about renewals that fail.
const RENEWAL_FAILED: &str = "certificate_renewal_failed";
/// Code of the alert about certificates in use that end.
const ENDING: &str = "certificates_ending";
/// Code of the alert about revocations that fail.
const REVOCATION_FAILED: &str = "certificate_revocation_failed";

/// Why a look could not be finished.
#[derive(Debug, Error)]
enum LookError {
    #[error("use the store")]
    Store(#[from] StoreError),
    #[error("give an order")]
    Order(#[source] orders::HandInError),
    #[error("publish profiles: {0}")]
    Publish(String),
}

/// Looks at tenants as they need it, until the cloud stops.
pub(super) async fn watch(cloud: Arc<Cloud>) {
    match cloud.store.certificate_tenants().await {
        Ok(tenants) => tenants.iter().for_each(|tenant| cloud.certificates.touch_phones(tenant)),
        Err(error) => tracing::error!(%error, "Tenants with certificates could not be read"),
    }
    let mut due = Due::default();
    loop {
        let now_ms = cloud.now_ms();
        let mut tenants = cloud.certificates.take();
        for tenant in due.at(now_ms) {
            tenants.entry(tenant.clone()).or_default();
        }
        for (tenant, phones) in tenants {
            match look(&cloud, &tenant, phones, now_ms).await {
                Ok(next_ms) => due.set(tenant, next_ms),
                Err(error) => {
                    tracing::error!(error = ?error, tenant, "Certificates could not be looked after");
                    due.set_failed(tenant, cloud.now_ms());
                }
            }
        }
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => return,
            () = cloud.certificates.wake.notified() => {}
            () = due.wait(&cloud.kit.clock) => {}
        }
    }
}

/// Does what is lacking for one tenant as of `now_ms`. Returns when to look again.
async fn look(cloud: &Arc<Cloud>, tenant: &str, phones: bool, now_ms: i64) -> Result<Option<i64>, LookError> {
    publish_profiles(cloud, tenant, "cloud").await.map_err(|problem| LookError::Publish(problem.detail))?;
    let mut more = settle_requests(cloud, tenant).await?;
    if phones {
        note_wipes(cloud, tenant).await?;
    }
    // Revoked first: what it says about a wiped device weighs more than that nobody waits.
    cloud.store.revoke_of_gone(tenant, now_ms).await?;
    cloud.store.cancel_requests_of_gone(tenant, now_ms).await?;
    more |= retime(cloud, tenant, now_ms).await?;
    let cap_ms = begin_renewals(cloud, tenant, now_ms).await?;
    more |= settle_revocations(cloud, tenant, now_ms).await?;
    more |= order_revocations(cloud, tenant, now_ms).await?;
    raise_alerts(cloud, tenant, now_ms).await?;
    cloud.certificates.looked(tenant, now_ms);
    let next_ms = cloud.store.next_certificate_moment(tenant, now_ms).await?;
    // Ends come closer without anything happening: alerts are worked out at least daily.
    let again_ms = if more { now_ms } else { now_ms + DAY_MS };
    Ok(next_ms.into_iter().chain(cap_ms).chain([again_ms]).min())
}

/// Gives orders that a crash has kept back, and takes into account what orders have come to.
async fn settle_requests(cloud: &Arc<Cloud>, tenant: &str) -> Result<bool, LookError> {
    let (unordered, ended) = cloud.store.unsettled_requests(tenant).await?;
    let more = unordered.len() > CERTIFICATE_TURN_MAX || ended.len() > CERTIFICATE_TURN_MAX;
    for request in unordered {
        match orders::order(cloud, tenant, &request).await {
            // The device is gone; its request is cancelled below.
            Ok(()) | Err(orders::HandInError::NotForDevice { .. }) => {}
            Err(error) => return Err(LookError::Order(error)),
        }
    }
    for (request, action) in ended {
        match (&action.result, action.error.clone()) {
            (Some(result), None) => outcome::issued(cloud, tenant, &action, result).await?,
            (_, error) => {
                let unknown =
                    || ErrorReport::new("internal", "the order gave no reason", "Look at the action");
                outcome::failed(cloud, tenant, &request, error.unwrap_or_else(unknown)).await?;
            }
        }
    }
    Ok(more)
}

/// A wipe in a mail system is as good as a report that the phone is lost.
async fn note_wipes(cloud: &Cloud, tenant: &str) -> Result<(), StoreError> {
    let wiped = cloud.store.wiped_phones(tenant).await?;
    if wiped.is_empty() {
        return Ok(());
    }
    let index = mobile::index_of(cloud, tenant).await?;
    for phone in wiped {
        let merge = index.merge(&Phone::of_record(&phone.record));
        let (Some(enrolled), Enrolment::Enrolled) = (&merge.enrolled, merge.enrolment) else { continue };
        let acknowledged = phone.record.wipe_acknowledged.as_deref().unwrap_or_default();
        let kind = if phone.record.wipe_status.as_deref().is_some_and(|it| it.starts_with("account_only")) {
            "account"
        } else {
            "phone"
        };
        // Ordered, then done, is one wipe; the next one is acknowledged at another time.
        let before = format!("{}/{kind}/", phone.key);
        let seen = format!("{before}{acknowledged}");
        if !acknowledged.is_empty()
            && cloud.store.wipe_confirmed(tenant, &enrolled.id, &before, &seen).await?
        {
            continue;
        }
        let now_ms = cloud.now_ms();
        if let Some(device) = cloud.store.wipe_enrolled(tenant, &enrolled.id, seen, "cloud", now_ms).await? {
            device_wiped(cloud, tenant, &device.id, &device.user);
        }
    }
    Ok(())
}

/// Tells live feeds and the device.
pub(crate) fn device_wiped(cloud: &Cloud, tenant: &str, device: &str, user: &str) {
    let body = json!({ "device": device, "user": user, "step": "wiped" });
    cloud.events.emit(tenant, kinds::CERTIFICATE, body);
    cloud.certificates.devices.changed(device);
}

/// Works out again when renewals begin whose profile has changed.
async fn retime(cloud: &Cloud, tenant: &str, now_ms: i64) -> Result<bool, StoreError> {
    let untimed = cloud.store.certificates_untimed(tenant, now_ms).await?;
    if untimed.is_empty() {
        return Ok(false);
    }
    let more = untimed.len() > CERTIFICATE_TURN_MAX;
    let profiles = by_id(cloud, tenant).await?;
    let times = untimed.into_iter().filter_map(|certificate| {
        let row = profiles.get(&certificate.profile)?;
        let regular = renewal::moment(
            &certificate.sha256,
            certificate.not_before_ms,
            certificate.not_after_ms,
            row.profile.renew_days,
        );
        let at_ms = if certificate.version < row.shape {
            regular.min(renewal::replacement(&certificate.sha256, row.changed_ms))
        } else {
            regular
        };
        Some((certificate.sha256, at_ms, row.profile.version))
    });
    cloud.store.time_renewals(tenant, times.collect()).await?;
    Ok(more)
}

async fn by_id(cloud: &Cloud, tenant: &str) -> Result<HashMap<String, ProfileRow>, StoreError> {
    let profiles = cloud.store.certificate_profiles(tenant).await?;
    Ok(profiles.into_iter().map(|row| (row.profile.id.clone(), row)).collect())
}

/// Begins renewals that are due, those that end first before the others, as many as the pace allows. Returns when there is
/// room for more, if that was not enough.
async fn begin_renewals(cloud: &Arc<Cloud>, tenant: &str, now_ms: i64) -> Result<Option<i64>, LookError> {
    let pace = cloud.config.certificates.renewals_per_hour;
    let (begun, first_ms) = cloud.store.planned_since(tenant, now_ms - HOUR_MS).await?;
    let room = usize::try_from(pace.saturating_sub(begun)).unwrap_or(usize::MAX).min(CERTIFICATE_TURN_MAX);
    let due = cloud.store.certificates_due(tenant, room + 1, now_ms).await?;
    let more = due.len() > room;
    let profiles = by_id(cloud, tenant).await?;
    for DueCertificate { certificate, outdated } in due.into_iter().take(room) {
        let Some(row) = profiles.get(&certificate.profile) else { continue };
        let Some(device) = cloud.store.enrolled_device(tenant, &certificate.device).await? else { continue };
        if !orders::is_for(row, &device) {
            // Nobody renews what its owner is not to have; it ends by itself.
            let never = vec![(certificate.sha256, i64::MAX, row.profile.version)];
            cloud.store.time_renewals(tenant, never).await?;
            continue;
        }
        let device_key = match row.profile.key_mode {
            KeyMode::Agent => cloud.store.last_device_key(tenant, &device.id, &certificate.profile).await?,
            KeyMode::Device => None,
        };
        let detail = if outdated {
            "the profile has changed".to_owned()
        } else {
            let days = (certificate.not_after_ms - now_ms).div_euclid(DAY_MS);
            if days < 0 { format!("it ended {} days ago", -days) } else { format!("it ends in {days} days") }
        };
        let new = NewRequest {
            device: device.id,
            user: device.user,
            profile: certificate.profile,
            version: row.profile.version,
            reason: if outdated { reasons::REPLACE } else { reasons::RENEW },
            renews: Some(certificate.sha256),
            planned: true,
            device_key,
            detail,
        };
        let (request, is_new) = cloud.store.open_request(tenant, new, now_ms).await?;
        if is_new {
            request_changed(cloud, tenant, &request);
            if request.stage == crate::store::stages::ORDERED {
                orders::order(cloud, tenant, &request).await.map_err(LookError::Order)?;
            }
        }
    }
    Ok(match (more, first_ms) {
        (false, _) => None,
        (true, _) if room == CERTIFICATE_TURN_MAX => Some(now_ms),
        (true, first_ms) => Some(first_ms.unwrap_or(now_ms).saturating_add(HOUR_MS)),
    })
}

/// Takes into account what revocations have come to.
async fn settle_revocations(cloud: &Cloud, tenant: &str, now_ms: i64) -> Result<bool, StoreError> {
    let ended = cloud.store.revocations_ended(tenant, now_ms).await?;
    let more = ended.len() > CERTIFICATE_TURN_MAX;
    for (certificate, outcome) in ended {
        let tries = certificate.revocation.as_ref().map_or(1, |revocation| revocation.tries);
        let (done, note, again_ms) = match outcome.map(serde_json::from_value::<Revoked>) {
            Ok(Ok(revoked)) => (revoked.revoked, revoked.note, None),
            Ok(Err(_)) => (false, "the agent's answer is none".to_owned(), again(tries, now_ms)),
            Err(error) => (false, error.detail, again(tries, now_ms)),
        };
        cloud
            .store
            .revocation_ended(tenant, &certificate.sha256, done, note.clone(), again_ms, now_ms)
            .await?;
        let step = match (done, again_ms) {
            (true, _) => "revoked",
            (false, None) => "not_revocable",
            (false, Some(_)) => "revocation_failed",
        };
        let body = json!({
            "certificate": certificate.sha256, "device": certificate.device, "user": certificate.user,
            "profile": certificate.profile, "step": step, "detail": note,
        });
        cloud.events.emit(tenant, kinds::CERTIFICATE, body);
    }
    Ok(more)
}

fn again(tries: u32, now_ms: i64) -> Option<i64> {
    (tries < REVOCATION_TRIES_MAX).then(|| orders::retry_ms(tries, now_ms))
}

async fn order_revocations(cloud: &Arc<Cloud>, tenant: &str, now_ms: i64) -> Result<bool, LookError> {
    let due = cloud.store.revocations_due(tenant, now_ms).await?;
    let more = due.len() > CERTIFICATE_TURN_MAX;
    for certificate in due {
        let action = orders::order_revocation(cloud, tenant, &certificate).await.map_err(LookError::Order)?;
        cloud.store.revocation_ordered(tenant, &certificate.sha256, &action).await?;
    }
    Ok(more)
}

async fn raise_alerts(cloud: &Cloud, tenant: &str, now_ms: i64) -> Result<(), StoreError> {
    let soon_ms = now_ms + i64::try_from(CERTIFICATE_ENDS_SOON.as_millis()).unwrap_or(0);
    let CertificateTroubles { failed, ending, revocations } =
        cloud.store.certificate_troubles(tenant, soon_ms, now_ms).await?;
    let notices = [
        (
            RENEWAL_FAILED,
            failed,
            Severity::Warning,
            format!("{} could not be renewed at the last try", certificates(failed)),
            "Look at the failed requests on the Certificates page; each says what was in the way",
        ),
        (
            ENDING,
            ending,
            Severity::Critical,
            format!("{} in use end within two days or have ended", certificates(ending)),
            "Devices that are off renew when they come back; for the others look at their requests",
        ),
        (
            REVOCATION_FAILED,
            revocations,
            Severity::Critical,
            format!("{} could not be revoked yet", certificates(revocations)),
            "Revoke them at the authority itself, and look at the agent's account there",
        ),
    ];
    for (code, count, severity, detail, remedy) in notices {
        let notice = Notice {
            code: code.to_owned(),
            severity,
            subject: MODULE.to_owned(),
            detail,
            remedy: remedy.to_owned(),
            resolved: count == 0,
        };
        say_once(cloud, tenant, notice).await?;
    }
    Ok(())
}

/// Opens or closes an alert, unless the same was said last: looks are frequent, and what they find stays the same.
pub(super) async fn say_once(cloud: &Cloud, tenant: &str, notice: Notice) -> Result<(), StoreError> {
    let key = format!("{tenant}/{}/{}", notice.code, notice.subject);
    let words = if notice.resolved { String::new() } else { notice.detail.clone() };
    if cloud.certificates.is_news(key, words) { cloud.notice(tenant, "", notice).await } else { Ok(()) }
}

fn certificates(n: u64) -> String {
    if n == 1 { "1 certificate".to_owned() } else { format!("{n} certificates") }
}
