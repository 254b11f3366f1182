//! The checks every module that uses a directory shares: resolve, connect, TLS, bind, rootDSE. Each server on its own,
//! because a broken second server is found only when the first one dies.

use std::sync::Arc;

use super::connection::{Connection, Security};
use super::discover::RootDse;
use super::error::DirectoryError;
use super::message::SearchRequest;
use super::servers::Server;
use super::{Directory, Net};
use crate::chain::Chain;
use crate::modules::CheckResult;

/// All checks of one directory, in the order a person would make them.
pub async fn run(directory: &Arc<Directory>, net: &Net) -> Vec<CheckResult> {
    let mut results = Vec::new();
    let servers = match directory.servers(net).await {
        Ok(servers) => servers,
        Err(error) => {
            results.push(failed("find servers", &error));
            return results;
        }
    };
    let names: Vec<&str> = servers.iter().map(|server| server.name().as_ref()).collect();
    results.push(CheckResult::ok("find servers", names.join(", ")));
    for server in &servers {
        check_server(directory, net, server, &mut results).await;
    }
    results
}

/// A line for an operation that failed.
pub fn failed(name: &str, error: &DirectoryError) -> CheckResult {
    CheckResult::fail(name, Chain(error).to_string(), error.remedy())
}

async fn check_server(
    directory: &Arc<Directory>,
    net: &Net,
    server: &Arc<Server>,
    results: &mut Vec<CheckResult>,
) {
    let host = &server.endpoint().host;
    let name = format!("resolve {host}");
    match net.dial.addresses(host).await {
        Ok(addresses) => {
            let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            results.push(CheckResult::ok(name, shown.join(", ")));
        }
        Err(error) => {
            let advice = "check the name, and this machine's name servers";
            results.push(CheckResult::fail(name, Chain(&error).to_string(), advice));
            return;
        }
    }
    let name = format!("connect to {}", server.name());
    let connection = match directory.open(net, server).await {
        Ok(connection) => connection,
        Err(error) => {
            results.push(failed(&name, &error));
            return;
        }
    };
    results.push(CheckResult::ok(name, security(server, &connection)));
    if server.endpoint().security == Security::Plain {
        results.push(CheckResult::warn(
            format!("protection of {}", server.name()),
            "the connection is not encrypted; passwords travel in the clear",
            "use ldaps:// or start_tls = true",
        ));
    }
    connection.close().await;
    let name = format!("bind to {} as {}", server.name(), directory.account());
    let mut connection = match directory.open_bound(net, server).await {
        Ok(connection) => connection,
        Err(error) => {
            results.push(failed(&name, &error));
            return;
        }
    };
    results.push(CheckResult::ok(name, "accepted"));
    check_root(directory, server, &mut connection, results).await;
    connection.close().await;
}

async fn check_root(
    directory: &Directory,
    server: &Server,
    connection: &mut Connection,
    results: &mut Vec<CheckResult>,
) {
    let name = format!("rootDSE of {}", server.name());
    let root = match RootDse::read(connection).await {
        Ok(root) => root,
        Err(error) => {
            results.push(failed(&name, &error));
            return;
        }
    };
    let personality = directory.personality(&root);
    let base = directory.base(&root);
    let detail = format!("{}, base {base:?}, {} controls", personality.name, root.controls.len());
    if root.synchronized {
        results.push(CheckResult::ok(name, detail));
    } else {
        let advice = "wait for its replication, or take it off the list";
        results.push(CheckResult::warn(name, format!("{detail}; it has not replicated yet"), advice));
    }
    let name = format!("read {base:?} on {}", server.name());
    match connection.read(&SearchRequest::read(base.as_str(), &["objectClass"])).await {
        Ok(Some(_)) => results.push(CheckResult::ok(name, "readable")),
        // Domino's base is often empty, and an empty base is the rootDSE itself.
        Ok(None) => results.push(CheckResult::fail(
            name,
            "there is no such object, or the service account may not see it",
            "correct base_dn, or give the service account read rights",
        )),
        Err(error) => results.push(failed(&name, &error)),
    }
}

fn security(server: &Server, connection: &Connection) -> String {
    let how = match server.endpoint().security {
        Security::Tls => "TLS",
        Security::StartTls => "StartTLS",
        Security::Plain => return "open, without TLS".to_owned(),
    };
    let Some(certificate) = connection.certificate() else { return format!("{how}, no certificate seen") };
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => format!(
            "{how}; certificate of {} signed by {}, valid until {}",
            parsed.subject(),
            parsed.issuer(),
            parsed.validity().not_after
        ),
        Err(_) => format!("{how}; the certificate cannot be read"),
    }
}
