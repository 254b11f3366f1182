//! The compliance rule: what it does, what it would do, and what waits for a person.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{InTenant, PageResult, PortalError, Shell};
use super::super::words::{Tone, When, action_title, count, sentence_case};
use super::{TokenOnly, query_value};
use crate::api::{confirm_held, put_rule};
use crate::limits::PORTAL_PAGE;
use crate::store::{ComplianceRule, Finding, RuleRow};

/// A phone the rule wants something of.
struct Row {
    href: String,
    owner: String,
    why: String,
    wants: String,
    tone: Tone,
    due: Option<When>,
}

#[derive(Template)]
#[template(path = "compliance.html")]
struct CompliancePage {
    shell: Shell,
    rule: ComplianceRule,
    /// One name a line.
    exempt: String,
    programs: String,
    grace_hours: String,
    mode: &'static str,
    mode_tone: Tone,
    looked: Option<When>,
    held: u64,
    held_text: String,
    rows: Vec<Row>,
    more: bool,
    error: String,
    saved: bool,
}

/// The edited rule.
#[derive(Deserialize)]
pub(in super::super) struct RuleForm {
    #[serde(default)]
    csrf: String,
    mode: String,
    #[serde(default)]
    block_not_enrolled: Option<String>,
    #[serde(default)]
    block_not_compliant: Option<String>,
    #[serde(default)]
    approve_compliant: Option<String>,
    grace_hours: String,
    blocks_max: String,
    #[serde(default)]
    exempt: String,
    #[serde(default)]
    programs: String,
}

pub(in super::super) async fn show(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    render(&portal, &seen, None, String::new(), false).await
}

pub(in super::super) async fn save(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<RuleForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let before = portal.cloud.store.compliance_rule(&seen.tenant.id).await?;
    let rule = match read(&form, before.map(|row| row.rule).unwrap_or_default()) {
        Ok(rule) => rule,
        Err(error) => return render(&portal, &seen, None, error, false).await,
    };
    match put_rule(&portal.cloud, &seen.tenant.id, rule.clone(), &seen.visitor.actor()).await {
        Ok(()) => render(&portal, &seen, None, String::new(), true).await,
        Err(problem) => render(&portal, &seen, Some(rule), problem.detail, false).await,
    }
}

/// Lets the held blocks through.
pub(in super::super) async fn confirm(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<TokenOnly>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    confirm_held(&portal.cloud, &seen.tenant.id, &seen.visitor.actor()).await?;
    Ok(Redirect::to(&format!("/t/{}/compliance", seen.tenant.id)).into_response())
}

/// The rule of a form; what the form does not show stays.
fn read(form: &RuleForm, before: ComplianceRule) -> Result<ComplianceRule, String> {
    let number = |name: &str, text: &str| {
        text.trim().parse::<u64>().map_err(|_| format!("{name}: a whole number is needed"))
    };
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let (enabled, dry_run) = match form.mode.as_str() {
        "off" => (false, true),
        "dry" => (true, true),
        "on" => (true, false),
        _ => return Err("Choose whether the rule is on.".to_owned()),
    };
    Ok(ComplianceRule {
        enabled,
        dry_run,
        block_not_enrolled: form.block_not_enrolled.is_some(),
        block_not_compliant: form.block_not_compliant.is_some(),
        approve_compliant: form.approve_compliant.is_some(),
        // Seconds set through the API are kept while their hours stay as they were shown.
        grace_secs: match number("Grace", &form.grace_hours)? {
            hours if hours == before.grace_secs.div_ceil(3_600) => before.grace_secs,
            hours => hours.saturating_mul(3_600),
        },
        blocks_max: number("Blocks at once", &form.blocks_max)?,
        exempt: lines(&form.exempt),
        exempt_client_types: lines(&form.programs),
        ..before
    })
}

async fn render(
    portal: &Portal,
    seen: &InTenant,
    rejected: Option<ComplianceRule>,
    error: String,
    saved: bool,
) -> PageResult {
    let shell = seen.shell(portal, "compliance").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let row = store.compliance_rule(tenant).await?;
    let row = row.unwrap_or_else(|| RuleRow {
        rule: ComplianceRule::default(),
        changed_ms: 0,
        evaluated_ms: 0,
        held: 0,
        confirmed: 0,
    });
    let wanted = store.findings(tenant, None, true, PORTAL_PAGE, None).await?;
    let mut rows = Vec::with_capacity(wanted.items.len());
    for finding in wanted.items {
        let device = store.device(tenant, &finding.device).await?;
        let owner = device.map_or_else(|| finding.device.clone(), |device| device.owner().to_owned());
        rows.push(line(finding, owner, tenant, shell.now_ms));
    }
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let rule = rejected.unwrap_or(row.rule);
    let (mode, mode_tone) = match (rule.enabled, rule.dry_run) {
        (false, _) => ("Off", Tone::Calm),
        (true, true) => ("Dry run", Tone::Busy),
        (true, false) => ("On", Tone::Good),
    };
    let html = CompliancePage {
        exempt: rule.exempt.join("\n"),
        programs: rule.exempt_client_types.join("\n"),
        // Rounded up: a grace set by the API to less than an hour is not shown as none.
        grace_hours: rule.grace_secs.div_ceil(3_600).to_string(),
        rule,
        mode,
        mode_tone,
        looked: When::at(row.evaluated_ms, shell.now_ms),
        held_text: count(row.held),
        held: row.held,
        more: wanted.next.is_some(),
        rows,
        error,
        saved,
        shell,
    };
    let html = html.render().map_err(PortalError::Render)?;
    Ok((status, Html(html)).into_response())
}

fn line(finding: Finding, owner: String, tenant: &str, now_ms: i64) -> Row {
    let verb = finding.wants.unwrap_or_default();
    Row {
        href: format!("/t/{tenant}/devices/{}", query_value(&finding.device)),
        owner,
        why: sentence_case(&finding.why),
        tone: if verb == "block_device" { Tone::Bad } else { Tone::Good },
        wants: action_title(&verb),
        due: finding.due_ms.and_then(|due_ms| When::at(due_ms, now_ms)),
    }
}
