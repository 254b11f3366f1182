//! Container images with nothing in them but the program.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Dist, linux};
use crate::process;
use crate::session::Session;
use crate::windows::target;

/// Package, program, what it is called with when nothing else is said.
const IMAGES: &[(&str, &str, &[&str])] = &[
    ("causeway-agent", "causeway-agent", &["run", "--data-dir", "/data"]),
    ("causeway-mock-ldap", "mock-ldap", &["--listen", "0.0.0.0"]),
    ("causeway-mock-cloud", "mock-cloud", &["--listen", "0.0.0.0"]),
];

/// Nobody: the programs need no rights on the machine.
const USER: &str = "65534:65534";

pub(super) fn engine_answers(session: &Session) -> bool {
    process::succeeds(session.command("docker").arg("info"))
}

pub(super) fn make(dist: &Dist<'_>) -> anyhow::Result<Vec<PathBuf>> {
    target(dist.session, linux::TARGET)?;
    let packages: Vec<&str> = IMAGES.iter().map(|(package, _, _)| *package).collect();
    let built = dist.build(linux::TARGET, &packages)?;
    let mut made = Vec::new();
    for (package, program, arguments) in IMAGES {
        let tag = format!("{package}:{}", dist.version);
        build(dist, &built.join(program), program, arguments, &tag)?;
        let archive = dist.out.join(format!("{package}-{}-image.tar", dist.version));
        process::quiet(dist.session.command("docker").args(["save", "--output"]).arg(&archive).arg(&tag))?;
        println!("   image {tag}");
        made.push(archive);
    }
    Ok(made)
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
