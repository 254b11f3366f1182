//! Licences, banned packages and sources of everything that is built, from the lists in `deny.toml`.
//!
//! `cargo deny check` reads the same file and is run where it is installed. It is not installed on the way: building
//! it takes longer than all our tests. Its advisories need a database from the network, and where that cannot be
//! fetched the skip is counted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::spdx;
use crate::process;
use crate::session::Session;

#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Packages that may depend on it all the same; nobody else may.
    #[serde(default)]
    wrappers: BTreeSet<String>,
}

/// One package of the build.
struct Built {
    name: String,
    version: String,
    license: String,
}

pub(crate) fn run(session: &mut Session) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(session.root.join("deny.toml")).context("read deny.toml")?;
    let policy: Policy = toml::from_str(&text).context("read deny.toml")?;
    let built = built(session)?;
    let mut wrong = Vec::new();
    for package in &built {
        wrong.extend(objections(&policy, package)?);
    }
    for ban in policy.bans.deny.iter().filter(|ban| !ban.wrappers.is_empty()) {
        if built.iter().any(|package| package.name == ban.name) {
            wrong.extend(strange_users(ban, &users(session, &ban.name)?));
        }
    }
    wrong.extend(foreign_sources(session)?);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("   licences, bans and sources of {} packages are as deny.toml says", built.len());
    cargo_deny(session)
}

fn objections(policy: &Policy, package: &Built) -> anyhow::Result<Vec<String>> {
    let Built { name, version, license } = package;
    let mut wrong = Vec::new();
    if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.name == *name && ban.wrappers.is_empty()) {
        wrong.push(format!("{name} {version} is banned: {}", ban.reason));
    }
    let excepted = policy.licenses.exceptions.iter().find(|exception| exception.name == *name);
    let accepts = |one: &str| {
        policy.licenses.allow.contains(one) || excepted.is_some_and(|exception| exception.allow.contains(one))
    };
    if license.is_empty() {
        wrong.push(format!("{name} {version} states no licence"));
    } else if !spdx::satisfied(license, &accepts)? {
        wrong.push(format!("{name} {version}: the licence {license} is not in the list"));
    }
    Ok(wrong)
}

/// Packages that use a banned one without being named as its wrappers.
fn strange_users(ban: &Ban, users: &BTreeSet<String>) -> Vec<String> {
    let strange = users.iter().filter(|user| !ban.wrappers.contains(*user));
    strange.map(|user| format!("{user} uses {}, which is banned: {}", ban.name, ban.reason)).collect()
}

/// Packages that depend on `name` directly.
fn users(session: &Session, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut command =
        session.cargo(&["tree", "--workspace", "--target", "all", "--edges", "normal,build,dev"]);
    command.args(["--prefix", "none", "--depth", "1", "--format", "{p}", "--invert", name]);
    let answer = process::quiet(&mut command)?;
    let names = answer.lines().filter_map(|line| line.split(' ').next()).filter(|user| *user != name);
    Ok(names.filter(|user| !user.is_empty()).map(str::to_owned).collect())
}

/// What is really built, for every target; `cargo metadata` also lists optional packages that nobody turned on.
fn built(session: &Session) -> anyhow::Result<Vec<Built>> {
    let mut command =
        session.cargo(&["tree", "--workspace", "--target", "all", "--edges", "normal,build,dev"]);
    command.args(["--prefix", "none", "--format", "{p}|{l}|"]);
    println!("   $ {}", process::shown(&command));
    let mut found = BTreeMap::new();
    for line in process::quiet(&mut command)?.lines() {
        let mut parts = line.split('|');
        let (Some(package), Some(license)) = (parts.next(), parts.next()) else { continue };
        let mut words = package.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            let version = version.trim_start_matches('v');
            found.insert((name.to_owned(), version.to_owned()), license.to_owned());
        }
    }
    Ok(found.into_iter().map(|((name, version), license)| Built { name, version, license }).collect())
}

/// Packages of the lock file that come neither from this workspace nor from the default registry.
fn foreign_sources(session: &Session) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        source: Option<String>,
    }
    let text = std::fs::read_to_string(session.root.join("Cargo.lock")).context("read Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("read Cargo.lock")?;
    let foreign = |source: &str| !(source.starts_with("registry+") && source.ends_with("-index"));
    Ok(lock
        .package
        .into_iter()
        .filter_map(|package| {
            package.source.filter(|source| foreign(source)).map(|source| (package.name, source))
        })
        .map(|(name, source)| format!("{name} comes from {source}"))
        .collect())
}

fn cargo_deny(session: &mut Session) -> anyhow::Result<()> {
    if !process::succeeds(&mut session.cargo(&["deny", "--version"])) {
        println!("   cargo-deny is not installed: known vulnerabilities are not looked up in this run");
        return Ok(());
    }
    session.stream(&mut session.cargo(&["deny", "--workspace", "check", "licenses", "bans", "sources"]))?;
    match process::quiet(&mut session.cargo(&["deny", "--workspace", "check", "advisories"])) {
        Ok(_) => Ok(()),
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            session.skip("advisories", "the advisory database cannot be fetched from here");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_and_a_licence_outside_the_list_are_objected_to() {
        let policy: Policy = toml::from_str(
            "[licenses]\nallow = ['MIT']\nexceptions = [{ crate = 'x', allow = ['MPL-2.0'] }]\n\
             [bans]\ndeny = [{ crate = 'ring', reason = 'one provider' }]",
        )
        .unwrap();
        let count = |name: &str, license: &str| {
            let package =
                Built { name: name.to_owned(), version: "1.0.0".to_owned(), license: license.to_owned() };
            objections(&policy, &package).unwrap().len()
        };
        assert_eq!(count("a", "MIT"), 0);
        assert_eq!(count("a", "MPL-2.0"), 1);
        assert_eq!(count("x", "MPL-2.0"), 0);
        assert_eq!(count("ring", "MIT"), 1);
        assert_eq!(count("ring", ""), 2);
    }

    #[test]
    fn a_banned_package_may_be_used_by_its_wrappers_only() {
        let ban: Ban =
            toml::from_str("crate = 'rsa'\nreason = 'timing'\nwrappers = ['picky', 'sspi']").unwrap();
        let users = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert!(strange_users(&ban, &users(&["sspi", "picky"])).is_empty());
        assert_eq!(strange_users(&ban, &users(&["sspi", "agent"])).len(), 1);
    }
}
