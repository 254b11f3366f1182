//! The way out: which proxy and why, every step through it, and who signs the TLS that arrives.

use super::bench::Bench;
use crate::chain::Chain;
use crate::checks::{CheckResult, declare_checks};
use crate::dial::connect_proxy::ProxyError;
use crate::dial::probe::{Outcome, Probe, probe};
use crate::dial::proxy::Destination;
use crate::dial::tls::Trust;
use crate::dial::{DialError, Dialer};

declare_checks! {
    WAY_OUT = "network.way_out":
        "whether connections to the outside go directly or through a proxy, which setting or script says so, and what the script did",
        "correct [dns] and [proxy] in agent.toml";
    REACHED = "network.reached":
        "every connection attempt and what proxies said on the way to the cloud, or to the address of --url",
        "allow outbound TCP to the cloud at the firewall, or configure a proxy";
    SIGNED_BY = "network.signed_by":
        "who has signed the TLS that is seen at the end of the way",
        "exclude the cloud's host from TLS inspection at the proxy or firewall";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let Some(file) = bench.file() else { return Vec::new() };
    let dialer = match &bench.dial {
        Ok(dialer) => dialer,
        Err(error) => return vec![CheckResult::fail(&WAY_OUT, Chain(error).to_string(), "")],
    };
    let mut results = Vec::new();
    if !file.settings.cloud.url.is_empty() {
        let trust = crate::trust(file, &bench.data_dir);
        results.extend(tried(dialer, &file.settings.cloud.url, &trust).await);
    }
    if let Some(url) = &bench.url {
        // Whoever else is out there is not signed by our cloud's authority.
        results.extend(tried(dialer, url, &Trust::System).await);
    }
    if results.is_empty() {
        results.push(CheckResult::skipped(&WAY_OUT, "no cloud is configured; name an address with --url"));
    }
    results
}

async fn tried(dialer: &Dialer, url: &str, trust: &Trust) -> Vec<CheckResult> {
    match Destination::parse(url) {
        Ok(to) => judged(&probe(dialer, to, trust).await, trust),
        Err(error) => {
            vec![CheckResult::fail(&WAY_OUT, format!("the address {error}"), "write it as https://host:port")]
        }
    }
}

fn judged(probe: &Probe, trust: &Trust) -> Vec<CheckResult> {
    let of = probe.to.url();
    let text = |first: String, more: &[String]| {
        std::iter::once(first).chain(more.iter().cloned()).collect::<Vec<_>>().join("\n")
    };
    let plan = text(probe.plan.to_string(), &probe.plan.notes);
    let way_out = if probe.plan.troubled {
        let remedy = "correct the script, setting or variable named above";
        CheckResult::warn(&WAY_OUT, plan, remedy)
    } else {
        CheckResult::ok(&WAY_OUT, plan)
    };
    let outcome = probe.outcome.text(&probe.to.host, trust);
    let mut results = vec![way_out.of(&of)];
    match &probe.outcome {
        Outcome::Unreached(error) => {
            results.push(CheckResult::fail(&REACHED, text(outcome, &probe.steps), remedy(error)).of(&of));
        }
        other => {
            results.push(CheckResult::ok(&REACHED, text("reached".to_owned(), &probe.steps)).of(&of));
            results.push(match other {
                Outcome::Inspected(_) => CheckResult::fail(&SIGNED_BY, outcome, "").of(&of),
                Outcome::BadCertificate(_) => {
                    let remedy = "look at this machine's clock, and at the certificate of the host named";
                    CheckResult::fail(&SIGNED_BY, outcome, remedy).of(&of)
                }
                Outcome::NoTls(_) => {
                    let remedy = "look what else answers there: a captive portal, a firewall's block page, another port";
                    CheckResult::fail(&SIGNED_BY, outcome, remedy).of(&of)
                }
                _ => CheckResult::ok(&SIGNED_BY, outcome).of(&of),
            });
        }
    }
    results
}

fn remedy(error: &DialError) -> &'static str {
    match error {
        DialError::Resolve { .. } | DialError::NoRecord { .. } => {
            "correct the name, or the name servers in [dns]"
        }
        DialError::Proxy { source: ProxyError::BadCredentials { .. }, .. } => {
            "set the user and password with configure proxy; wrong ones are not tried again for half an hour"
        }
        DialError::Proxy { .. } => "correct [proxy] in agent.toml, or allow CONNECT to the host at the proxy",
        DialError::ProxyTls { .. } => "give the authority of the proxy's certificate with proxy.ca_file",
        DialError::NoWay { .. } => {
            "look at each way named above, and at the setting or script that names them"
        }
        _ => "",
    }
}
