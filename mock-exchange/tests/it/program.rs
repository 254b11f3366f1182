//! The program: flags, ready line, exit; and how much it holds.

use causeway_mock_exchange::world::WipeKind;
use causeway_mock_kit::program::{Program, complaint};

use crate::fixture::{cmdlet, organisation, run};

const BIN: &str = env!("CARGO_BIN_EXE_mock-exchange");

#[tokio::test]
async fn one_ready_line_and_a_clean_exit() {
    let flags = ["--users", "20", "--seed", "7", "--domain", "corp.test", "--personality", "exchange2016"];
    let program = Program::start(BIN, flags).await;
    let ready = &program.ready;
    assert_eq!(ready["service"], "mock-exchange");
    for name in
        ["powershell", "powershell_http", "kdc", "rest", "token", "activesync", "autodiscover", "admin"]
    {
        assert!(ready["urls"][name].is_string(), "{name} in {ready}");
    }
    let admin = &ready["accounts"]["admin"];
    assert_eq!(admin["user"], "CORP\\svc-causeway");
    assert_eq!(admin["upn"], "svc-causeway@corp.test");
    assert!(admin["password"].is_string() && ready["accounts"]["app"]["client_id"].is_string(), "{ready}");
    assert!(std::path::Path::new(ready["ca_pem"].as_str().unwrap()).exists());
    program.ends_in_order().await;
}

#[tokio::test]
async fn mistakes_are_named() {
    let text = complaint(BIN, ["--personality", "exchange5"]).await;
    assert!(text.contains("exchange5") && text.contains("exchange2019"), "{text}");
    let text = complaint(BIN, ["--port", "powershel=0"]).await;
    assert!(text.contains("powershel"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mock.toml");
    std::fs::write(&path, "personality = \"online\"\n[rest]\ntoken_life = 5\n").unwrap();
    let text = complaint(BIN, ["--config", path.to_str().unwrap()]).await;
    assert!(text.contains("mock.toml:3:1") && text.contains("token_life"), "{text}");
}

/// A world of many phones answers questions about one of them at once: nothing walks over all of them for it.
#[test]
fn many_phones_are_found_by_their_guid() {
    let organisation = organisation("exchange2019", |config| {
        config.common.users = 2_000;
        config.partnerships = Some(20_000);
    });
    let ids = organisation.read(None, |reader| {
        let guids = (0..reader.device_slots()).step_by(97).filter_map(|position| reader.device_at(position));
        guids
            .map(|view| (view.id, causeway_mock_exchange::world::guid_text(&view.device.guid)))
            .collect::<Vec<_>>()
    });
    for (id, guid) in &ids {
        assert_eq!(
            run(&organisation, &cmdlet("Get-MobileDevice").with("Identity", guid.as_str())).objects().len(),
            1
        );
        assert!(organisation.write(None, |writer| writer.request_wipe(*id, WipeKind::Full)));
    }
    assert!(ids.len() > 200);
}
