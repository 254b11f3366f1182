//! Steps that change the directory over LDAP, as its administrator would.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail};
use ldap3::{Ldap, Mod};

use crate::spec::{LdapChange, LdapStep};
use crate::world::World;

type Attributes = BTreeMap<String, Vec<String>>;

pub(super) async fn change(step: &LdapStep, world: &mut World) -> Result<String> {
    let server = step.server.clone().unwrap_or_else(|| world.ldap.first_server().to_owned());
    let mut ldap = world.ldap.administrator(&server).await?;
    let mut done = 0;
    for change in &step.changes {
        done += apply(change, &mut ldap, world).await.with_context(|| format!("at {server}: {change:?}"))?;
    }
    ldap.unbind().await?;
    Ok(format!("{done} entries changed at {server}"))
}

async fn apply(change: &LdapChange, ldap: &mut Ldap, world: &World) -> Result<usize> {
    let dn = |text: &str| world.ldap.expand(text);
    match change {
        LdapChange::Add { dn: at, attributes } => add(ldap, &dn(at)?, &expand(attributes, world)?).await?,
        LdapChange::AddPeople { prefix, count } => {
            for index in 0..*count {
                let (at, attributes) = world.ldap.new_person(&format!("{prefix}{index}"));
                add(ldap, &at, &attributes).await?;
            }
            return Ok(*count);
        }
        LdapChange::Replace { dn: at, attributes } => {
            let mods =
                expand(attributes, world)?.into_iter().map(|(name, values)| Mod::Replace(name, set(values)));
            ldap.modify(&dn(at)?, mods.collect()).await?.success()?;
        }
        LdapChange::AddValues { dn: at, attributes } => {
            let mods =
                expand(attributes, world)?.into_iter().map(|(name, values)| Mod::Add(name, set(values)));
            ldap.modify(&dn(at)?, mods.collect()).await?.success()?;
        }
        LdapChange::RemoveValues { dn: at, attributes } => {
            let mods =
                expand(attributes, world)?.into_iter().map(|(name, values)| Mod::Delete(name, set(values)));
            ldap.modify(&dn(at)?, mods.collect()).await?.success()?;
        }
        LdapChange::Rename { dn: at, rdn } => {
            ldap.modifydn(&dn(at)?, rdn, true, None).await?.success()?;
        }
        LdapChange::Move { dn: at, to } => {
            let at = dn(at)?;
            let rdn = rdn_of(&at)?;
            ldap.modifydn(&at, rdn, true, Some(&dn(to)?)).await?.success()?;
        }
        LdapChange::Delete { dn: at } => {
            ldap.delete(&dn(at)?).await?.success()?;
        }
        LdapChange::Lock { login } => world.ldap.lock(login).await?,
        LdapChange::DeletePeople { percent } => {
            let people = world.ldap.people_dns();
            let doomed = people.len() * (*percent as usize) / 100;
            for at in people.iter().rev().take(doomed) {
                ldap.delete(at).await?.success().with_context(|| format!("delete {at}"))?;
            }
            return Ok(doomed);
        }
    }
    Ok(1)
}

async fn add(ldap: &mut Ldap, dn: &str, attributes: &Attributes) -> Result<()> {
    let attributes = attributes.iter().map(|(name, values)| (name.clone(), set(values.clone())));
    ldap.add(dn, attributes.collect()).await?.success().with_context(|| format!("add {dn}"))?;
    Ok(())
}

fn expand(attributes: &Attributes, world: &World) -> Result<Attributes> {
    let values =
        |values: &Vec<String>| values.iter().map(|value| world.ldap.expand(value)).collect::<Result<_>>();
    attributes.iter().map(|(name, list)| Ok((name.clone(), values(list)?))).collect()
}

fn set(values: Vec<String>) -> HashSet<String> {
    values.into_iter().collect()
}

/// The first RDN of a DN: up to the first comma that is not escaped.
fn rdn_of(dn: &str) -> Result<&str> {
    let mut escaped = false;
    for (at, byte) in dn.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b',' if !escaped => return Ok(&dn[..at]),
            _ => escaped = false,
        }
    }
    bail!("{dn:?} has no parent")
}

#[cfg(test)]
mod tests {
    use super::rdn_of;

    #[test]
    fn an_escaped_comma_does_not_end_the_rdn() {
        assert_eq!(rdn_of(r"CN=Doe\, Jane,OU=x,DC=y").unwrap(), r"CN=Doe\, Jane");
        assert_eq!(rdn_of(r"CN=a\\,OU=x").unwrap(), r"CN=a\\");
        assert!(rdn_of("DC=x").is_err());
    }
}
