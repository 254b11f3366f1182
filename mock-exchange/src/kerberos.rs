//! Kerberos of the organisation: the key of its servers, and a small KDC with the accounts of the company, so that
//! clients get tickets without a domain controller. With the keytab of a real one its tickets are good too.

use std::path::PathBuf;
use std::sync::Arc;

use causeway_mock_kit::kerberos::{
    Accounts, Enctype, Kdc, Key, Keytab, NoTicket, Principal, Service, serve_kdc,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::server::{Shared, StartError};
use crate::world::{Organisation, SignInError};

/// Name of the front end.
pub(crate) const FRONT: &str = "kdc";

/// Classes of service principals that clients of PowerShell remoting ask for.
const CLASSES: [&str; 2] = ["HTTP", "WSMAN"];

/// Settings of Kerberos: `[kerberos]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KerberosConfig {
    /// Whether tickets are taken. Default true.
    pub enabled: bool,
    /// Realm of the accounts. Default: the domain in capitals.
    pub realm: Option<String>,
    /// Further names of the servers, in principal names and in the TLS certificate. Default `localhost`: there are no
    /// tickets for an address.
    pub hosts: Vec<String>,
    /// Keytab of a real KDC, whose tickets are taken besides those of the mock's own.
    pub keytab: Option<PathBuf>,
}

impl Default for KerberosConfig {
    fn default() -> Self {
        Self { enabled: true, realm: None, hosts: vec!["localhost".to_owned()], keytab: None }
    }
}

/// Who takes tickets, and who gives them.
pub(crate) struct Kerberos {
    /// None when tickets are not taken.
    pub(crate) service: Option<Arc<Service>>,
    kdc: Kdc,
}

impl Kerberos {
    /// `names` are all those of the servers.
    pub(crate) fn new(config: &KerberosConfig, domain: &str, names: &[String]) -> Result<Self, StartError> {
        let realm = config.realm.clone().unwrap_or_else(|| domain.to_ascii_uppercase());
        let mut keytab = match &config.keytab {
            Some(path) => {
                let bytes =
                    std::fs::read(path).map_err(|source| StartError::Read { path: path.clone(), source })?;
                Keytab::read(&bytes).map_err(|source| StartError::Keytab { path: path.clone(), source })?
            }
            None => Keytab::default(),
        };
        let key = Key::random(Enctype::Aes256);
        let mut kdc = Kdc::new(&realm);
        for host in names {
            for class in CLASSES {
                let name = format!("{class}/{host}");
                keytab.add(&name, &realm, key.clone());
                kdc.add_service(&name, key.clone());
            }
        }
        Ok(Self { service: config.enabled.then(|| Arc::new(Service::new(keytab))), kdc })
    }
}

/// Serves the KDC.
pub(crate) fn serve(shared: &Arc<Shared>, listener: TcpListener) -> JoinHandle<()> {
    let cx = shared.cx.clone();
    let shared = Arc::clone(shared);
    serve_kdc(listener, FRONT, cx, move |message| {
        let organisation = shared.organisation();
        let accounts = Directory { organisation: &organisation, now_ms: shared.cx.clock.now_ms() };
        let reply = shared.kerberos().kdc.answer(&accounts, message);
        let outcome = reply.code.map_or_else(|| "ticket".to_owned(), |code| code.to_string());
        shared.cx.journal.record(FRONT, reply.operation, &reply.subject, &outcome, json!({}));
        reply.message
    })
}

/// The accounts of the company, as a KDC asks for them.
struct Directory<'a> {
    organisation: &'a Organisation,
    now_ms: i64,
}

impl Accounts for Directory<'_> {
    fn find(&self, name: &str) -> Result<Principal, NoTicket> {
        let account = self.organisation.may_sign_in(name).map_err(|error| match error {
            SignInError::UnknownUser => NoTicket::Unknown,
            SignInError::PasswordExpired | SignInError::MustChange => NoTicket::PasswordExpired,
            _ => NoTicket::Revoked,
        })?;
        let password = self.organisation.password_of(name).ok_or(NoTicket::Unknown)?;
        Ok(Principal { login: account.login, password })
    }

    fn wrong_password(&self, login: &str) {
        self.organisation.failed_sign_in(login);
    }

    fn now_ms(&self) -> i64 {
        self.now_ms
    }
}
