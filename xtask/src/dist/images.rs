//! Container images with nothing in them but the program.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{AGENT, Dist, linux};
use crate::process;
use crate::session::Session;

/// The product, and what it is called with when nothing else is said.
const PRODUCT: (&str, &[&str]) = (AGENT, &["run", "--data-dir", "/data"]);

/// Every package called so that has a program gets an image; their flags are those of `mock-kit`, so they all start so.
const MOCKS: (&str, &[&str]) = ("causeway-mock-", &["--listen", "0.0.0.0"]);

/// Nobody: the programs need no rights on the machine.
const USER: &str = "65534:65534";

/// One image.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    package: String,
    program: String,
    arguments: &'static [&'static str],
}

pub(super) fn engine_answers(session: &Session) -> bool {
    process::succeeds(session.command("docker").arg("info"))
}

pub(super) fn make(dist: &Dist<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let agent = linux::program(dist);
    ensure!(agent.exists(), "{} is missing; make the part linux first", agent.display());
    let metadata =
        process::quiet(&mut dist.session.cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let images = images(&serde_json::from_str(&metadata).context("read cargo's metadata")?);
    // The agent is the one delivered; built together with the mocks it would get what only they ask of libraries.
    let packages: Vec<&str> =
        images.iter().map(|image| image.package.as_str()).filter(|package| *package != AGENT).collect();
    let built = dist.build(linux::TARGET, &packages, "")?;
    let mut made = Vec::new();
    for Image { package, program, arguments } in &images {
        let tag = format!("{package}:{}", dist.version);
        let from = if package == AGENT { agent.clone() } else { built.join(program) };
        build(dist, &from, program, arguments, &tag)?;
        let archive = dist.out.join(format!("{package}-{}-image.tar", dist.version));
        process::quiet(dist.session.command("docker").args(["save", "--output"]).arg(&archive).arg(&tag))?;
        println!("   image {tag}");
        made.push(archive);
    }
    Ok(made)
}

/// What gets an image, by what `cargo metadata` says of the workspace.
fn images(metadata: &Value) -> Vec<Image> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut images = Vec::new();
    for package in list(metadata, "packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let arguments = match name {
            name if name == PRODUCT.0 => PRODUCT.1,
            name if name.starts_with(MOCKS.0) => MOCKS.1,
            _ => continue,
        };
        let programs = list(&package, "targets");
        let program = programs.iter().find(|target| list(target, "kind").contains(&json!("bin")));
        if let Some(program) = program.and_then(|target| target["name"].as_str()) {
            images.push(Image { package: name.to_owned(), program: program.to_owned(), arguments });
        }
    }
    images
}

fn build(dist: &Dist<'_>, from: &Path, program: &str, arguments: &[&str], tag: &str) -> anyhow::Result<()> {
    let folder = dist.work.join("image");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    dist.copy(from, &folder.join(program))?;
    // Empty folders can only come from outside: there is nothing inside that could make one.
    for name in ["data", "tmp"] {
        let path = folder.join("root").join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let words = serde_json::to_string(arguments).context("words are JSON")?;
    let text = format!(
        "FROM scratch\nCOPY --chown={USER} root/ /\nCOPY {program} /{program}\nUSER {USER}\n\
         ENTRYPOINT [\"/{program}\"]\nCMD {words}\n"
    );
    let file = folder.join("Dockerfile");
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let mut command = dist.session.command("docker");
    // The classic builder is part of every engine.
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--tag", tag]).arg(&folder);
    process::quiet(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_and_every_mock_with_a_program_get_an_image() {
        let package = |name: &str, kind: &str, target: &str| json!({ "name": name, "targets": [{ "kind": ["lib"], "name": "x" }, { "kind": [kind], "name": target }] });
        let found = images(&json!({ "packages": [
            package("causeway-agent", "bin", "causeway-agent"),
            package("causeway-mock-kit", "test", "it"),
            package("causeway-mock-new", "bin", "mock-new"),
            package("causeway-scenarios", "bin", "causeway"),
        ]}));
        let found: Vec<_> = found
            .iter()
            .map(|image| (image.package.as_str(), image.program.as_str(), image.arguments))
            .collect();
        assert_eq!(
            found,
            [("causeway-agent", "causeway-agent", PRODUCT.1), ("causeway-mock-new", "mock-new", MOCKS.1)]
        );
    }
}
