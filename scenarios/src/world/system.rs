//! What the systems behind the firewall have in common in a world: one mock, several servers with a link each, so that one
//! can be taken off the network.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use causeway_mock_kit::fault::{FaultId, Faults};
use causeway_mock_kit::proxy::TcpProxy;
use hyper::Method;
use serde_json::Value;

use super::cloud::{authority, merge};
use crate::http::Client;

/// The front end of a link, as fault rules name it.
const LINK_FRONT: &str = "tcp";

/// Settings of a mock: the people of the directory, a personality, and what the scenario says besides.
///
/// # Errors
/// When the mock does not know a setting.
pub(super) fn settings<T: serde::de::DeserializeOwned>(
    users: usize,
    seed: u64,
    personality: &str,
    more: &toml::Table,
) -> Result<T> {
    let mut settings: toml::Table = toml::toml! { [common] };
    let common = settings["common"].as_table_mut().context("common is a table")?;
    common.insert("users".into(), i64::try_from(users)?.into());
    common.insert("seed".into(), i64::try_from(seed)?.into());
    settings.insert("personality".into(), personality.into());
    merge(&mut settings, more);
    settings.try_into().context("settings of the mock")
}

/// The URL of a front end.
///
/// # Errors
/// When there is none of that name.
pub(super) fn url<'a>(urls: &'a BTreeMap<String, String>, front: &str) -> Result<&'a str> {
    urls.get(front).map(String::as_str).with_context(|| format!("the mock has no front end {front}"))
}

/// Calls a mock's admin API.
///
/// # Errors
/// What the API says.
pub(super) async fn call(admin: &Client, method: &str, path: &str, body: &Value) -> Result<Value> {
    let method: Method = method.parse().with_context(|| format!("{method:?} is no method"))?;
    let body = Some(body).filter(|body| !body.is_null());
    admin.call(method, path, body).await?.ok()
}

/// The servers of a system, by the names of the story: a link each before the one front end agents use.
pub(super) struct Servers {
    links: BTreeMap<String, TcpProxy>,
    down: BTreeMap<String, FaultId>,
}

impl Servers {
    /// Starts a link to `front`, a URL, for each name.
    ///
    /// # Errors
    /// When the URL has no address or a port is taken.
    pub(super) async fn start(front: &str, names: &[String]) -> Result<Self> {
        let target = authority(front)?.parse()?;
        let mut links = BTreeMap::new();
        for name in names {
            let link = TcpProxy::start(target).await.with_context(|| format!("start the link to {name}"))?;
            links.insert(name.clone(), link);
        }
        Ok(Self { links, down: BTreeMap::new() })
    }

    /// The URL `front` as it leads through the link of each of `names`.
    ///
    /// # Errors
    /// When a name has no link.
    pub(super) fn urls(&self, front: &str, names: &[String]) -> Result<Vec<String>> {
        let (scheme, rest) = front.split_once("://").context("the front end's URL has no scheme")?;
        let path = rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
        let through = |name: &String| {
            let link = self.links.get(name).context("every server has a link")?;
            Ok(format!("{scheme}://{}{path}", link.address()))
        };
        names.iter().map(through).collect()
    }

    /// Whether one has that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.links.contains_key(name)
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.links.keys().cloned().collect()
    }

    /// Where faults of a server's connections are installed.
    pub(super) fn faults(&self, name: &str) -> Option<&Faults> {
        self.links.get(name).map(TcpProxy::faults)
    }

    /// Takes a server off the network, or brings it back.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn set_down(&mut self, name: &str, down: bool) -> Result<String> {
        let link = self.links.get(name).with_context(|| format!("no server is called {name}"))?;
        if let Some(rule) = self.down.remove(name) {
            link.faults().remove(rule);
        }
        if down {
            self.down.insert(name.to_owned(), link.faults().set_down(LINK_FRONT));
            return Ok(format!("{} connections were cut", link.cut()));
        }
        Ok(String::new())
    }
}
