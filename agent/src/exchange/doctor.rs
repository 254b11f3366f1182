//! The checks of one Exchange organisation: servers, TLS, what they offer, sign-in, cmdlets. Servers are reached side by
//! side, but an account signs in once, at the best one: a wrong password must not be tried often.

use std::time::Duration;

use causeway_protocol::cmdlet::Cmdlet;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::remote::OnPremises;
use super::transport::{Transport, TransportError};
use super::{Backend, Exchange as _, ExchangeError, Organisation, Session, Urgency, limits};
use crate::chain::Chain;
use crate::checks::{CheckResult, declare_checks};
use crate::directory::Net;
use crate::web::auth::Auth;
use crate::web::connection::HttpError;
use crate::web::endpoint::Endpoint;

declare_checks! {
    SERVERS = "exchange.servers":
        "which servers of Exchange there are",
        "list the URLs of the PowerShell virtual directories in [exchange.NAME]";
    SECRET = "exchange.secret":
        "whether the passwords of the accounts, or the application's key, are stored here and were not refused before",
        "store it with causeway-agent configure exchange --secret-from-stdin password";
    TCP = "exchange.tcp":
        "whether each server takes connections",
        "check that IIS runs, and that the port is open from here";
    TLS = "exchange.tls":
        "whether each server's certificate is trusted and for its name",
        "set ca_file to the authority that signed the server's certificate";
    AUTH = "exchange.auth":
        "whether each server offers a way to sign in that is configured",
        "enable Windows authentication on the PowerShell virtual directory, or Basic together with https";
    SIGN_IN = "exchange.sign_in":
        "whether the account, or the application, may open a session",
        "check user name and password, that the account is not locked, and that remote PowerShell is on for it";
    CMDLETS = "exchange.cmdlets":
        "whether the cmdlets that are needed exist for the account",
        "give the account a role group with the missing cmdlets, for example Recipient Management and Organization Client Access";
}

/// A parameter that no cmdlet has. Binding fails before anything is done, so it shows whether a cmdlet exists.
const PROBE: &str = "CausewayProbe";

/// All checks, in the order a person would make them. `needed` are the cmdlets that must exist.
pub async fn run(organisation: &Organisation, net: &Net, needed: &[&str]) -> Vec<CheckResult> {
    let mut results = reach(organisation, net).await;
    let secrets = secrets(organisation);
    let stored = secrets.remedy().is_empty();
    results.push(secrets.of(organisation.name()));
    if !stored {
        return results;
    }
    let opened = match timeout(limits::CHECK_WITHIN, organisation.open(net.clone(), Urgency::Urgent)).await {
        Ok(opened) => opened,
        Err(_) => {
            let within = limits::CHECK_WITHIN.as_secs();
            let detail = format!("no session within {within} s");
            results.push(CheckResult::fail(&SIGN_IN, detail, "").of(organisation.name()));
            return results;
        }
    };
    match opened {
        Err(error) => {
            let (detail, remedy) = (error.to_string(), remedy(&error));
            results.push(CheckResult::fail(&SIGN_IN, detail, remedy).of(organisation.name()));
        }
        Ok(mut session) => {
            let server = session.server();
            results.push(CheckResult::ok(&SIGN_IN, "signed in").of(server.host.clone()));
            results.push(cmdlets(&mut *session, needed).await.of(server.host));
            session.close().await;
        }
    }
    results
}

/// Every server, without signing in.
pub async fn reach(organisation: &Organisation, net: &Net) -> Vec<CheckResult> {
    match &organisation.backend {
        Backend::OnPremises(servers) => reach_all(organisation, servers, net).await,
        Backend::Online(online) => {
            vec![CheckResult::ok(&SERVERS, online.endpoint().url.clone()).of(organisation.name())]
        }
    }
}

fn remedy(error: &ExchangeError) -> &'static str {
    match error {
        ExchangeError::Throttled { .. } => {
            "wait; if it stays so, give the account a throttling policy with more sessions"
        }
        ExchangeError::Unreachable { .. } => "see the checks of the servers",
        _ => "",
    }
}

fn secrets(organisation: &Organisation) -> CheckResult {
    let missing = organisation.settings().missing_secrets(organisation.name(), |name| {
        organisation.secrets().newest(name).is_some_and(|secret| !secret.is_empty())
    });
    let refused = organisation.settings().accounts.iter().enumerate().filter(|(n, account)| {
        let name = organisation.settings().password_name(organisation.name(), *n);
        let secret = organisation.secrets().newest(&name);
        secret.is_some_and(|secret| organisation.secrets().is_refused(&account.user, &secret))
    });
    let refused: Vec<&str> = refused.map(|(_, account)| account.user.as_str()).collect();
    if !missing.is_empty() {
        return CheckResult::fail(&SECRET, format!("not stored: {}", missing.join(", ")), "");
    }
    if !refused.is_empty() {
        let detail = format!("refused before, and not shown again: {}", refused.join(", "));
        return CheckResult::fail(&SECRET, detail, "");
    }
    CheckResult::ok(&SECRET, "stored")
}

async fn reach_all(organisation: &Organisation, servers: &OnPremises, net: &Net) -> Vec<CheckResult> {
    let endpoints = organisation.settings().endpoints();
    let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.url.clone()).collect();
    let mut results = vec![CheckResult::ok(&SERVERS, names.join(", ")).of(organisation.name())];
    let reached =
        join_all(endpoints.iter().map(|endpoint| reach_one(organisation, servers, net, endpoint))).await;
    results.extend(reached.into_iter().flatten());
    results
}

async fn reach_one(
    organisation: &Organisation,
    servers: &OnPremises,
    net: &Net,
    endpoint: &Endpoint,
) -> Vec<CheckResult> {
    let subject = endpoint.to_string();
    let mut transport = match servers.transport(net, endpoint) {
        Ok(transport) => transport,
        Err(error) => return vec![CheckResult::fail(&TLS, error.to_string(), "").of(subject)],
    };
    let offered = match timeout(limits::CHECK_WITHIN, transport.offered()).await {
        Ok(offered) => offered,
        Err(_) => return vec![CheckResult::fail(&TCP, "no answer", "").of(subject)],
    };
    let connected = CheckResult::ok(&TCP, "takes connections").of(&subject);
    let secured = || match endpoint.tls {
        true => CheckResult::ok(&TLS, "trusted").of(&subject),
        false => CheckResult::ok(&TLS, "none; messages are sealed by Kerberos or NTLM").of(&subject),
    };
    match offered {
        Ok(offered) => vec![connected, secured(), scheme(organisation, &transport, &offered)],
        Err(TransportError::Http(error @ HttpError::Tls { .. })) => {
            vec![connected, CheckResult::fail(&TLS, Chain(&error).to_string(), "").of(subject)]
        }
        Err(TransportError::Http(error)) => {
            vec![CheckResult::fail(&TCP, Chain(&error).to_string(), "").of(subject)]
        }
        Err(error) => {
            let failed = CheckResult::fail(&AUTH, Chain(&error).to_string(), "check the URL's path");
            vec![connected, secured(), failed.of(subject)]
        }
    }
}

fn scheme(organisation: &Organisation, transport: &Transport, offered: &str) -> CheckResult {
    let endpoint = transport.endpoint();
    let offers = |name: &str| offered.split(", ").any(|known| known.eq_ignore_ascii_case(name));
    let usable = organisation.settings().auth.iter().find(|auth| match auth {
        Auth::Kerberos => offers("Negotiate") || offers("Kerberos"),
        Auth::Negotiate => offers("Negotiate"),
        Auth::Ntlm => offers("NTLM") || offers("Negotiate"),
        Auth::Basic => endpoint.tls && offers("Basic"),
    });
    let result = match usable {
        Some(auth) => CheckResult::ok(&AUTH, format!("offers {offered}; {auth} is tried first")),
        None => CheckResult::fail(&AUTH, format!("offers {offered}, and none of that may be used"), ""),
    };
    result.of(endpoint.to_string())
}

async fn cmdlets(session: &mut dyn Session, needed: &[&str]) -> CheckResult {
    let mut missing = Vec::new();
    for name in needed {
        match exists(session, name).await {
            Ok(true) => {}
            Ok(false) => missing.push(*name),
            Err(error) => return CheckResult::fail(&CMDLETS, format!("{name}: {error}"), ""),
        }
    }
    match missing.as_slice() {
        [] => CheckResult::ok(&CMDLETS, format!("all {} exist", needed.len())),
        missing => {
            let detail = format!("the account lacks {}", missing.join(", "));
            CheckResult::warn(&CMDLETS, detail, "")
        }
    }
}

/// Whether a cmdlet exists for the account. Nothing is carried out.
///
/// # Errors
/// When the session ends.
pub async fn exists(session: &mut dyn Session, name: &str) -> Result<bool, ExchangeError> {
    // Nothing comes through; a server that sends something all the same is not waited for.
    let (objects, mut none) = mpsc::channel(1);
    let drained = async { while none.recv().await.is_some() {} };
    let cmdlet = Cmdlet::new(name).with(PROBE, true);
    let (completed, ()) =
        tokio::join!(timeout(Duration::from_secs(60), session.run(&cmdlet, objects)), drained);
    let completed = completed.map_err(|_| ExchangeError::Unreachable {
        detail: format!("{name} is still looked for after a minute"),
    })??;
    let errors = completed.failure.iter().chain(&completed.errors);
    Ok(!errors.into_iter().any(|error| error.reason.contains("CommandNotFound")))
}
