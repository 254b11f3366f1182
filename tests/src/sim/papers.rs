//! Certificates, made once per process: what they say does not depend on the seed, and making keys is slow.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_agent::identity::{Identity, PendingKey};
use causeway_mock_cloud::pki::{AgentIdentity, CloudPki};
use causeway_protocol::channel::payload::Certificate;

use super::world::TENANT;

/// The cloud's name.
pub(super) const DOMAIN: &str = "cloud.causeway.test";
/// Agents with an identity of their own, at most.
pub(super) const AGENTS_MAX: usize = 4;
/// How long a certificate lives: no run lasts so long.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3_600);

/// The authority and the agents' identities.
pub(super) struct Papers {
    dir: tempfile::TempDir,
    identities: Vec<(Identity, String)>,
    /// Unix milliseconds at which every run begins.
    pub(super) epoch_ms: i64,
}

/// The papers of this process.
pub(super) fn papers() -> &'static Papers {
    static PAPERS: OnceLock<Papers> = OnceLock::new();
    PAPERS.get_or_init(Papers::make)
}

impl Papers {
    fn make() -> Self {
        // Memory where the system has it: status files are written and synced again and again.
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir =
            tempfile::Builder::new().prefix("causeway-sim-").tempdir_in(root).expect("a temporary directory");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch_ms = i64::try_from(since.as_secs()).unwrap_or(0) * 1_000;
        let pki = CloudPki::open(&dir.path().join("ca"), vec![DOMAIN.to_owned()]).expect("an authority");
        let identities = (0..AGENTS_MAX).map(|n| identity(&pki, n, epoch_ms)).collect();
        Self { dir, identities, epoch_ms }
    }

    /// The cloud's authority.
    pub(super) fn pki(&self) -> CloudPki {
        CloudPki::open(&self.dir.path().join("ca"), vec![DOMAIN.to_owned()])
            .expect("the authority made before")
    }

    pub(super) fn identity(&self, n: usize) -> Identity {
        self.identities[n].0.clone()
    }

    /// Serial number of that agent's certificate.
    pub(super) fn serial(&self, n: usize) -> &str {
        &self.identities[n].1
    }

    /// A data directory for the agent on `seat`, of this thread only.
    pub(super) fn data_dir(&self, seat: usize) -> PathBuf {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let dir =
            self.dir.path().join(format!("thread-{}", THREAD.with(|n| *n))).join(format!("agent-{seat}"));
        if !dir.is_dir() {
            std::fs::create_dir_all(&dir).expect("a data directory");
            std::fs::copy(self.dir.path().join("ca").join("ca.pem"), dir.join("ca.pem"))
                .expect("the authority");
        }
        dir
    }
}

/// Instance id of the n-th agent.
pub(super) fn instance(n: usize) -> String {
    format!("5f0c1f4e-8a4e-4b1c-9a57-0d6e0e4f2b1{n}")
}

fn identity(pki: &CloudPki, n: usize, epoch_ms: i64) -> (Identity, String) {
    let pending = PendingKey::generate().expect("a key");
    let who = AgentIdentity { tenant: TENANT.to_owned(), instance: instance(n) };
    let jid = format!("{}@{DOMAIN}", who.instance);
    let csr = pending.request_pem().expect("a request");
    let issued = pki.issue(&csr, &who, &jid, epoch_ms, CERTIFICATE_LIFE).expect("a certificate");
    let certificate =
        Certificate { chain_pem: issued.chain_pem, instance: who.instance, tenant: who.tenant, jid };
    (pending.certified(certificate).expect("the certificate fits the key"), issued.serial)
}
