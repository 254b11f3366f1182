//! The way out: which proxy, and why.

use super::bench::Bench;
use crate::chain::Chain;
use crate::checks::{CheckResult, declare_checks};

declare_checks! {
    WAY_OUT = "network.way_out":
        "whether connections to the outside go directly or through a proxy, and which setting says so",
        "correct [dns] and [proxy] in agent.toml";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let Some(file) = bench.file() else { return Vec::new() };
    if let Err(error) = &bench.dial {
        return vec![CheckResult::fail(&WAY_OUT, Chain(error).to_string(), "")];
    }
    vec![match file.settings.proxy.as_ref().and_then(|proxy| proxy.url.as_ref()) {
        Some(url) => CheckResult::ok(&WAY_OUT, format!("proxy {url} by agent.toml")),
        None => CheckResult::ok(&WAY_OUT, "directly; agent.toml names no proxy"),
    }]
}
