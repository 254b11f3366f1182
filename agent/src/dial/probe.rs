//! One destination tried for the doctor: which way leads there and why, every step on it, and who has signed the TLS
//! that is seen at its end. Nothing is sent through that TLS, and our certificate is not shown.

use super::direct::Dialer;
use super::proxy::{Destination, Plan};
use super::steps::Steps;
use super::tls::{self, Trust, Witnessed};
use super::{DialError, Target};
use crate::chain::Chain;

/// What was found.
pub struct Probe {
    /// What was tried.
    pub to: Destination,
    /// The ways out, with a script's trace.
    pub plan: Plan,
    /// Connection attempts and what proxies said.
    pub steps: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a probe ended.
pub enum Outcome {
    /// No way leads there.
    Unreached(DialError),
    /// Something answers; without TLS there is nothing more to see.
    Open,
    /// Something answers that does not speak TLS.
    NoTls(tls::TlsError),
    /// TLS, by a certificate we trust.
    Trusted(Witnessed),
    /// TLS, by somebody else.
    Inspected(Witnessed),
    /// TLS with a certificate of a known authority that is bad in another way.
    BadCertificate(Witnessed),
}

/// Tries a destination as if it lay outside.
pub async fn probe(dialer: &Dialer, to: Destination, trust: &Trust) -> Probe {
    let plan = dialer.explain(&to).await;
    let steps = Steps::recorded();
    let outcome = reach(dialer, &to, trust, &steps).await;
    Probe { to, plan, steps: steps.taken(), outcome }
}

async fn reach(dialer: &Dialer, to: &Destination, trust: &Trust, steps: &Steps) -> Outcome {
    let stream = match dialer.connect_noting(&Target::outside(&to.host, to.port), steps).await {
        Ok(stream) => stream,
        Err(error) => return Outcome::Unreached(error),
    };
    if to.scheme != "https" {
        return Outcome::Open;
    }
    match tls::witness(trust, &to.host, stream).await {
        Err(error) => Outcome::NoTls(error),
        Ok(seen) => match &seen.refused {
            None => Outcome::Trusted(seen),
            Some(refused) if refused.is_foreign() => Outcome::Inspected(seen),
            Some(_) => Outcome::BadCertificate(seen),
        },
    }
}

impl Probe {
    /// Everything but the outcome, one line a step.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: {}", self.to.url(), self.plan)];
        lines.extend(self.plan.notes.iter().map(|note| format!("  {note}")));
        lines.extend(self.steps.iter().map(|step| format!("  {step}")));
        lines
    }
}

impl Outcome {
    /// One clause for people.
    pub fn text(&self, host: &str, trust: &Trust) -> String {
        match self {
            Self::Unreached(error) => Chain(error).to_string(),
            Self::Open => "reached, without TLS".to_owned(),
            Self::NoTls(error) => Chain(error).to_string(),
            Self::Trusted(seen) => format!(
                "TLS {}, certificate of {} signed by {}, verified by {trust}",
                seen.version, seen.subject, seen.issuer
            ),
            Self::Inspected(seen) => match trust {
                Trust::File(_) => format!(
                    "TLS inspection by {}; exclude {host} (the certificate is of {}, and not signed by our authority of {trust})",
                    seen.issuer_name, seen.subject
                ),
                Trust::System => format!(
                    "TLS inspection by {}, or an authority this machine does not know; exclude {host} or install that authority",
                    seen.issuer_name
                ),
            },
            Self::BadCertificate(seen) => {
                let reason = seen.refused.as_ref().map(|refused| refused.reason.clone()).unwrap_or_default();
                format!("certificate of {} signed by {} refused: {reason}", seen.subject, seen.issuer)
            }
        }
    }

    /// Whether the way is good.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Open | Self::Trusted(_))
    }
}
