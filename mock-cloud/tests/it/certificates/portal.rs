//! The pages for people.

use serde_json::json;

use super::{Device, has_status};
use crate::support::World;
use crate::support::authority::Authority;
use crate::support::http::{Api, Browser};

#[tokio::test]
async fn pages_show_certificates_and_their_buttons_work() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 90).await;
    let browser = Browser::signed_in(&world).await;
    let base = format!("/t/{}", world.tenant);
    let empty = browser.get(&format!("{base}/certificates")).await;
    assert!(empty.text.contains("Begin with a profile"), "{}", empty.text);
    let csrf = Browser::csrf(&empty);
    let form = [
        ("csrf", csrf.as_str()),
        ("id", "wifi"),
        ("name", "Wi-Fi <office>"),
        ("authority", "default"),
        ("key_mode", "device"),
        ("key", "p256"),
        ("subject", "/CN=%uname%"),
        ("names", "upn:%upn%\n\nemail:%email%"),
        ("renew_days", "14"),
    ];
    let profiles = format!("{base}/certificate-profiles");
    assert_eq!(browser.post(&profiles, &form[1..]).await.status, 403, "a foreign form");
    let made = browser.post(&profiles, &form).await;
    assert_eq!(made.header("location"), format!("{profiles}/wifi"), "{}", made.text);
    assert_eq!(browser.post(&profiles, &form).await.status, 409, "it is there already");
    let shown = browser.get(&format!("{profiles}/wifi")).await;
    assert!(shown.text.contains("Wi-Fi &#60;office&#62;") && shown.text.contains("email:%email%"));
    let profile = Api(&world).of_tenant("/certificate-profiles/wifi").await;
    assert_eq!(profile["profile"]["alternative_names"], json!(["upn:%upn%", "email:%email%"]));

    let device = Device::enrolled(&world, "asmith").await;
    let sha256 = device.get_certificate(&world, "wifi").await;
    let list = browser.get(&format!("{base}/certificates?q=ASMITH")).await;
    assert!(list.text.contains(&format!("certificates/{sha256}")) && list.text.contains("In use"));
    assert!(
        browser.get(&format!("{base}/certificates?q=nobody")).await.text.contains("No certificate found")
    );
    let path = format!("{base}/certificates/{sha256}");
    let page = browser.get(&path).await;
    for words in ["Acme Issuing CA", "Renew now", "Installed", "Download with chain"] {
        assert!(page.text.contains(words), "{words}: {}", page.text);
    }
    let file = browser.get(&format!("{path}/chain")).await;
    assert!(file.header("content-disposition").starts_with("attachment"), "{:?}", file.headers);
    assert_eq!(file.text.matches("BEGIN CERTIFICATE").count(), 2);

    let renewed = browser.post(&format!("{path}/renew"), &[("csrf", &csrf)]).await;
    let request = renewed.header("location").to_owned();
    assert!(request.starts_with(&format!("{base}/certificate-requests/")), "{}", renewed.text);
    assert!(browser.get(&request).await.text.contains("Waits for the device"));
    let list = browser.get(&format!("{base}/certificate-requests?show=open")).await;
    assert!(list.text.contains("Renewal") && list.text.contains("asmith"), "{}", list.text);

    let form = [("csrf", csrf.as_str()), ("reason", "key_compromise")];
    assert_eq!(browser.post(&format!("{path}/revoke"), &form[1..]).await.status, 403);
    assert_eq!(browser.post(&format!("{path}/revoke"), &form).await.status, 303);
    has_status(&world, &sha256, "revoked").await;
    let page = browser.get(&path).await;
    assert!(page.text.contains("its key may be in other hands"), "{}", page.text);
    assert_eq!(browser.get(&format!("{base}/certificates/00ff")).await.status, 404);
}
