//! Exchange's remote PowerShell as a server: WSMan (MS-WSMV) with runspace pools inside (MS-PSRP), at `/powershell`.
//!
//! `http` is one connection with its authentication (`auth`) and sealing; `service` acts on one envelope; `shell` and
//! `command` are the state behind it. Cmdlets and who may run them are the world's business.

mod answer;
mod auth;
mod command;
mod fault;
mod gzip;
mod http;
mod language;
mod outbox;
mod service;
mod settings;
mod shell;
mod twist;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::http::HeaderMap;
use arc_swap::ArcSwap;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::ntlm::ServerNames;
use tokio::io::{AsyncRead, AsyncWrite};

pub use settings::{ChannelBinding, PowerShellConfig};

use self::auth::Door;
use self::shell::Shell;
use self::twist::Twist;
use crate::server::Shared;
use crate::world::{Account, Organisation};

/// One port of the front end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    /// `powershell` or `powershell_http`.
    pub(crate) name: &'static str,
    /// Over TLS, the channel binding of the server's certificate (`channel_binding_hash`).
    pub(crate) tls: Option<[u8; 16]>,
}

/// What outlives a request: settings, and the shells that are open.
pub(crate) struct Shells {
    config: ArcSwap<PowerShellConfig>,
    /// By id, upper case.
    open: Mutex<HashMap<String, Arc<Shell>>>,
}

/// The remote PowerShell of the organisation as it is while one request is answered.
struct PowerShell {
    shared: Arc<Shared>,
    cx: KitContext,
    config: Arc<PowerShellConfig>,
    organisation: Arc<Organisation>,
}

/// One request that has been authenticated and opened.
struct Call<'a> {
    front: &'a Front,
    account: &'a Account,
    peer: SocketAddr,
    headers: &'a HeaderMap,
}

/// Serves one connection until the client closes it.
pub(crate) async fn serve<S>(shared: Arc<Shared>, front: Front, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    http::serve(shared, front, stream, peer).await;
}

impl Shells {
    pub(crate) fn new(config: PowerShellConfig) -> Self {
        Self { config: ArcSwap::from_pointee(config), open: Mutex::default() }
    }

    /// Puts other settings in force and closes every shell, for a world that begins anew.
    pub(crate) fn restart(&self, config: PowerShellConfig) {
        self.config.store(Arc::new(config));
        self.forget();
    }

    /// Shells that are open and have been used within their idle time.
    pub(crate) fn count(&self, now_ms: i64) -> usize {
        self.reap(now_ms);
        self.open().len()
    }

    /// Closes every shell, as a server that restarts does.
    fn forget(&self) {
        for (_, shell) in self.open().drain() {
            shell.close();
        }
    }

    /// Deletes shells nobody has used for too long.
    fn reap(&self, now_ms: i64) {
        self.open().retain(|_, shell| {
            let idle = shell.is_idle(now_ms);
            if idle {
                shell.close();
            }
            !idle
        });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Shell>>> {
        // Every change is one insertion or removal.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PowerShell {
    fn of(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            cx: shared.cx.clone(),
            config: shared.shells.config.load_full(),
            organisation: shared.organisation(),
        }
    }

    /// The path of the virtual directory, in any case, with or without a slash at its end. Exchange 2007 has none:
    /// there an ordinary session is opened at WinRM's own path.
    fn has_path(&self, path: &str) -> bool {
        let path = path.strip_suffix('/').unwrap_or(path);
        let profile = self.organisation.facts().profile;
        match (profile.remoting, profile.online) {
            (true, true) => {
                ["/powershell", "/powershell-liveid"].iter().any(|own| path.eq_ignore_ascii_case(own))
            }
            (true, false) => path.eq_ignore_ascii_case("/powershell"),
            (false, _) => ["/wsman", "/powershell"].iter().any(|own| path.eq_ignore_ascii_case(own)),
        }
    }

    fn door(&self, front: &Front, twist: &Twist) -> Door<'_> {
        let facts = self.organisation.facts();
        let computer = self.computer();
        Door {
            config: &self.config,
            organisation: &self.organisation,
            names: ServerNames {
                netbios_domain: facts.netbios.clone(),
                netbios_computer: computer.to_ascii_uppercase(),
                dns_domain: facts.domain.clone(),
                dns_computer: self.server(),
                dns_forest: facts.domain.clone(),
            },
            now_ms: self.cx.clock.now_ms(),
            tls: front.tls,
            kerberos_word: twist.kerberos_word,
            kerberos: self.shared.kerberos().service.clone(),
            skew_ms: twist.skew_ms,
        }
    }

    /// Short name of the server that answers.
    fn computer(&self) -> String {
        self.organisation.servers().first().cloned().unwrap_or_else(|| "mail1".to_owned())
    }

    /// Its full name.
    fn server(&self) -> String {
        format!("{}.{}", self.computer(), self.organisation.facts().domain)
    }

    fn note(&self, front: &Front, operation: &str, subject: &str, outcome: &str, detail: serde_json::Value) {
        self.cx.journal.record(front.name, operation, subject, outcome, detail);
    }

    fn shells(&self) -> MutexGuard<'_, HashMap<String, Arc<Shell>>> {
        self.shared.shells.open()
    }
}
