//! `tests/containers/images.toml`, and the tags `cargo xtask images` built from it.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use super::{Kind, peers_dir};

/// One image as the table describes it; keys that only `xtask` needs are not named here.
#[derive(Deserialize)]
pub(super) struct Image {
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) hostname: String,
    pub(super) ready: Ready,
    pub(super) shared_memory_mib: Option<u64>,
}

/// What "ready" means for a server; see the head of the table.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ready {
    Ldap,
    Xmpp,
    Proxy,
}

#[derive(Deserialize)]
struct Table {
    image: BTreeMap<String, Image>,
}

pub(super) fn image(kind: Kind) -> anyhow::Result<Image> {
    let mut table: Table =
        toml::from_str(include_str!("../../containers/images.toml")).context("read images.toml")?;
    table.image.remove(kind.name()).with_context(|| format!("images.toml has no image {}", kind.name()))
}

/// `(repository, tag)` of the image as it was built here.
pub(super) fn image_tag(kind: Kind) -> anyhow::Result<(String, String)> {
    let path = peers_dir().join("images.json");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("no image is built: {}", path.display()))?;
    let mut tags: BTreeMap<String, String> =
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let full = tags.remove(kind.name()).with_context(|| format!("the image {} is not built", kind.name()))?;
    let (name, tag) = full.split_once(':').with_context(|| format!("the image {full} has no tag"))?;
    Ok((name.to_owned(), tag.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_image_with_an_encrypted_port() {
        for kind in Kind::ALL {
            let image = image(kind).unwrap();
            let port = match image.ready {
                Ready::Ldap => "ldaps",
                Ready::Xmpp => "xmpps",
                Ready::Proxy => "tls",
            };
            assert!(image.ports.contains_key(port), "{} has no port {port}", kind.name());
        }
    }
}
