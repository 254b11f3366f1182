//! A new key and certificate before the old one ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::channel::backoff::spread;
use causeway_protocol::channel::payload::{Certificate, CertificateRequest};
use thiserror::Error;

use crate::chain::Chain;
use crate::channel::{Channel, IqError, Nudge};
use crate::clock::Clock;
use crate::cloud::{CloudConnector, CloudError};
use crate::identity::{Identity, IdentityError, PendingKey};
use crate::limits::{ROTATION_LOOK_EVERY, ROTATION_RETRY_AFTER};
use crate::random::RandomSource;
use crate::secrets::Sealer;

/// What rotation works with.
pub(crate) struct Rotation {
    pub(crate) data_dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) host: String,
    pub(crate) sealer: Arc<dyn Sealer>,
    pub(crate) channel: Channel,
    pub(crate) connector: Arc<CloudConnector>,
    pub(crate) clock: Clock,
    pub(crate) random: RandomSource,
}

#[derive(Debug, Error)]
enum RotationError {
    #[error("make and keep a new key")]
    Identity {
        #[source]
        source: IdentityError,
    },
    #[error("have it certified")]
    Asked {
        #[source]
        source: IqError,
    },
    #[error("the cloud certified it for instance {got}")]
    OtherInstance { got: String },
    #[error("use it")]
    Use {
        #[source]
        source: CloudError,
    },
}

impl Rotation {
    /// Renews whenever two thirds of the certificate's life are over.
    pub(crate) async fn run(mut self) {
        loop {
            let Some(due_in) = self.due_in() else { return };
            // Looked at again and again rather than slept through: machines sleep and clocks are set.
            if !due_in.is_zero() {
                self.clock.sleep(due_in.min(ROTATION_LOOK_EVERY)).await;
                continue;
            }
            match self.renew().await {
                Ok(()) if self.due_in().is_some_and(|due_in| !due_in.is_zero()) => continue,
                // By a clock that is far ahead the new one is old too; the cloud must not pay for that.
                Ok(()) => tracing::warn!("Our new certificate is due already; this machine's clock is wrong"),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "Our certificate could not be renewed yet");
                }
            }
            let wait = ROTATION_RETRY_AFTER + spread(ROTATION_RETRY_AFTER, self.random.next_u64());
            self.clock.sleep(wait).await;
        }
    }

    /// Until two thirds of the certificate's life are over.
    fn due_in(&self) -> Option<Duration> {
        match self.identity.validity() {
            Ok(validity) => Some(validity.renew_in(self.clock.now_ms())),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "Our certificate cannot be read");
                None
            }
        }
    }

    async fn renew(&mut self) -> Result<(), RotationError> {
        let failed = |source| RotationError::Identity { source };
        self.channel.wait_online().await.map_err(|source| RotationError::Asked { source })?;
        let pending = PendingKey::generate().map_err(failed)?;
        let csr_pem = pending.request_pem().map_err(failed)?;
        let request = CertificateRequest { csr_pem, host: self.host.clone() };
        let certificate: Certificate =
            self.channel.ask_for(&request).await.map_err(|source| RotationError::Asked { source })?;
        if certificate.instance != self.identity.instance {
            return Err(RotationError::OtherInstance { got: certificate.instance });
        }
        let identity = pending.certified(certificate).map_err(failed)?;
        identity.save(&self.data_dir, &*self.sealer).map_err(failed)?;
        self.connector.set_identity(&identity).map_err(|source| RotationError::Use { source })?;
        self.identity = identity;
        tracing::info!("Our certificate is renewed");
        // Shown at once: the cloud takes the old one until then, and it should not have to for long.
        self.channel.nudge(Nudge::Redial("our certificate is renewed".to_owned()));
        Ok(())
    }
}
