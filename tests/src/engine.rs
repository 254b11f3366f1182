//! The container engine's API, at the version the engine has.
//!
//! `testcontainers` asks every engine for the newest API version it knows and does not negotiate; an older engine
//! (Debian's docker.io 20.10 speaks 1.41) refuses each such request with status 400. [`Bridge`] is a Unix socket
//! that passes requests on with the version in the path replaced. The calls we use have the same meaning in both.
//!
//! `testcontainers` finds its engine by `DOCKER_HOST` only, and a process may not change its own environment
//! safely, so whoever needs the bridge starts a child with that variable set: see `bin/peers.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::json;
use testcontainers::bollard::API_DEFAULT_VERSION;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::limits::{BRIDGE_CONNECTIONS, ENGINE_TIMEOUT, READY_TIMEOUT};

/// Where the engine listens by default; `DOCKER_HOST` names another place.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How to reach the engine of this machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Engine {
    /// Speaks what `testcontainers` asks for; nothing to set.
    Direct,
    /// Speaks an older version, such as `1.41`, on this socket.
    Older { socket: PathBuf, version: String },
}

/// Asks the engine for its version. An error says that there is none, or that it does not answer.
pub async fn find() -> anyhow::Result<Engine> {
    let socket = match std::env::var("DOCKER_HOST") {
        Ok(host) => match host.strip_prefix("unix://") {
            Some(path) => PathBuf::from(path),
            None => return Ok(Engine::Direct),
        },
        Err(_) => PathBuf::from(DEFAULT_SOCKET),
    };
    let version = tokio::time::timeout(ENGINE_TIMEOUT, api_version(&socket))
        .await
        .with_context(|| format!("no answer on {} within {ENGINE_TIMEOUT:?}", socket.display()))??;
    let wanted = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
    match parse_version(&version) {
        Some(offered) if offered >= wanted => Ok(Engine::Direct),
        Some(_) => Ok(Engine::Older { socket, version }),
        None => bail!("container engine reports the API version {version:?}"),
    }
}

/// Runs a command in a container; returns when it has been started.
///
/// # Errors
/// When the engine refuses.
pub async fn exec(container: &str, command: &[&str]) -> anyhow::Result<()> {
    let created = call("POST", &format!("/containers/{container}/exec"), &json!({ "Cmd": command })).await?;
    let id = created["Id"].as_str().context("the engine names no exec")?;
    call("POST", &format!("/exec/{id}/start"), &json!({ "Detach": true })).await.map(drop)
}

/// Sends SIGTERM to a container's first process.
///
/// # Errors
/// When the engine refuses.
pub async fn terminate(container: &str) -> anyhow::Result<()> {
    call("POST", &format!("/containers/{container}/kill?signal=SIGTERM"), &json!({})).await.map(drop)
}

/// Waits until a container has ended.
///
/// # Errors
/// When it has not within [`READY_TIMEOUT`].
pub async fn wait_ended(container: &str) -> anyhow::Result<()> {
    let (path, nothing) = (format!("/containers/{container}/wait"), json!({}));
    tokio::time::timeout(READY_TIMEOUT, call("POST", &path, &nothing))
        .await
        .context("the container does not end")?
        .map(drop)
}

/// Starts a container that has ended.
///
/// # Errors
/// When the engine refuses.
pub async fn start(container: &str) -> anyhow::Result<()> {
    call("POST", &format!("/containers/{container}/start"), &json!({})).await.map(drop)
}

/// The loopback port behind which a container's port is now.
///
/// # Errors
/// When there is none.
pub async fn published_port(container: &str, inside: u16) -> anyhow::Result<u16> {
    let found = call("GET", &format!("/containers/{container}/json"), &json!({})).await?;
    let port = &found["NetworkSettings"]["Ports"][format!("{inside}/tcp")][0]["HostPort"];
    port.as_str()
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("port {inside} is not published"))
}

/// One call of the engine's API, at the version the engine has.
async fn call(method: &str, path: &str, body: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
    let socket = match std::env::var("DOCKER_HOST") {
        Ok(host) => PathBuf::from(host.strip_prefix("unix://").context("DOCKER_HOST is no Unix socket")?),
        Err(_) => PathBuf::from(DEFAULT_SOCKET),
    };
    let version = api_version(&socket).await?;
    let request = Request::builder()
        .method(method)
        .uri(format!("/v{version}{path}"))
        .header(http::header::HOST, "localhost")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let response = send(&socket, request).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&answer);
    ensure!(status.is_success(), "{method} {path}: the engine answers {status}: {text}");
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}

/// A Unix socket that speaks the engine's own API version. Serves until dropped.
pub struct Bridge {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Bridge {
    /// Listens on `path`, which must not exist, and passes everything on to `socket`.
    pub fn start(path: &Path, socket: &Path, version: &str) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        let target = Arc::new(Target { socket: socket.to_owned(), version: version.to_owned() });
        let task = tokio::spawn(accept(listener, target));
        Ok(Self { path: path.to_owned(), task })
    }

    /// The value of `DOCKER_HOST` for a child that goes through this bridge.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Target {
    socket: PathBuf,
    version: String,
}

async fn accept(listener: UnixListener, target: Arc<Target>) {
    let slots = Arc::new(Semaphore::new(BRIDGE_CONNECTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else { return };
        let target = target.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| forward(request, &target));
            // The client sees an error as a closed connection and reports it with what it was doing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}

/// One request on one connection of its own: the engine is local, and nothing is pooled that could go stale.
async fn forward(mut request: Request<Incoming>, target: &Target) -> anyhow::Result<Response<Incoming>> {
    *request.uri_mut() = at_version(request.uri(), &target.version)?;
    send(&target.socket, request).await
}

async fn send<B>(socket: &Path, request: Request<B>) -> anyhow::Result<Response<Incoming>>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let stream =
        UnixStream::connect(socket).await.with_context(|| format!("connect to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// `/v1.53/containers/json?all=1` becomes `/v1.41/containers/json?all=1`.
fn at_version(uri: &Uri, version: &str) -> anyhow::Result<Uri> {
    let whole = uri.path_and_query().map_or("/", |part| part.as_str());
    let Some(rest) = whole.strip_prefix("/v").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return Ok(whole.parse()?);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    Ok(format!("/v{version}{}", &rest[end..]).parse()?)
}

async fn api_version(socket: &Path) -> anyhow::Result<String> {
    let request =
        Request::get("/version").header(http::header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let body = send(socket, request).await?.into_body().collect().await?.to_bytes();
    let answer: serde_json::Value =
        serde_json::from_slice(&body).context("the engine's version is not JSON")?;
    Ok(answer["ApiVersion"].as_str().context("the engine's answer has no ApiVersion")?.to_owned())
}

fn parse_version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_path_is_replaced() {
        let cases = [
            ("/v1.53/containers/json?all=1", "/v1.41/containers/json?all=1"),
            ("/v1.53", "/v1.41"),
            ("/version", "/version"),
            ("/volumes/v1.53/x", "/volumes/v1.53/x"),
        ];
        for (from, to) in cases {
            assert_eq!(at_version(&from.parse().unwrap(), "1.41").unwrap().to_string(), to);
        }
    }

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        assert!(parse_version("1.9") < parse_version("1.41"));
        assert_eq!(parse_version("latest"), None);
    }
}
