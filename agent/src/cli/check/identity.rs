//! Who this agent is: enrolled, with a certificate that holds and is renewed in time.

use std::time::Duration;

use super::bench::Bench;
use crate::chain::Chain;
use crate::checks::{CheckResult, declare_checks};
use crate::identity::{Identity, IdentityError};

declare_checks! {
    ENROLLED = "identity.enrolled":
        "whether this agent has joined a tenant",
        "enrol this agent: causeway-agent enroll --cloud URL --key KEY";
    KEY = "identity.key":
        "whether the private key and the certificate belong together",
        "enrol this agent again with a new key";
    CERTIFICATE = "identity.certificate":
        "whether the agent's own certificate is valid by this machine's clock",
        "enrol this agent again, or correct the clock";
    RENEWAL = "identity.renewal":
        "whether the certificate has been renewed in time",
        "look whether the agent runs and reaches the cloud; it renews the certificate by itself";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let identity = match &bench.identity {
        Ok(identity) => identity,
        Err(error @ IdentityError::NotEnrolled { .. }) => {
            return vec![CheckResult::fail(&ENROLLED, Chain(error).to_string(), "")];
        }
        Err(error) => {
            let remedy = "run the command as the account the service runs as, or enrol this agent again";
            return vec![CheckResult::fail(&ENROLLED, Chain(error).to_string(), remedy)];
        }
    };
    let mut results = vec![
        CheckResult::ok(&ENROLLED, format!("instance {} of tenant {}", identity.instance, identity.tenant)),
        key(identity),
    ];
    results.extend(certificate(identity, bench.clock.now_ms()));
    results
}

fn key(identity: &Identity) -> CheckResult {
    let Ok(own) = identity.certificate() else {
        return CheckResult::fail(&KEY, "the certificate or the key is unreadable", "");
    };
    let provider = crate::dial::tls::provider();
    match rustls::sign::CertifiedKey::from_der(own.chain, own.key, &provider) {
        Ok(_) => CheckResult::ok(&KEY, "they belong together"),
        Err(error) => CheckResult::fail(&KEY, error.to_string(), ""),
    }
}

fn certificate(identity: &Identity, now_ms: i64) -> Vec<CheckResult> {
    let validity = match identity.validity() {
        Ok(validity) => validity,
        Err(error) => return vec![CheckResult::fail(&CERTIFICATE, Chain(&error).to_string(), "")],
    };
    if now_ms > validity.until_ms {
        return vec![CheckResult::fail(&CERTIFICATE, "it has expired", "")];
    }
    if now_ms < validity.from_ms {
        let ahead = Duration::from_millis((validity.from_ms - now_ms).unsigned_abs());
        let detail = format!("it becomes valid in {} s: the clock is wrong", ahead.as_secs());
        return vec![CheckResult::fail(&CERTIFICATE, detail, "synchronise this machine's clock")];
    }
    let days = (validity.until_ms - now_ms) / 86_400_000;
    let valid = CheckResult::ok(&CERTIFICATE, format!("valid for {days} days"));
    // Renewal begins at two thirds; a quarter of the last third is grace for a cloud that was away.
    let overdue_at_ms = validity.renew_at_ms() + (validity.until_ms - validity.renew_at_ms()) / 4;
    let renewal = if now_ms > overdue_at_ms {
        CheckResult::warn(&RENEWAL, format!("it should have been renewed; {days} days are left"), "")
    } else if now_ms > validity.renew_at_ms() {
        CheckResult::ok(&RENEWAL, "due now")
    } else {
        let days = (validity.renew_at_ms() - now_ms) / 86_400_000;
        CheckResult::ok(&RENEWAL, format!("due in {days} days"))
    };
    vec![valid, renewal]
}
