//! Messages to a Kerberos key distribution centre over TCP (RFC 4120 §7.2.2), through `dial` like every other byte.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::chain::Chain;
use crate::dial::{Dial, Target};
use crate::limits::{KDC_ANSWER_MAX_BYTES, KDC_TRIES, KDC_WITHIN};

/// RFC 4120 §7.2.1.
const KDC_PORT: u16 = 88;

/// Finds and asks a realm's centre.
#[derive(Clone)]
pub(super) struct Kdc {
    dial: Arc<dyn Dial>,
    /// `host` or `host:port`, in the order to try them; from DNS when empty.
    configured: Vec<String>,
}

impl Kdc {
    pub(super) fn new(dial: Arc<dyn Dial>, configured: Vec<String>) -> Self {
        Self { dial, configured }
    }

    /// The same way there, to other centres.
    pub(super) fn at(&self, configured: Vec<String>) -> Self {
        Self { dial: Arc::clone(&self.dial), configured }
    }

    /// Sends a message with its length before it, gives back the answer the same way.
    pub(super) async fn exchange(&self, realm: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let centres = self.centres(realm).await?;
        let mut problems = Vec::new();
        for target in centres.into_iter().take(KDC_TRIES) {
            match timeout(KDC_WITHIN, self.ask(&target, message)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(problem)) => problems.push(problem),
                Err(_) => problems.push(format!("no answer from {target} within {} s", KDC_WITHIN.as_secs())),
            }
        }
        Err(format!("no KDC of {realm} answers: {}", problems.join(", ")))
    }

    async fn centres(&self, realm: &str) -> Result<Vec<Target>, String> {
        if !self.configured.is_empty() {
            return Ok(self.configured.iter().map(|text| target(text)).collect());
        }
        // RFC 4120 §7.2.3.2: the realm's name is a domain name.
        let name = format!("_kerberos._tcp.{}", realm.to_ascii_lowercase());
        match self.dial.services(&name).await {
            Ok(services) if services.is_empty() => Err(format!("{name} names no KDC")),
            Ok(services) => {
                Ok(services.into_iter().map(|found| Target::inside(found.host, found.port)).collect())
            }
            Err(error) => Err(format!("no KDC of {realm} is known: {}", Chain(&error))),
        }
    }

    async fn ask(&self, target: &Target, message: &[u8]) -> Result<Vec<u8>, String> {
        let broken = |what: &str, error: std::io::Error| format!("{what} {target}: {error}");
        let mut stream =
            self.dial.connect(target.clone()).await.map_err(|error| Chain(&error).to_string())?;
        stream.write_all(message).await.map_err(|error| broken("write to", error))?;
        let length = stream.read_u32().await.map_err(|error| broken("read from", error))?;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > KDC_ANSWER_MAX_BYTES {
            return Err(format!("{target} announces an answer of {size} bytes"));
        }
        let mut answer = length.to_be_bytes().to_vec();
        answer.resize(4 + size, 0);
        stream.read_exact(&mut answer[4..]).await.map_err(|error| broken("read from", error))?;
        Ok(answer)
    }
}

fn target(text: &str) -> Target {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => match port.parse() {
            Ok(port) => Target::inside(host.trim_matches(['[', ']']), port),
            Err(_) => Target::inside(text, KDC_PORT),
        },
        _ => Target::inside(text, KDC_PORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_with_and_without_a_port() {
        assert_eq!(target("kdc1"), Target::inside("kdc1", 88));
        assert_eq!(target("kdc1:8888"), Target::inside("kdc1", 8888));
        assert_eq!(target("[::1]:8888"), Target::inside("::1", 8888));
    }
}
