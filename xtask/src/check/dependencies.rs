//! Who may depend on whom, read from `cargo metadata`.

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::process;
use crate::session::Session;

/// Package, and the packages of ours it may depend on. A package that is not here may depend on nothing of ours.
const EDGES: &[(&str, &[&str])] = &[
    ("agent", &["protocol"]),
    ("mock-cloud", &["protocol", "mock-kit"]),
    ("mock-ca", &["protocol", "mock-kit"]),
    ("mock-exchange", &["protocol", "mock-kit"]),
    ("mock-ldap", &["protocol", "mock-kit"]),
    ("scenarios", &["agent", "mock-ca", "mock-cloud", "mock-exchange", "mock-kit", "mock-ldap", "protocol"]),
    (
        "tests",
        &[
            "agent",
            "protocol",
            "mock-ca",
            "mock-cloud",
            "mock-exchange",
            "mock-kit",
            "mock-ldap",
            "scenarios",
        ],
    ),
];

/// The same for tests only: a module is tested against its mock in one process. No release build sees these.
const DEV_EDGES: &[(&str, &[&str])] = &[("agent", &["mock-ca", "mock-exchange", "mock-kit", "mock-ldap"])];

/// `protocol` is bytes in, bytes out. Sockets, timers and tasks belong to whoever drives it.
const NOT_IN_PROTOCOL: &[&str] =
    &["tokio", "tokio-util", "tokio-rustls", "tokio-xmpp", "socket2", "mio", "hyper", "hyper-util"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `null` for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
}

pub(crate) fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut command = session.cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    println!("   $ {}", process::shown(&command));
    let metadata: Metadata =
        serde_json::from_str(&process::quiet(&mut command)?).context("read the output of cargo metadata")?;
    let wrong: Vec<String> = metadata.packages.iter().flat_map(wrong_edges).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

fn wrong_edges(package: &Package) -> Vec<String> {
    let Some(from) = package.name.strip_prefix("causeway-") else {
        return vec![format!("package {} is not named causeway-<folder>", package.name)];
    };
    let mut wrong = Vec::new();
    for dependency in &package.dependencies {
        let dev = dependency.kind.as_deref() == Some("dev");
        if let Some(to) = dependency.name.strip_prefix("causeway-") {
            let allowed =
                allowed(EDGES, from).contains(&to) || (dev && allowed(DEV_EDGES, from).contains(&to));
            if !allowed {
                wrong.push(format!("{from} must not depend on {to}"));
            }
        } else if from == "protocol" && NOT_IN_PROTOCOL.contains(&dependency.name.as_str()) {
            wrong.push(format!(
                "protocol must not depend on {}: it has no sockets, clock or tasks",
                dependency.name
            ));
        }
    }
    wrong
}

fn allowed(table: &'static [(&'static str, &'static [&'static str])], from: &str) -> &'static [&'static str] {
    table.iter().find(|(name, _)| *name == from).map_or(&[], |(_, allowed)| allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn edges_outside_the_table_are_named() {
        let cases = [
            (package("causeway-agent", &[("causeway-protocol", None), ("tokio", None)]), 0),
            (package("causeway-agent", &[("causeway-mock-ldap", Some("dev"))]), 0),
            (package("causeway-agent", &[("causeway-mock-ldap", None)]), 1),
            (package("causeway-agent", &[("causeway-mock-cloud", Some("dev"))]), 1),
            (package("causeway-mock-ldap", &[("causeway-mock-cloud", None)]), 1),
            (package("causeway-protocol", &[("tokio", None), ("causeway-agent", None)]), 2),
            (package("causeway-xtask", &[("causeway-agent", None)]), 1),
            (package("other", &[]), 1),
        ];
        for (package, wrong) in cases {
            assert_eq!(wrong_edges(&package).len(), wrong, "{}: {:?}", package.name, wrong_edges(&package));
        }
    }
}
