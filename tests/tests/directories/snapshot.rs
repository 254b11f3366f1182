//! The first collection: everything, exactly once, over several pages.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::agent::{Collector, directory};
use crate::arm::{Arm, NewPerson};
use crate::on_every_arm;
use crate::picture::{compare, seen, told, word};

on_every_arm![a_snapshot_equals_the_directory, scope_is_kept, one_user_on_demand];

const PASSWORD: &str = "Correct horse 9";

/// Names that have broken directory software before.
const HARD_NAMES: &[&str] = &[
    "O'Brien, Pat",
    "Quo \"ted\" Person",
    "Paren (the) Sis",
    "Back\\slash Person",
    "Plus+Semi;Less<Greater>Hash#Equals=",
    "M\u{fc}ller-L\u{fc}denscheidt",
    "\u{05d3}\u{05d5}\u{05d3} \u{05db}\u{05d4}\u{05df}",
    "* (star)",
];

async fn a_snapshot_equals_the_directory(mut arm: Arm) -> Result<()> {
    let north = arm.add_unit("North, \"Upper\" + Lower").await?;
    let south = arm.add_unit("South").await?;
    let mut people = Vec::new();
    for (number, name) in HARD_NAMES.iter().enumerate() {
        let login = arm.login_of(&format!("p{number}-"));
        let parent = if number % 2 == 0 { &north } else { &south };
        people.push(arm.add_person(parent, &NewPerson { name, login: &login, password: PASSWORD }).await?);
    }
    arm.disable(&people[0]).await?;
    let all: Vec<&str> = people.iter().map(String::as_str).collect();
    let team = arm.add_group(&south, "Team (a)", &all[..3]).await?;
    let outer = arm.add_group(&south, "Outer, all", &[&team, &people[7]]).await?;
    // A cycle: legal on every server, and the end of a naive walk.
    arm.add_value(&team, "member", &outer).await?;

    let mut directory = directory(&arm);
    directory["page_size"] = json!(3);
    let collector = Collector::start_on(&arm, json!({}), directory)?;
    let result = collector.sync().await?;
    let seen = seen(&mut arm).await?;
    compare(&told(&collector.cloud)?, &seen)?;
    ensure!(seen.len() == 3 + HARD_NAMES.len() + 2, "{} objects in the directory", seen.len());
    ensure!(seen.values().any(|object| object.members.len() == 4), "no group of four: {result}");
    Ok(())
}

async fn scope_is_kept(mut arm: Arm) -> Result<()> {
    let visible = arm.add_unit("Visible").await?;
    let hidden = arm.add_unit("Hidden").await?;
    let (a, b, c) = (arm.login_of("a"), arm.login_of("b"), arm.login_of("c"));
    let member =
        arm.add_person(&visible, &NewPerson { name: "A Visible", login: &a, password: PASSWORD }).await?;
    let outside =
        arm.add_person(&hidden, &NewPerson { name: "B Hidden", login: &b, password: PASSWORD }).await?;
    arm.add_person(&visible, &NewPerson { name: "C Filtered", login: &c, password: PASSWORD }).await?;
    arm.add_group(&visible, "Mixed", &[&member, &outside]).await?;
    let settings = json!({ "excluded_bases": [hidden], "user_filter": "(!(cn=C Filtered))" });
    let collector = Collector::start(&arm, settings)?;
    let result = collector.sync().await?;
    let told = told(&collector.cloud)?;
    let users: Vec<&str> = told
        .values()
        .filter(|object| object.kind == "user")
        .map(|object| object.fields["login"].as_str())
        .collect();
    ensure!(users == [&*a], "{users:?} are visible: {result}");
    let group = told.values().find(|object| object.kind == "group");
    ensure!(group.is_some_and(|group| group.members.len() == 1), "{group:?}");
    ensure!(!told.values().any(|object| object.dn.to_lowercase().contains("hidden")), "{told:?}");
    Ok(())
}

async fn one_user_on_demand(mut arm: Arm) -> Result<()> {
    let (login, root) = (arm.login_of("one"), arm.root.clone());
    let dn =
        arm.add_person(&root, &NewPerson { name: "One Probe", login: &login, password: PASSWORD }).await?;
    let collector = Collector::start(&arm, json!({}))?;
    collector.sync().await?;
    arm.replace(&dn, "sn", &["Changed"]).await?;
    let result = collector.act("sync_user", json!({ "user": login })).await?;
    let result = result.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    ensure!(word(&result, "strategy") == "one_user", "{result}");
    compare(&told(&collector.cloud)?, &seen(&mut arm).await?)?;
    let missing = collector.act("sync_user", json!({ "user": "nobody*" })).await?;
    ensure!(missing.is_err(), "a user nobody has was found: {missing:?}");
    Ok(())
}
