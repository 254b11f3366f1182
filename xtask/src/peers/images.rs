//! Container images, built from `tests/containers/` and tagged by a digest of what they are built from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::is_root;
use crate::process;
use crate::session::Session;

/// What our Dockerfiles share besides their own folder.
const COMMON: &str = "common";

#[derive(Deserialize)]
struct Table {
    base: Base,
    image: BTreeMap<String, toml::Table>,
}

#[derive(Deserialize)]
struct Base {
    image: String,
    /// The Debian release it is made of where no registry answers.
    suite: String,
}

/// One image of the table.
pub(crate) struct Image {
    pub(crate) name: String,
    /// `causeway-openldap:0123456789abcdef`.
    pub(crate) tag: String,
}

pub(crate) fn table(session: &Session) -> anyhow::Result<Vec<Image>> {
    let folder = folder(session);
    let table = read_table(session)?;
    let tagged = |name: String| {
        let tag = format!("causeway-{name}:{:016x}", digest(&folder, &name)?);
        Ok(Image { name, tag })
    };
    table.image.into_keys().map(tagged).collect()
}

/// Builds what is missing and notes all tags in `target/peers/images.json`, where the tests look.
pub(crate) fn build_all(session: &Session) -> anyhow::Result<()> {
    let images = table(session)?;
    let missing: Vec<&Image> = images.iter().filter(|image| !exists(session, &image.tag)).collect();
    if !missing.is_empty() {
        provide_base(session, &read_table(session)?.base)?;
    }
    for image in missing {
        let started = Instant::now();
        build(session, image)?;
        println!("   image {} built in {:.1} s", image.tag, started.elapsed().as_secs_f64());
    }
    let tags: BTreeMap<&str, &str> =
        images.iter().map(|image| (image.name.as_str(), image.tag.as_str())).collect();
    let path = session.peers_dir()?.join("images.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&tags)?)
        .with_context(|| format!("write {}", path.display()))
}

pub(crate) fn exists(session: &Session, tag: &str) -> bool {
    process::succeeds(session.command("docker").args(["image", "inspect", tag]))
}

fn build(session: &Session, image: &Image) -> anyhow::Result<()> {
    let folder = folder(session);
    let mut command = session.command("docker");
    // The classic builder is part of the engine; BuildKit is a plug-in that Debian's engine does not bring. The
    // host's network: a build may reach the package mirror only the way this machine does.
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--network=host", "--tag", &image.tag]);
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if std::env::var_os(name).is_some() {
            // Without a value: taken from the environment and kept out of the image.
            command.args(["--build-arg", name]);
        }
    }
    command.arg("--file").arg(folder.join(&image.name).join("Dockerfile")).arg(&folder);
    process::quiet(&mut command)?;
    Ok(())
}

/// The image everything starts from: there, or pulled, or made here of Debian's own packages.
fn provide_base(session: &Session, base: &Base) -> anyhow::Result<()> {
    if exists(session, &base.image) {
        return Ok(());
    }
    let started = Instant::now();
    if process::succeeds(session.command("docker").args(["pull", "--quiet", &base.image])) {
        println!("   image {} pulled in {:.1} s", base.image, started.elapsed().as_secs_f64());
        return Ok(());
    }
    if !is_root(session) {
        bail!("no registry answers for {}, and making it with debootstrap needs root", base.image);
    }
    let root = session.peers_dir()?.join("base");
    let mirror = debian_mirror(Path::new("/etc/apt"))?;
    remove_folder(&root)?;
    process::quiet(
        session.command("debootstrap").args(["--variant=minbase", &base.suite]).arg(&root).arg(&mirror),
    )?;
    import(session, &root, &base.image)?;
    remove_folder(&root)?;
    println!("   image {} made by debootstrap in {:.1} s", base.image, started.elapsed().as_secs_f64());
    Ok(())
}

fn import(session: &Session, root: &Path, image: &str) -> anyhow::Result<()> {
    let archive = root.with_extension("tar");
    process::quiet(session.command("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."))?;
    process::quiet(
        session.command("docker").args(["import", "--change", "CMD [\"bash\"]"]).arg(&archive).arg(image),
    )?;
    std::fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))
}

/// The mirror this machine itself installs from; none is written down in the repository.
fn debian_mirror(apt: &Path) -> anyhow::Result<String> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(folder) = std::fs::read_dir(apt.join("sources.list.d")) {
        files.extend(folder.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts
        .into_iter()
        .find_map(|text| mirror_in(&text))
        .context("no Debian mirror in the package sources of this machine")
}

/// The first mirror of the whole distribution: `deb URL suite main` or a paragraph with `URIs:`.
fn mirror_in(text: &str) -> Option<String> {
    let words = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).flat_map(|line| {
        let one_line = line.starts_with("deb ") || line.starts_with("URIs:");
        line.split_whitespace().filter(move |_| one_line)
    });
    words
        .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
        .find(|word| word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn folder(session: &Session) -> PathBuf {
    session.root.join("tests/containers")
}

fn read_table(session: &Session) -> anyhow::Result<Table> {
    let path = folder(session).join("images.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("read {}", path.display()))
}

/// FNV-1a over names and contents of the files an image is made of: a tag, not a promise against an attacker.
fn digest(folder: &Path, name: &str) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    for part in [COMMON, name] {
        let listed =
            std::fs::read_dir(folder.join(part)).with_context(|| format!("list tests/containers/{part}"))?;
        for entry in listed {
            files.push(entry.context("list an image's folder")?.path());
        }
    }
    files.sort();
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let own_name = file.file_name().unwrap_or_default().as_encoded_bytes();
        for byte in own_name.iter().chain(&[0]).chain(&bytes).chain(&[0]) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_sources() {
        let paragraph =
            "Types: deb\n# http://archive.test/debian\nURIs: http://mirror.test/debian\nSuites: bookworm\n";
        let line = "# comment\ndeb [signed-by=/x] https://other.test/apt stable main\ndeb http://m.test/debian/ bookworm main\n";
        assert_eq!(mirror_in(paragraph).as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(mirror_in(line).as_deref(), Some("http://m.test/debian/"));
        assert_eq!(mirror_in("deb http://security.test/debian-security bookworm main"), None);
    }
}
