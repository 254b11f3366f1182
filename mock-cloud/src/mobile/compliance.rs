//! The rule that blocks phones without a person: looked at whenever something it depends on changes, and when a grace
//! ends.
//!
//! One order per change: the finding of a phone (enrolled and compliant, or not) is kept with what was ordered for it,
//! and the same finding orders nothing twice; a person who approves what the rule has blocked is not argued with. The
//! order's idempotency key is made of the phone and the moment of the change, so a crash between order and note repeats
//! nothing either. Before many phones are blocked at once a person must say so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use causeway_protocol::health::{Notice, Severity};
use causeway_protocol::mobile::access;
use serde_json::json;
use tokio::sync::Notify;

use super::matching::{Enrolment, Index, Merge, Phone, same_person};
use super::{index_of, order};
use crate::dispatch::{self, DispatchError};
use crate::due::Due;
use crate::events::kinds;
use crate::limits::{COMPLIANCE_ORDERS_PER_TURN, COMPLIANCE_PAGE, COMPLIANCE_TURN};
use crate::state::Cloud;
use crate::store::{ComplianceRule, Finding, JudgedPhone, RuleRow, StoreError};

/// Verb of a block.
pub(crate) const BLOCK: &str = "block_device";
/// Verb of an approval.
pub(crate) const APPROVE: &str = "approve_device";
/// Code of the alert about held blocks.
pub(crate) const HELD: &str = "compliance_held";

/// Findings.
pub(crate) mod findings {
    pub(crate) const COMPLIANT: &str = "compliant";
    pub(crate) const NOT_COMPLIANT: &str = "not_compliant";
    pub(crate) const NOT_ENROLLED: &str = "not_enrolled";
    pub(crate) const EXEMPT: &str = "exempt";
}

/// Tenants whose phones must be looked at again.
#[derive(Default)]
pub struct Compliance {
    touched: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Compliance {
    /// Something the rule of this tenant depends on has changed.
    pub fn touch(&self, tenant: &str) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.to_owned());
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at tenants as they need it, until the cloud stops.
pub(super) async fn watch(cloud: Arc<Cloud>) {
    match cloud.store.compliance_tenants().await {
        Ok(tenants) => tenants.iter().for_each(|tenant| cloud.compliance.touch(tenant)),
        Err(error) => tracing::error!(%error, "Compliance rules could not be read"),
    }
    let mut due = Due::default();
    loop {
        let now_ms = cloud.now_ms();
        let mut tenants = cloud.compliance.take();
        tenants.extend(due.at(now_ms).cloned());
        for tenant in tenants {
            match look(&cloud, &tenant).await {
                Ok(next_ms) => due.set(tenant, next_ms),
                Err(error) => {
                    tracing::error!(%error, tenant, "Compliance rule could not be carried out");
                    due.set_failed(tenant, cloud.now_ms());
                }
            }
        }
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => return,
            () = cloud.compliance.wake.notified() => {}
            () = due.wait(&cloud.kit.clock) => {}
        }
    }
}

/// What one look at all phones found.
#[derive(Default)]
struct Looked {
    changed: Vec<Finding>,
    gone: Vec<String>,
    /// Phones whose order is due, with what it needs.
    due: Vec<(JudgedPhone, Finding)>,
    next_due_ms: Option<i64>,
}

/// Looks at every phone of a tenant and orders what is due. Returns when to look again.
async fn look(cloud: &Arc<Cloud>, tenant: &str) -> Result<Option<i64>, DispatchError> {
    let stored = DispatchError::Store;
    let Some(row) = cloud.store.compliance_rule(tenant).await.map_err(stored)? else { return Ok(None) };
    if !row.rule.enabled {
        settle(cloud, tenant, 0).await.map_err(stored)?;
        return Ok(None);
    }
    let now_ms = cloud.now_ms();
    let looked = judge_all(cloud, tenant, &row, now_ms).await.map_err(stored)?;
    let changes = looked.changed.len();
    for chunk in looked.changed.chunks(COMPLIANCE_PAGE) {
        cloud.store.keep_findings(tenant, chunk.to_vec(), Vec::new()).await.map_err(stored)?;
    }
    cloud.store.keep_findings(tenant, Vec::new(), looked.gone).await.map_err(stored)?;
    let window_ms = i64::try_from(row.rule.blocks_window_secs.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let (mut ordered, mut held, mut used, mut more) = (0, 0, false, false);
    if !row.rule.dry_run {
        let (blocks, mut orders): (Vec<_>, Vec<_>) =
            looked.due.into_iter().partition(|(_, finding)| finding.wants.as_deref() == Some(BLOCK));
        let new_blocks = blocks.iter().filter(|(phone, _)| phone.record.access_state != access::BLOCKED);
        let asked = new_blocks.count() as u64;
        let since_ms = now_ms.saturating_sub(window_ms);
        let recent = cloud.store.compliance_blocks_since(tenant, since_ms).await.map_err(stored)?;
        if asked > 0 && recent + asked > row.rule.blocks_max && asked > row.confirmed {
            held = asked;
        } else {
            used = asked > 0 && row.confirmed > 0;
            orders.extend(blocks);
        }
        more = orders.len() > COMPLIANCE_ORDERS_PER_TURN && !used;
        // What a person has confirmed goes in one piece, else the rest would be asked for again.
        let at_once = if used { orders.len() } else { COMPLIANCE_ORDERS_PER_TURN };
        for (phone, finding) in orders.into_iter().take(at_once) {
            ordered += u64::from(give_order(cloud, tenant, &phone, finding, &row).await?);
        }
    }
    cloud.store.compliance_evaluated(tenant, held, used, now_ms).await.map_err(stored)?;
    settle(cloud, tenant, held).await.map_err(stored)?;
    if changes > 0 || ordered > 0 {
        let body =
            json!({ "changes": changes, "ordered": ordered, "held": held, "dry_run": row.rule.dry_run });
        cloud.events.emit(tenant, kinds::COMPLIANCE, body);
    }
    let turn_ms = i64::try_from(COMPLIANCE_TURN.as_millis()).unwrap_or(i64::MAX);
    let again_ms = match held {
        _ if more => Some(now_ms + turn_ms),
        // Held only because of what was blocked before: there is room when the window has passed.
        1.. if held <= row.rule.blocks_max => Some(now_ms.saturating_add(window_ms.max(turn_ms))),
        _ => None,
    };
    Ok(again_ms.into_iter().chain(looked.next_due_ms).min())
}

async fn judge_all(cloud: &Cloud, tenant: &str, row: &RuleRow, now_ms: i64) -> Result<Looked, StoreError> {
    let index = index_of(cloud, tenant).await?;
    let mut before = cloud.store.findings_by_device(tenant).await?;
    let mut looked = Looked::default();
    let mut after = -1;
    loop {
        let phones = cloud.store.judged_phones(tenant, after, COMPLIANCE_PAGE).await?;
        let Some(last) = phones.last() else { break };
        after = last.number;
        for phone in phones {
            let known = before.remove(&phone.key);
            let finding = judge(row, &index, &phone, known.as_ref(), now_ms);
            if known.as_ref() != Some(&finding) {
                looked.changed.push(finding.clone());
            }
            let waits = finding.wants.is_some() && finding.ordered != finding.wants;
            match finding.due_ms {
                Some(due_ms) if waits && due_ms <= now_ms => looked.due.push((phone, finding)),
                Some(due_ms) if waits => {
                    looked.next_due_ms = Some(looked.next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
                }
                _ => {}
            }
        }
    }
    looked.gone = before.into_values().filter(|it| !it.blocked).map(|it| it.device).collect();
    Ok(looked)
}

/// What the rule says of one phone now.
fn judge(row: &RuleRow, index: &Index, phone: &JudgedPhone, known: Option<&Finding>, now_ms: i64) -> Finding {
    let merge = index.merge(&Phone::of_record(&phone.record));
    let (finding, why) = found(&row.rule, phone, &merge);
    let same = known.filter(|it| it.finding == finding);
    let since_ms = same.map_or(now_ms, |it| it.since_ms);
    let blocked = known.is_some_and(|it| it.blocked);
    let wants = wanted(&row.rule, finding, blocked, &phone.record.access_state);
    let grace_ms = i64::try_from(row.rule.grace_secs.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let due_ms = wants.map(|verb| match verb {
        // Whoever tightens the rule gives everyone the whole grace.
        BLOCK => since_ms.max(row.changed_ms).saturating_add(grace_ms),
        _ => since_ms,
    });
    Finding {
        device: phone.key.clone(),
        finding: finding.to_owned(),
        why,
        since_ms,
        wants: wants.map(str::to_owned),
        due_ms,
        ordered: same.and_then(|it| it.ordered.clone()),
        action: same.and_then(|it| it.action.clone()),
        blocked,
    }
}

fn found(rule: &ComplianceRule, phone: &JudgedPhone, merge: &Merge) -> (&'static str, String) {
    if let Some(why) = exemption(rule, phone) {
        return (findings::EXEMPT, why);
    }
    match (&merge.enrolled, merge.enrolment) {
        (Some(enrolled), Enrolment::Enrolled) if enrolled.compliant => {
            (findings::COMPLIANT, format!("it is enrolled and compliant ({})", merge.why))
        }
        (Some(_), Enrolment::Enrolled) => {
            (findings::NOT_COMPLIANT, format!("it is enrolled and not compliant ({})", merge.why))
        }
        _ => (findings::NOT_ENROLLED, format!("it is not enrolled ({})", merge.why)),
    }
}

fn exemption(rule: &ComplianceRule, phone: &JudgedPhone) -> Option<String> {
    let record = &phone.record;
    let client = record.client_type.as_deref().unwrap_or_default();
    if rule.exempt_client_types.iter().any(|exempt| exempt.eq_ignore_ascii_case(client)) {
        return Some(format!("programs of type {client} are exempt"));
    }
    let people = [record.user.as_deref(), record.address.as_deref()];
    let is_named = |exempt: &&String| {
        people.into_iter().flatten().any(|name| same_person(name, exempt))
            || record.device_id.eq_ignore_ascii_case(exempt)
            || phone.key.eq_ignore_ascii_case(exempt)
    };
    rule.exempt.iter().find(is_named).map(|exempt| format!("{exempt} is exempt"))
}

/// What the rule would have done to a phone. What it has blocked itself it lets go when the reason is over; what a person
/// has blocked it leaves alone.
fn wanted(rule: &ComplianceRule, finding: &str, blocked: bool, state: &str) -> Option<&'static str> {
    match finding {
        findings::NOT_ENROLLED if rule.block_not_enrolled => Some(BLOCK),
        findings::NOT_COMPLIANT if rule.block_not_compliant => Some(BLOCK),
        findings::COMPLIANT if rule.approve_compliant && state == access::QUARANTINED => Some(APPROVE),
        _ if blocked => Some(APPROVE),
        _ => None,
    }
}

/// Orders what is wanted, once. `false` when nothing had to be ordered.
async fn give_order(
    cloud: &Arc<Cloud>,
    tenant: &str,
    phone: &JudgedPhone,
    mut finding: Finding,
    row: &RuleRow,
) -> Result<bool, DispatchError> {
    let Some(verb) = finding.wants.clone() else { return Ok(false) };
    let record = &phone.record;
    finding.ordered = Some(verb.clone());
    let needed = verb != BLOCK || record.access_state != access::BLOCKED;
    if needed {
        let module = if record.system.is_empty() { "exchange" } else { &record.system };
        let mut new =
            order(module, &phone.key, &record.device_id, &record.mailbox, &verb, "compliance".to_owned());
        let change_ms = finding.since_ms.max(row.changed_ms);
        new.idempotency_key = Some(format!("compliance/{verb}/{}/{change_ms}", phone.key));
        new.reason = reason(&verb, &finding, &row.rule);
        finding.action = Some(match dispatch::submit(cloud, tenant, new).await {
            // The order was given before a crash, and the phone's other names have changed since.
            Err(DispatchError::KeyReused { id }) => id,
            submitted => submitted?,
        });
        finding.blocked = verb == BLOCK;
    }
    cloud.store.keep_findings(tenant, vec![finding], Vec::new()).await.map_err(DispatchError::Store)?;
    Ok(needed)
}

/// For the timeline of the order.
fn reason(verb: &str, finding: &Finding, rule: &ComplianceRule) -> String {
    let grace = match (verb, rule.grace_secs) {
        (BLOCK, 1..) => format!(", for longer than the grace of {} s", rule.grace_secs),
        _ => String::new(),
    };
    format!("compliance rule: {}{grace}", finding.why)
}

/// Opens or closes the alert about held blocks.
async fn settle(cloud: &Cloud, tenant: &str, held: u64) -> Result<(), StoreError> {
    let notice = Notice {
        code: HELD.to_owned(),
        severity: Severity::Critical,
        subject: "compliance".to_owned(),
        detail: format!("the compliance rule would block {held} phones at once; none of them was blocked"),
        remedy: "Look at the findings on the Compliance page, then confirm the blocks or change the rule"
            .to_owned(),
        resolved: held == 0,
    };
    cloud.notice(tenant, "", notice).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_protocol::mobile::DeviceRecord;

    fn row() -> RuleRow {
        let rule = ComplianceRule {
            enabled: true,
            dry_run: false,
            block_not_enrolled: true,
            grace_secs: 60,
            ..ComplianceRule::default()
        };
        RuleRow { rule, changed_ms: 1_000, evaluated_ms: 0, held: 0, confirmed: 0 }
    }

    fn phone(state: &str) -> JudgedPhone {
        let record = DeviceRecord {
            device_id: "X".into(),
            user: Some("ada".into()),
            access_state: state.into(),
            ..DeviceRecord::default()
        };
        JudgedPhone { number: 1, key: "k".into(), record }
    }

    #[test]
    fn grace_counts_from_the_finding_and_from_the_rule() {
        let index = Index::new(Vec::new());
        let first = judge(&row(), &index, &phone(access::ALLOWED), None, 5_000);
        assert_eq!((first.finding.as_str(), first.due_ms), (findings::NOT_ENROLLED, Some(65_000)));
        let later = judge(&row(), &index, &phone(access::ALLOWED), Some(&first), 50_000);
        assert_eq!(later, first, "the same finding is as old as it was");
        let tightened = RuleRow { changed_ms: 40_000, ..row() };
        let again = judge(&tightened, &index, &phone(access::ALLOWED), Some(&first), 50_000);
        assert_eq!(again.due_ms, Some(100_000));
    }

    #[test]
    fn only_its_own_block_is_taken_back() {
        let rule = row().rule;
        for (finding, blocked, state, wants) in [
            (findings::COMPLIANT, false, access::ALLOWED, None),
            (findings::COMPLIANT, false, access::BLOCKED, None),
            (findings::COMPLIANT, true, access::BLOCKED, Some(APPROVE)),
            (findings::COMPLIANT, false, access::QUARANTINED, Some(APPROVE)),
            (findings::EXEMPT, true, access::BLOCKED, Some(APPROVE)),
            (findings::EXEMPT, false, access::QUARANTINED, None),
            (findings::NOT_ENROLLED, false, access::ALLOWED, Some(BLOCK)),
        ] {
            assert_eq!(wanted(&rule, finding, blocked, state), wants, "{finding} {blocked} {state}");
        }
    }

    #[test]
    fn exemptions_name_people_phones_and_programs() {
        let named = |exempt: &str| ComplianceRule { exempt: vec![exempt.to_owned()], ..row().rule };
        for exempt in ["ACME\\ada", "x", "K"] {
            assert!(exemption(&named(exempt), &phone("allowed")).is_some(), "{exempt}");
        }
        assert!(exemption(&named("adam"), &phone("allowed")).is_none());
        let mut outlook = phone("allowed");
        outlook.record.client_type = Some("Outlook".into());
        let rule = ComplianceRule { exempt_client_types: vec!["outlook".into()], ..row().rule };
        assert!(exemption(&rule, &outlook).is_some());
    }
}
