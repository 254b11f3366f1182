//! The authority that will take the place of the present one (GetNextCACert, RFC 8894 section 4.7). What the present one has
//! signed is shown; what is accepted when it takes over, agent.toml says.

use causeway_protocol::pkix::{Accept, Certificate};
use causeway_protocol::scep::{CaCertificates, Operation, url};

use super::{Known, Scep, judged};
use crate::ca::http::{Endpoint, Who, refusal};
use crate::ca::{CaError, Seen, Successor, limits};
use crate::chain::Chain;
use crate::directory::Net;

impl Scep {
    /// Notes the successor of an authority that ends soon, where there is a way to ask for it.
    pub(super) async fn look_at_successor(&self, net: &Net, at: &Endpoint, known: &Known, seen: &mut Seen) {
        let left_ms = known.certificates.ca().not_after_ms() - net.clock.now_ms();
        let soon_ms = i64::try_from(limits::SUCCESSOR_BEFORE.as_millis()).unwrap_or(i64::MAX);
        if !known.caps.next_ca || left_ms > soon_ms {
            return;
        }
        let fact = match self.successor(net, at, known).await {
            Ok(Some(next)) => {
                let words = format!("{}, SHA-256 {}", next.subject, next.sha256);
                if !seen.successors.contains(&next) {
                    seen.successors.push(next);
                }
                words
            }
            Ok(None) => "not announced yet".to_owned(),
            // It changes nothing for requests of today.
            Err(error) => format!("not believed: {}", Chain(&error)),
        };
        seen.facts.push((format!("successor at {at}"), fact));
    }

    async fn successor(&self, net: &Net, at: &Endpoint, known: &Known) -> Result<Option<Successor>, CaError> {
        let identifier = Some(self.settings.identifier.as_str()).filter(|text| !text.is_empty());
        let asked = at.at(url(&at.path, Operation::GetNextCaCert, identifier));
        let answer = self.fronts.get(net, &asked, Who::Account).await?;
        if answer.status.is_server_error() {
            return Err(refusal(at, &answer));
        }
        if !answer.status.is_success() {
            return Ok(None);
        }
        // Whoever may sign answers of today, and nobody weaker, may say who signs those of tomorrow.
        let accept = Accept { sha1: self.settings.legacy, ..Accept::MODERN };
        let next = CaCertificates::read_next(&answer.body, &known.certificates, accept)
            .map_err(|error| judged(at, &error))?;
        let found: Vec<String> = next.chain().iter().map(Certificate::sha256).collect();
        let is_expected = self.settings.is_expected(found.iter().map(String::as_str));
        let ca = next.ca();
        Ok(Some(Successor {
            subject: ca.subject().to_string(),
            sha256: ca.sha256(),
            not_after_ms: ca.not_after_ms(),
            // Where nothing is pinned, nothing has to be said about it either.
            is_expected: is_expected.unwrap_or(true),
        }))
    }
}
