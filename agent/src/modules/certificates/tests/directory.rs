//! What the directory says of a person.

use causeway_mock_ldap::Config;
use causeway_protocol::pkix::Certificate;

use super::*;
use crate::modules::testing::World;

#[tokio::test]
async fn the_directorys_word_about_an_account_counts() {
    let world = World::start(Config::default()).await;
    let mut strong = profile("mail", "agent");
    strong["subject"] = json!("/DC=%dc%/OU=%ou%/CN=%cn%");
    strong["alternative_names"] =
        json!(["upn:%upn%", "uri:tag:microsoft.com,2022-09-14:sid:%sid%", "sid:%sid%"]);
    let desired = json!({ "profiles": [strong] });
    let bench = Bench::with(desired.clone());
    let settings = ModuleSettings { vault: bench.vault.clone(), ..world.settings(desired) };
    let office = Office {
        name: "default".to_owned(),
        settings: CaSettings::default(),
        authority: Arc::new(bench.fake.clone()),
    };
    let module = Arc::new(CertificatesModule::new(&settings, vec![office]).unwrap());
    assert_eq!(module.directories().len(), 1);
    let bench = Bench { module, cx: world.context(), ..bench };
    let mut order = bench.agent_order("a");
    order["variables"] = json!({ "uname": "asmith", "sid": "S-1-5-21-1-2-3-1500", "dn": "CN=somebody else" });
    let issued = bench.issued(&order).await;
    let certificate = Certificate::read(&STANDARD.decode(&issued.certificate).unwrap()).unwrap();
    let sid = certificate.extensions().sid().unwrap().unwrap();
    assert!(sid.starts_with("S-1-5-21-") && sid != "S-1-5-21-1-2-3-1500", "{sid}");
    let names = certificate.extensions().alternative_names().unwrap();
    assert_eq!(names[1].sid(), Some(sid.as_str()));
    assert!(matches!(&names[0], AlternativeName::Upn(upn) if upn.starts_with("asmith@")), "{names:?}");
    assert!(issued.subject.contains("acme.example"), "{}", issued.subject);
    // Nobody of that name: what a profile needs is missing, and an order's own word does not take its place.
    order["request"] = json!("b");
    order["variables"]["uname"] = json!("no-such-person");
    assert_eq!(failure(bench.issue(&order).await).code, "name_not_possible");
    assert_eq!(bench.fake.count("b"), 0);
}
