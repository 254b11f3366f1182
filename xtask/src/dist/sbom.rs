//! The bill of materials: every package that is linked into the agent, in CycloneDX 1.5.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::Dist;
use crate::process;

/// One package of the build.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    name: String,
    version: String,
    license: String,
    /// Of the lock file, absent for our own packages.
    sha256: Option<String>,
}

pub(super) fn write(dist: &Dist<'_>) -> anyhow::Result<PathBuf> {
    // `cargo tree` resolves features as the build does; `cargo metadata` lists optional packages nobody turned on.
    let mut tree = dist.session.cargo(&["tree", "--package", "causeway-agent", "--edges", "normal,build"]);
    tree.args(["--target", "all", "--prefix", "none", "--format", "{p}|{l}|"]);
    let lock = dist.session.root.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let packages = packages(&process::quiet(&mut tree)?, &checksums(&lock)?);
    let path = dist.out.join(format!("causeway-agent-{}.cdx.json", dist.version));
    let text = serde_json::to_string_pretty(&document(dist.version, &packages)).context("texts are JSON")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("   bill of materials: {} packages", packages.len());
    Ok(path)
}

fn checksums(lock: &str) -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = toml::from_str(lock).context("read Cargo.lock")?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists packages")?;
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    Ok(packages
        .iter()
        .filter_map(|package| {
            Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
        })
        .collect())
}

fn packages(tree: &str, checksums: &BTreeMap<(String, String), String>) -> Vec<Built> {
    let mut packages: Vec<Built> = tree
        .lines()
        .filter_map(|line| {
            let mut parts = line.split('|');
            let (package, license) = (parts.next()?, parts.next()?);
            let mut words = package.split(' ');
            let (name, version) =
                (words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned());
            let sha256 = checksums.get(&(name.clone(), version.clone())).cloned();
            // Cargo also takes a slash for OR, which is not SPDX.
            Some(Built { name, version, license: license.replace('/', " OR "), sha256 })
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// No serial number and no time: the same sources give the same document.
fn document(version: &str, packages: &[Built]) -> Value {
    let components: Vec<Value> =
        packages.iter().filter(|p| p.name != "causeway-agent").map(component).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "causeway-agent",
                "name": "causeway-agent",
                "version": version,
            },
        },
        "components": components,
    })
}

fn component(package: &Built) -> Value {
    let Built { name, version, license, sha256 } = package;
    let mut component = json!({
        "type": "library",
        "bom-ref": format!("{name}@{version}"),
        "name": name,
        "version": version,
        "licenses": [{ "expression": license }],
    });
    if let Some(sha256) = sha256 {
        component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_stands_once_with_its_licence_and_checksum() {
        let lock = "[[package]]\nname = 'a'\nversion = '1.0.0'\nchecksum = 'aa'\n\
                    [[package]]\nname = 'own'\nversion = '0.1.0'\n";
        let tree = "causeway-agent v0.1.0 (/x)|MIT|\na v1.0.0|MIT/Apache-2.0|\na v1.0.0|MIT/Apache-2.0| (*)\n\
                    own v0.1.0 (/y)|MIT|\n";
        let packages = packages(tree, &checksums(lock).unwrap());
        let document = document("0.1.0", &packages);
        let components = document["components"].as_array().unwrap();
        assert_eq!(components.len(), 2, "{document:#}");
        assert_eq!(components[0]["purl"], "pkg:cargo/a@1.0.0");
        assert_eq!(components[0]["hashes"][0]["content"], "aa");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert!(components[1].get("purl").is_none());
    }
}
