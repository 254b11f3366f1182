//! The generated company, brought into the cloud the way an agent does it.

use causeway_mock_kit::world::{Company, CompanySpec, GroupKind, Member};
use causeway_protocol::channel::payload::{LeaseOp, Payload as _, UploadGrant, UploadRequest};
use causeway_protocol::upload::Mode;
use serde_json::{Value, json};

use super::World;
use super::agent::{Agent, SOURCE};
use super::upload::Uploader;

/// The company of seed 1.
pub(crate) fn company(users: usize) -> Company {
    Company::generate(&CompanySpec { seed: 1, users, domain: "acme.example".to_owned() })
}

/// Stable id of a person.
pub(crate) fn person_id(index: u32) -> String {
    format!("person-{index}")
}

/// Stable id of a group.
pub(crate) fn group_id(index: usize) -> String {
    format!("group-{index}")
}

/// The whole company as records.
pub(crate) fn records(company: &Company) -> Vec<Value> {
    let mut records = Vec::new();
    for (n, ou) in company.ous.iter().enumerate() {
        let parent = ou.parent.map(|parent| format!("ou-{parent}"));
        let v = json!({"name": ou.name, "dn": format!("OU={}", ou.name), "parent": parent});
        records.push(json!({"op": "upsert", "kind": "ou", "key": format!("ou-{n}"), "v": v}));
    }
    for person in &company.people {
        let v = json!({
            "login": person.login, "dn": format!("CN={}", person.display_name), "parent": format!("ou-{}", person.ou),
            "enabled": person.is_active(), "display_name": person.display_name, "mail": person.mail,
            "attributes": {"title": [person.title]},
        });
        records.push(json!({"op": "upsert", "kind": "user", "key": person_id(person.index), "v": v}));
    }
    for (n, group) in company.groups.iter().enumerate() {
        let v = json!({
            "name": group.name, "dn": format!("CN={}", group.name), "description": group.description,
            "security": group.kind == GroupKind::Security,
        });
        records.push(json!({"op": "upsert", "kind": "group", "key": group_id(n), "v": v}));
        for member in &group.members {
            let member = match member {
                Member::Person(person) => person_id(*person),
                Member::Group(group) => group_id(*group as usize),
            };
            records.push(json!({"op": "upsert", "kind": "member", "key": group_id(n), "member": member}));
        }
    }
    records
}

/// Uploads records as one snapshot.
pub(crate) async fn upload(world: &World, agent: &mut Agent, records: &[Value]) {
    upload_to(world, agent, SOURCE, records).await;
}

/// The same to a source.
pub(crate) async fn upload_to(world: &World, agent: &mut Agent, source: &str, records: &[Value]) {
    let grant = agent.lease_of(source, LeaseOp::Acquire, None).await;
    assert!(grant.granted, "{grant:?}");
    let request = UploadRequest {
        source: source.to_owned(),
        mode: Mode::Snapshot,
        base_epoch: None,
        fence: grant.fence,
        allow_mass_delete: true,
    };
    let answer = agent.line.ask_set(request.to_element()).await.unwrap().expect("a grant");
    let grant = UploadGrant::from_element(&answer).unwrap();
    let mut uploader = Uploader::connect(world, Some(&agent.enrolled.credentials)).await;
    let batches: Vec<_> = records.chunks(1_000).collect();
    for (n, batch) in batches.iter().enumerate() {
        let lines: String = batch.iter().map(|record| format!("{record}\n")).collect();
        let (status, body) = uploader.put(&grant.upload, n as u64, &lines).await;
        assert_eq!(status.as_u16(), 201, "{body}");
    }
    let (status, body) = uploader.commit(&grant.upload, batches.len() as u64, records.len() as u64).await;
    assert!(status.is_success(), "{status} {body}");
}
