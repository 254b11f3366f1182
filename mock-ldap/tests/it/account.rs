//! Checklist 3 and 18: sub-codes of account states, masking, lockout over two servers.

use causeway_mock_kit::world::PersonState;
use causeway_mock_ldap::Config;

use crate::client::{Client, Outcome};
use crate::world::World;

fn data(outcome: &Outcome) -> String {
    assert_eq!(outcome.code, 49, "{outcome:?}");
    let rest =
        outcome.text.split(" data ").nth(1).unwrap_or_else(|| panic!("no sub-code in {:?}", outcome.text));
    rest.split(',').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_state_has_its_sub_code_behind_the_right_password_only() {
    let world = World::ad().await;
    let states = [
        (PersonState::Disabled, "533"),
        (PersonState::Expired, "701"),
        (PersonState::MustChange, "773"),
        (PersonState::HoursDenied, "530"),
    ];
    for (state, code) in states {
        let (dn, password) = world.in_state(state).await;
        assert_eq!(data(&world.connect().await.bind(&dn, &password).await), code, "{state:?}");
        assert_eq!(data(&world.connect().await.bind(&dn, "Wrong-1").await), "52e", "{state:?} is masked");
    }
    let unknown = world.connect().await.bind("nobody@acme.example", "x").await;
    assert!(["52e", "525"].contains(&data(&unknown).as_str()), "{unknown:?}");
}

#[tokio::test]
async fn the_account_locks_after_the_threshold_and_opens_with_time() {
    let mut config = Config::default();
    config.accounts.lockout_threshold = 3;
    config.accounts.lockout_duration_secs = 600;
    let world = World::start(config).await;
    let (dn, password) = world.person("asmith").await;
    for _ in 0..3 {
        assert_eq!(data(&world.connect().await.bind(&dn, "Wrong-1").await), "52e");
    }
    assert_eq!(
        data(&world.connect().await.bind(&dn, &password).await),
        "775",
        "locked for the right password"
    );
    assert_eq!(data(&world.connect().await.bind(&dn, "Wrong-1").await), "775");
    world.mock.clock().advance(std::time::Duration::from_secs(601));
    let outcome = world.connect().await.bind(&dn, &password).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[tokio::test]
async fn a_good_bind_resets_the_count() {
    let mut config = Config::default();
    config.accounts.lockout_threshold = 3;
    let world = World::start(config).await;
    let (dn, password) = world.person("asmith").await;
    for _ in 0..3 {
        for _ in 0..2 {
            world.connect().await.bind(&dn, "Wrong-1").await;
        }
        assert_eq!(world.connect().await.bind(&dn, &password).await.code, 0);
    }
}

#[tokio::test]
async fn each_server_counts_bad_passwords_for_itself() {
    let mut config = Config::default().with_servers(2);
    config.accounts.lockout_threshold = 2;
    let world = World::start(config).await;
    let (dn, password) = world.person("asmith").await;
    let second = world.mock.address("ldap_dc2").to_owned();
    assert_eq!(data(&world.connect().await.bind(&dn, "Wrong-1").await), "52e");
    assert_eq!(data(&Client::connect(&second).await.bind(&dn, "Wrong-1").await), "52e");
    assert_eq!(world.connect().await.bind(&dn, &password).await.code, 0, "one failure here, one there");
    for _ in 0..2 {
        Client::connect(&second).await.bind(&dn, "Wrong-1").await;
    }
    assert_eq!(data(&Client::connect(&second).await.bind(&dn, &password).await), "775");
}
