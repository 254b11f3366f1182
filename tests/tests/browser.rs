//! The portal in a real browser: what a person does in the first minutes, and that a telephone shows every page.
//!
//! `CAUSEWAY_PORTAL_PICTURE=<file>` makes the first test also save the picture that the README shows.

use anyhow::{Context, Result, ensure};
use causeway_mock_cloud::store::{IssuedRequest, NewCertificate, NewRequest, reasons};
use causeway_tests::company::Company;
use causeway_tests::webdriver::Browser;
use serde_json::{Value, json};

const PEOPLE: usize = 60;

/// In the picture: as many as the demo has.
const PEOPLE_IN_PICTURE: usize = 250;

/// Width of a small telephone in CSS pixels.
const PHONE_WIDTH: u32 = 390;

#[tokio::test]
async fn a_person_signs_in_looks_around_and_orders_a_sync() -> Result<()> {
    let Some(browser) = Browser::start().await? else { return Ok(()) };
    let told = first_minutes(&browser).await;
    browser.quit().await?;
    told
}

#[tokio::test]
async fn every_page_fits_a_telephone() -> Result<()> {
    let Some(browser) = Browser::start().await? else { return Ok(()) };
    let told = on_a_telephone(&browser).await;
    browser.quit().await?;
    told
}

#[tokio::test]
async fn a_held_phone_is_approved_and_blocked_with_a_click() -> Result<()> {
    let Some(browser) = Browser::start().await? else { return Ok(()) };
    let told = approve(&browser).await;
    browser.quit().await?;
    told
}

async fn approve(browser: &Browser) -> Result<()> {
    let mut company = Company::with_mail(PEOPLE, 20).await?;
    company.add_agent("agent1").await?;
    let alice = json!({ "user": "asmith", "id": "alice" });
    let held = company.mail_admin("POST", "/world/phones", &alice).await?;
    ensure!(held["phone"]["standing"] == "held", "the new phone: {held}");
    let action = company.sync_of("exchange").await?;
    ensure!(action["status"] == "success", "the first collection: {action}");

    let portal = company.cloud.url("portal").trim_end_matches('/').to_owned();
    browser.open(&format!("{portal}/t/{}", company.tenant.id())).await?;
    sign_in(browser, &company.cloud.admin().user, company.cloud.admin().password.expose()).await?;
    browser.click("#nav-devices").await?;
    browser.click("[data-testid=state-quarantined]").await?;
    browser
        .type_into("[data-testid=search]", held["phone"]["device_id"].as_str().unwrap_or_default())
        .await?;
    browser.click("[data-testid=search-form] button").await?;
    browser.shows("[data-testid=phones]", "Alice Smith").await?;
    browser.click("[data-testid=phone]").await?;
    browser.shows("[data-testid=phone-access]", "Quarantined").await?;
    browser.shows("[data-testid=phone-why]", "waits for a person").await?;
    let page = browser.script("return location.href").await?;

    // A wipe is not for whoever only clicks.
    browser.click("[data-testid=wipe-details] summary").await?;
    browser.click("[data-testid=wipe_device]").await?;
    browser.shows("body", "Nothing was ordered").await?;

    browser.open(page.as_str().context("the page has an address")?).await?;
    browser.click("[data-testid=approve_device]").await?;
    browser.shows("[data-testid=action-status]", "Success").await?;
    let synced = company.mail_admin("POST", "/world/phones/alice/sync", &Value::Null).await?;
    ensure!(synced["phone"]["standing"] == "synced", "the approved phone: {synced}");
    browser.open(page.as_str().context("the page has an address")?).await?;
    browser.shows("[data-testid=phone-access]", "Allowed").await?;
    browser.shows("[data-testid=phone-actions]", "Approve phone").await?;

    browser.click("[data-testid=block_device]").await?;
    browser.shows("[data-testid=action-status]", "Success").await?;
    let stopped = company.mail_admin("POST", "/world/phones/alice/sync", &Value::Null).await?;
    ensure!(stopped["phone"]["standing"] == "blocked", "the blocked phone: {stopped}");
    browser.open(page.as_str().context("the page has an address")?).await?;
    browser.shows("[data-testid=phone-access]", "Blocked").await?;
    Ok(())
}

async fn first_minutes(browser: &Browser) -> Result<()> {
    let picture = std::env::var_os("CAUSEWAY_PORTAL_PICTURE");
    let people = if picture.is_some() { PEOPLE_IN_PICTURE } else { PEOPLE };
    let company = world(Company::start(people).await?).await?;
    let portal = company.cloud.url("portal").trim_end_matches('/').to_owned();
    let tenant = format!("{portal}/t/{}", company.tenant.id());

    browser.open(&tenant).await?;
    sign_in(browser, &company.cloud.admin().user, "not the password").await?;
    browser.find("[data-testid=sign-in-error]").await?;
    sign_in(browser, &company.cloud.admin().user, company.cloud.admin().password.expose()).await?;
    browser.shows("[data-testid=tenant-name]", "Acme").await?;
    browser.shows("[data-testid=agents-online]", "2").await?;

    browser.click("#nav-agents").await?;
    browser.shows("[data-testid=agent]", "user_visibility").await?;
    browser.click("#nav-people").await?;
    let total = browser.shows("[data-testid=people-total]", "").await?;
    let in_cloud = company.tenant.all("users").await?.len();
    ensure!(total == in_cloud.to_string(), "the page says {total} people, the API lists {in_cloud}");

    // The person whose name has the most signs in it.
    let people = &company.ldap.world().people;
    let signs = |name: &str| name.chars().filter(|c| !c.is_ascii_alphanumeric()).count();
    let hard = people.iter().max_by_key(|person| signs(&person.display_name)).context("nobody")?;
    browser.type_into("[data-testid=search]", &hard.display_name).await?;
    browser.click("[data-testid=search-form] button").await?;
    browser.shows("[data-testid=people]", &hard.display_name).await?;
    browser.click("[data-testid=person]").await?;
    browser.shows("[data-testid=person-name]", &hard.display_name).await?;
    browser.shows("[data-testid=effective-groups]", "All Staff").await?;

    browser.click("#nav-actions").await?;
    browser.click("[data-testid=sync-now]").await?;
    browser.shows("[data-testid=action-status]", "Success").await?;
    let timeline = browser.shows("[data-testid=timeline]", "Timeline").await?;
    ensure!(timeline.lines().count() > 4, "a short timeline: {timeline:?}");

    if let Some(file) = picture {
        browser.click("#nav-home").await?;
        browser.shows("[data-testid=feed]", "").await?;
        browser.set_size(1280, 860, false).await?;
        std::fs::write(&file, browser.picture().await?)
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

async fn on_a_telephone(browser: &Browser) -> Result<()> {
    // With a mail system, so that the agent has as much to say of itself as it can.
    let company = world(Company::with_mail(PEOPLE, 5).await?).await?;
    let phones = company.sync_of("exchange").await?;
    ensure!(phones["status"] == "success", "the first collection of phones: {phones}");
    let (certificate, request) = certificate(&company).await?;
    let portal = company.cloud.url("portal").trim_end_matches('/').to_owned();
    let tenant = format!("{portal}/t/{}", company.tenant.id());
    browser.set_size(PHONE_WIDTH, 844, true).await?;
    browser.open(&portal).await?;
    fits(browser).await?;
    sign_in(browser, &company.cloud.admin().user, company.cloud.admin().password.expose()).await?;
    browser.find("[data-testid=tenants]").await?;
    fits(browser).await?;

    let user = company.tenant.all("users").await?;
    let group = company.tenant.all("groups").await?;
    let agent = company.tenant.all("agents").await?;
    let device = company.tenant.all("devices").await?;
    let action = company.sync().await?;
    let id =
        |items: &[Value]| items.first().and_then(|item| item["id"].as_str()).unwrap_or_default().to_owned();
    let pages = [
        String::new(),
        "/agents".to_owned(),
        format!("/agents/{}", id(&agent)),
        "/modules".to_owned(),
        "/modules/user_visibility".to_owned(),
        "/people".to_owned(),
        "/people?q=nobody%20at%20all".to_owned(),
        format!("/people/{}", id(&user)),
        "/groups".to_owned(),
        format!("/groups/{}", id(&group)),
        "/units".to_owned(),
        "/devices".to_owned(),
        "/devices?state=quarantined&q=iphone".to_owned(),
        format!("/devices/{}", id(&device)),
        "/certificates".to_owned(),
        "/certificates?status=expired&q=nobody".to_owned(),
        format!("/certificates/{certificate}"),
        "/certificate-requests".to_owned(),
        "/certificate-requests?show=failed".to_owned(),
        format!("/certificate-requests/{request}"),
        "/certificate-profiles".to_owned(),
        "/certificate-profiles/company_wide_wifi".to_owned(),
        "/policies".to_owned(),
        "/compliance".to_owned(),
        "/actions".to_owned(),
        format!("/actions/{}", action["id"].as_str().unwrap_or_default()),
        "/alerts".to_owned(),
        "/live".to_owned(),
        "/password".to_owned(),
        "/no-such-page".to_owned(),
    ];
    for page in pages {
        browser.open(&format!("{tenant}{page}")).await?;
        browser.find("h1").await?;
        fits(browser).await.with_context(|| page.clone())?;
    }
    Ok(())
}

/// A certificate with hard names and the request it came of, as an agent would have reported them.
async fn certificate(company: &Company) -> Result<(String, String)> {
    const SUBJECT: &str = "CN=Wolfeschlegelsteinhausenbergerdorff-Featherstonehaugh,OU=Forschung und Entwicklung,\
                           O=Acme Gesellschaft mit beschraenkter Haftung,C=DE";
    let profile = json!({
        "name": "Company-wide wireless network", "authority": "default", "subject": "/CN=%uname%/emailAddress=%email%",
        "alternative_names": ["upn:%upn%", "uri:tag:microsoft.com,2022-09-14:sid:%sid%", "dns:%udid%.devices.acme.example"],
    });
    company.tenant.put("certificate-profiles/company_wide_wifi", &profile).await?;
    let device =
        json!({ "user": "wolfeschlegelsteinhausenbergerdorff@subsidiary.acme.example", "model": "iPhone" });
    let device = company.tenant.post("enrolled-devices", &device).await?;
    let (store, tenant) = (&company.cloud.cloud().store, company.tenant.id());
    let now_ms = company.cloud.cloud().now_ms();
    let text = |key: &str| device[key].as_str().unwrap_or_default().to_owned();
    let wish = NewRequest {
        device: text("id"),
        user: text("user"),
        profile: "company_wide_wifi".to_owned(),
        version: 1,
        reason: reasons::ENROL,
        renews: None,
        planned: false,
        device_key: None,
        detail: "the device asks for it".to_owned(),
    };
    let (request, _) = store.open_request(tenant, wish, now_ms).await?;
    let sha256 = "0123456789abcdef".repeat(4);
    let issued = NewCertificate {
        sha256: sha256.clone(),
        issuer: "CN=Acme Issuing CA 4,DC=subsidiary,DC=acme,DC=example".to_owned(),
        serial: "6f00000003a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned(),
        subject: SUBJECT.to_owned(),
        not_before_ms: now_ms,
        not_after_ms: now_ms + 365 * 86_400_000,
        authority: "default".to_owned(),
        der: vec![0x30, 0],
        chain: Vec::new(),
        renew_at_ms: now_ms + 355 * 86_400_000,
    };
    let timing = "challenge 212 ms, submit 41 ms".to_owned();
    let issued =
        IssuedRequest { id: request.id.clone(), certificate: issued, identity: None, detail: timing };
    store.request_issued(tenant, issued, now_ms).await?;
    store.request_installed(tenant, &request.id, &text("id"), now_ms).await?;
    Ok((sha256, request.id))
}

async fn world(mut company: Company) -> Result<Company> {
    company.add_agent("agent1").await?;
    company.add_agent("agent2").await?;
    let action = company.sync().await?;
    ensure!(action["status"] == "success", "the first sync: {action}");
    Ok(company)
}

async fn sign_in(browser: &Browser, user: &str, password: &str) -> Result<()> {
    browser.type_into("#user", user).await?;
    browser.type_into("#password", password).await?;
    browser.click("[data-testid=sign-in]").await
}

/// Nothing makes the page wider than the screen, and it is drawn for a telephone and not as a small desk.
async fn fits(browser: &Browser) -> Result<()> {
    let seen = browser
        .script(
            "const e = document.scrollingElement;
             const wide = [...document.querySelectorAll('body *')]
               .filter(x => x.getBoundingClientRect().right > e.clientWidth + 1)
               .slice(0, 3).map(x => x.tagName + '.' + x.className);
             return { content: e.scrollWidth, screen: e.clientWidth, wide, url: location.pathname };",
        )
        .await?;
    let number = |name: &str| seen[name].as_u64().unwrap_or(u64::MAX);
    ensure!(number("screen") <= u64::from(PHONE_WIDTH), "the page is not drawn for a telephone: {seen}");
    ensure!(number("content") <= number("screen"), "it scrolls sideways: {seen}");
    Ok(())
}
