//! What changed since: every way a server offers to learn of it leads to the same picture as reading everything.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::agent::Collector;
use crate::arm::{Arm, NewPerson, Product};
use crate::picture::{Picture, compare, seen, told, word};

const PASSWORD: &str = "Correct horse 9";

/// A test per way and arm that has it.
macro_rules! by {
    ($($way:ident: $($arm:ident = $enter:expr),+;)+) => { $(
        mod $way {
            use crate::arm::Arm;
            $(
                #[tokio::test]
                async fn $arm() -> anyhow::Result<()> {
                    match $enter.await? { Some(arm) => super::follow(arm, stringify!($way)).await, None => Ok(()) }
                }
            )+
            mod leaving_the_filter {
                use crate::arm::Arm;
                $(
                    #[tokio::test]
                    async fn $arm() -> anyhow::Result<()> {
                        match $enter.await? {
                            Some(arm) => super::super::leave_the_filter(arm, stringify!($way)).await,
                            None => Ok(()),
                        }
                    }
                )+
            }
        }
    )+ };
}

by! {
    dirsync: mock_active_directory = Arm::mock("active_directory"), samba = Arm::samba();
    usn: mock_active_directory = Arm::mock("active_directory"), samba = Arm::samba();
    syncrepl: mock_openldap = Arm::mock("openldap"), openldap = Arm::openldap(),
        mock_ds389 = Arm::mock("ds389"), ds389 = Arm::ds389();
    changelog: mock_ds389 = Arm::mock("ds389"), ds389 = Arm::ds389();
    scan: mock_active_directory = Arm::mock("active_directory"), mock_openldap = Arm::mock("openldap"),
        mock_ds389 = Arm::mock("ds389"), samba = Arm::samba(), openldap = Arm::openldap(), ds389 = Arm::ds389();
}

/// The entries the changes are made to.
struct Cast {
    north: String,
    south: String,
    people: Vec<String>,
    team: String,
    outer: String,
}

async fn follow(mut arm: Arm, way: &str) -> Result<()> {
    let mut cast = cast(&mut arm).await?;
    let collector = Collector::start(&arm, json!({ "strategy": way }))?;
    collector.sync().await?;
    compare(&told(&collector.cloud)?, &seen(&mut arm).await?)?;
    quiet(&collector, &arm, "nothing has changed").await?;

    add_and_modify(&mut arm, &cast).await?;
    step(&collector, &mut arm, way, "added and modified").await?;
    rename_and_move(&mut arm, &mut cast).await?;
    step(&collector, &mut arm, way, "renamed and moved").await?;
    change_memberships(&mut arm, &cast).await?;
    step(&collector, &mut arm, way, "memberships changed").await?;
    rename_a_unit(&mut arm, &mut cast).await?;
    step(&collector, &mut arm, way, "a unit renamed").await?;
    delete(&mut arm, &cast).await?;
    step(&collector, &mut arm, way, "deleted").await?;
    quiet(&collector, &arm, "nothing has changed since").await
}

async fn cast(arm: &mut Arm) -> Result<Cast> {
    let north = arm.add_unit("North").await?;
    let south = arm.add_unit("South").await?;
    let mut people = Vec::new();
    for number in 0..6 {
        let (login, name) = (arm.login_of(&format!("c{number}-")), format!("Person {number}"));
        people.push(
            arm.add_person(&north, &NewPerson { name: &name, login: &login, password: PASSWORD }).await?,
        );
    }
    let all: Vec<&str> = people.iter().map(String::as_str).collect();
    let team = arm.add_group(&south, "Team", &all[..4]).await?;
    let outer = arm.add_group(&south, "Outer", &[&team]).await?;
    Ok(Cast { north, south, people, team, outer })
}

async fn add_and_modify(arm: &mut Arm, cast: &Cast) -> Result<()> {
    let login = arm.login_of("late");
    let late = NewPerson { name: "Late, Comer (1)", login: &login, password: PASSWORD };
    let late = arm.add_person(&cast.south, &late).await?;
    arm.add_value(&cast.team, "member", &late).await?;
    arm.replace(&cast.people[1], "mail", &["changed@acme.example"]).await?;
    arm.disable(&cast.people[2]).await?;
    arm.replace(&cast.team, "description", &["changed"]).await
}

async fn rename_and_move(arm: &mut Arm, cast: &mut Cast) -> Result<()> {
    let (north, south) = (cast.north.clone(), cast.south.clone());
    let rdn = match arm.product {
        Product::ActiveDirectory => "CN=Person Renamed".to_owned(),
        Product::OpenLdap | Product::Ds389 => format!("uid={}", arm.login_of("renamed")),
    };
    let old = cast.people[0].clone();
    cast.people[0] = arm.rename(&old, &rdn, &north).await?;
    arm.relink(&cast.team, &old, &cast.people[0]).await?;
    let old = cast.people[3].clone();
    let rdn = old.split(',').next().unwrap_or_default().to_owned();
    cast.people[3] = arm.rename(&old, &rdn, &south).await?;
    arm.relink(&cast.team, &old, &cast.people[3]).await
}

async fn change_memberships(arm: &mut Arm, cast: &Cast) -> Result<()> {
    arm.add_value(&cast.team, "member", &cast.people[5]).await?;
    arm.delete_value(&cast.team, "member", &cast.people[1]).await?;
    arm.add_group(&cast.south, "Inner", &[&cast.people[4]]).await?;
    arm.add_value(&cast.outer, "member", &cast.people[4]).await
}

/// Everything below it has another name afterwards, and no server reports those one by one.
async fn rename_a_unit(arm: &mut Arm, cast: &mut Cast) -> Result<()> {
    let root = arm.root.clone();
    let old = std::mem::take(&mut cast.north);
    cast.north = arm.rename(&old, "ou=Far North", &root).await?;
    for person in &mut cast.people {
        let Some(rdn) = person.strip_suffix(&old) else { continue };
        let new = format!("{rdn}{}", cast.north);
        for group in [&cast.team, &cast.outer] {
            arm.relink(group, person, &new).await?;
        }
        *person = new;
    }
    Ok(())
}

async fn delete(arm: &mut Arm, cast: &Cast) -> Result<()> {
    arm.delete_value(&cast.team, "member", &cast.people[2]).await?;
    arm.delete(&cast.people[2]).await?;
    arm.delete(&cast.outer).await
}

/// One look for changes: by the way that was asked for, and with the right result.
async fn step(collector: &Collector, arm: &mut Arm, way: &str, what: &str) -> Result<()> {
    let result = collector.sync().await?;
    ensure!(
        word(&result, "strategy") == way,
        "{what}: by {} instead of {way}: {result}",
        word(&result, "strategy")
    );
    let mode = if way == "scan" { "scan" } else { "delta" };
    ensure!(
        word(&result, "mode") == mode,
        "{what}: a {} instead of a {mode}: {result}",
        word(&result, "mode")
    );
    let same = compare(&told(&collector.cloud)?, &seen(arm).await?);
    same.map_err(|error| error.context(format!("{what}; the agent said {result}")))
}

/// Who no longer matches the filter is gone for the cloud, and comes back with matching again.
async fn leave_the_filter(mut arm: Arm, way: &str) -> Result<()> {
    let unit = arm.add_unit("Filtered").await?;
    let logins = ["stays", "leaves"].map(|name| arm.login_of(name));
    let mut people = Vec::new();
    for login in &logins {
        people.push(arm.add_person(&unit, &NewPerson { name: login, login, password: PASSWORD }).await?);
    }
    let class = if arm.product == Product::ActiveDirectory { "user" } else { "inetOrgPerson" };
    let filter = format!("(&(objectClass={class})(mail=*))");
    let collector = Collector::start(&arm, json!({ "strategy": way, "user_filter": filter }))?;
    let here = |picture: Picture| -> Vec<String> {
        let mut here: Vec<String> =
            picture.into_values().filter_map(|mut object| object.fields.remove("login")).collect();
        here.sort();
        here
    };
    collector.sync().await?;
    ensure!(here(told(&collector.cloud)?) == [logins[1].as_str(), &logins[0]], "both at first");
    for (mail, expected) in [(&[][..], &logins[..1]), (&["again@acme.example"][..], &logins[..])] {
        arm.replace(&people[1], "mail", mail).await?;
        let result = collector.sync().await?;
        ensure!(word(&result, "strategy") == way, "by {way}: {result}");
        let mut expected = expected.to_vec();
        expected.sort();
        let found = here(told(&collector.cloud)?);
        ensure!(found == expected, "mail {mail:?}: {found:?}, and the agent said {result}");
    }
    Ok(())
}

mod a_closed_changelog {
    use crate::arm::Arm;

    #[tokio::test]
    async fn mock_ds389() -> anyhow::Result<()> {
        match Arm::mock("ds389").await? {
            Some(arm) => super::follow_without_changelog(arm).await,
            None => Ok(()),
        }
    }

    #[tokio::test]
    async fn ds389() -> anyhow::Result<()> {
        match Arm::ds389().await? {
            Some(arm) => super::follow_without_changelog(arm).await,
            None => Ok(()),
        }
    }
}

/// An account that sees everybody but not `cn=changelog`: the server says how many changes there are and shows none.
async fn follow_without_changelog(mut arm: Arm) -> Result<()> {
    let unit = arm.add_unit("Closed").await?;
    let mut people = Vec::new();
    for name in ["reader", "changed", "deleted"] {
        let login = arm.login_of(name);
        people.push(arm.add_person(&unit, &NewPerson { name, login: &login, password: PASSWORD }).await?);
    }
    arm.login.clone_from(&people[0]);
    arm.password = PASSWORD.to_owned();
    let collector = Collector::start(&arm, json!({}))?;
    let first = collector.sync().await?;
    ensure!(word(&first, "strategy") == "syncrepl", "{first}");
    arm.replace(&people[1], "mail", &["changed@acme.example"]).await?;
    arm.delete(&people[2]).await?;
    step(&collector, &mut arm, "syncrepl", "changed and deleted").await?;
    // Told to use it all the same, the agent compares everything rather than miss what happened.
    let told_to = Collector::start(&arm, json!({ "strategy": "changelog" }))?;
    told_to.sync().await?;
    arm.replace(&people[1], "mail", &["again@acme.example"]).await?;
    told_to.sync().await?;
    compare(&told(&told_to.cloud)?, &seen(&mut arm).await?)
}

/// A look that sends nothing, because nothing happened in the test's subtree.
async fn quiet(collector: &Collector, arm: &Arm, what: &str) -> Result<()> {
    let before = collector.cloud.objects();
    let result = collector.sync().await?;
    let sent: Vec<(&String, &Value)> = result["counts"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.contains(".upsert") || name.contains(".delete"))
        .collect();
    ensure!(
        sent.is_empty() && collector.cloud.objects() == before,
        "{what} below {}, yet: {result}",
        arm.root
    );
    Ok(())
}
