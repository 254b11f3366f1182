//! `service exec`: a command of ours run under the service's account, LocalSystem. What DPAPI has sealed for that
//! account nobody else opens, an administrator included; so a command that reads or writes sealed files must run there.
//!
//! The command is handed to a service that lives as long as it, over a named pipe that only LocalSystem and
//! administrators may open: what comes on standard input (a password) touches no disk.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeServer, ServerOptions};
use tokio::time::timeout;
use windows_service::service::{
    Service, ServiceAccess, ServiceErrorControl, ServiceInfo, ServiceStartType, ServiceType,
};
use windows_service::service_manager::ServiceManagerAccess;
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use zeroize::{Zeroize, Zeroizing};

use super::{acl, service};
use crate::platform::limits::{EXEC_MESSAGE_MAX_BYTES, EXEC_WITHIN, SERVICE_WITHIN};
use crate::platform::sddl;

/// The service's name; one at a time.
const NAME: &str = "causeway-agent-exec";

/// What is to be run.
#[derive(Serialize, Deserialize)]
struct Order {
    arguments: Vec<String>,
    input: String,
}

impl Drop for Order {
    fn drop(&mut self) {
        self.input.zeroize();
    }
}

/// How it went.
#[derive(Serialize, Deserialize)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs this program with these arguments under the service's account, as if it had been called here.
///
/// # Errors
/// When the service control manager refuses, which it does unless an administrator asks, or nothing comes of it.
pub(crate) async fn exec(words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let mut arguments = Vec::with_capacity(words.len());
    for word in words {
        arguments
            .push(word.into_string().map_err(|word| anyhow::anyhow!("{} is no Unicode", word.display()))?);
    }
    let order = Order { arguments, input: standard_input()? };
    let pipe_name = format!(r"\\.\pipe\causeway-{}", uuid::Uuid::new_v4());
    let mut pipe = listen(&pipe_name).context("make a pipe")?;
    let service = Temporary::install(&pipe_name)?;
    service.0.start::<&OsStr>(&[]).context("start the service that runs the command")?;
    timeout(SERVICE_WITHIN, pipe.connect())
        .await
        .context("wait for the service")?
        .context("wait for the service")?;
    let told = timeout(EXEC_WITHIN, async {
        send(&mut pipe, &order).await?;
        receive::<Outcome>(&mut pipe).await
    });
    let outcome = told.await.context("wait for the command")??;
    // Closed terminals are nobody's concern here.
    let _ = io::stdout().write_all(outcome.stdout.as_bytes());
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    Ok(outcome.code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The other end: is the service, takes the order, runs it, answers.
///
/// # Errors
/// When somebody else than [`exec`] is at the other end.
pub(super) async fn answer(pipe_name: &str) -> anyhow::Result<()> {
    let mut pipe = ClientOptions::new().open(pipe_name).context("open the pipe")?;
    let order =
        timeout(SERVICE_WITHIN, receive::<Order>(&mut pipe)).await.context("wait for the order")??;
    let outcome = tokio::task::spawn_blocking(move || run(&order)).await.context("run the command")?;
    let outcome = outcome.unwrap_or_else(|error| Outcome {
        code: None,
        stdout: String::new(),
        stderr: format!("causeway-agent: {error:#}\n"),
    });
    send(&mut pipe, &outcome).await?;
    // The other end closes when it has read everything.
    let _ = timeout(SERVICE_WITHIN, pipe.read(&mut [0])).await;
    Ok(())
}

fn run(order: &Order) -> anyhow::Result<Outcome> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(&order.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start the command")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing closes its end.
        let _ = stdin.write_all(order.input.as_bytes());
    }
    let output = child.wait_with_output().context("wait for the command")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Outcome { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// What is piped in; a person's terminal is not waited for.
fn standard_input() -> anyhow::Result<String> {
    let mut input = String::new();
    if !io::stdin().is_terminal() {
        let limit = u64::from(EXEC_MESSAGE_MAX_BYTES) / 2;
        io::stdin().take(limit).read_to_string(&mut input).context("read standard input")?;
    }
    Ok(input)
}

fn listen(name: &str) -> io::Result<NamedPipeServer> {
    let descriptor = acl::descriptor(sddl::PRIVATE_PIPE)?;
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.0.cast(),
        bInheritHandle: 0,
    };
    let mut options = ServerOptions::new();
    options.first_pipe_instance(true).max_instances(1).reject_remote_clients(true);
    // SAFETY: the attributes and the descriptor they point to are valid and live until after the call.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

/// A length of four bytes, and JSON.
async fn send(pipe: &mut (impl AsyncWriteExt + Unpin), message: &impl Serialize) -> anyhow::Result<()> {
    let bytes = Zeroizing::new(serde_json::to_vec(message).context("texts are JSON")?);
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= EXEC_MESSAGE_MAX_BYTES);
    let Some(length) = length else { bail!("the command printed more than can be passed on") };
    pipe.write_all(&length.to_le_bytes()).await.context("write to the pipe")?;
    pipe.write_all(&bytes).await.context("write to the pipe")?;
    pipe.flush().await.context("write to the pipe")
}

async fn receive<T: for<'de> Deserialize<'de>>(pipe: &mut (impl AsyncReadExt + Unpin)) -> anyhow::Result<T> {
    let mut length = [0; 4];
    pipe.read_exact(&mut length).await.context("read from the pipe")?;
    let length = u32::from_le_bytes(length);
    if length > EXEC_MESSAGE_MAX_BYTES {
        bail!("a message of {length} bytes");
    }
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    pipe.read_exact(&mut bytes).await.context("read from the pipe")?;
    serde_json::from_slice(&bytes).context("read the message")
}

/// A service that is removed when this is dropped.
struct Temporary(Service);

impl Temporary {
    fn install(pipe_name: &str) -> anyhow::Result<Self> {
        let manager = service::manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
        if let Ok(old) = manager.open_service(NAME, ServiceAccess::DELETE) {
            // Left by a command that was killed.
            old.delete().context("remove an old service")?;
        }
        let wanted = ServiceInfo {
            name: NAME.into(),
            display_name: "Causeway agent, one command".into(),
            service_type: ServiceType::OWN_PROCESS,
            start_type: ServiceStartType::OnDemand,
            error_control: ServiceErrorControl::Ignore,
            executable_path: std::env::current_exe().context("find this program")?,
            launch_arguments: vec!["service".into(), "answer".into(), pipe_name.into()],
            dependencies: Vec::new(),
            account_name: None,
            account_password: None,
        };
        let access = ServiceAccess::START | ServiceAccess::DELETE;
        let service = manager.create_service(&wanted, access).context("install a service for the command")?;
        Ok(Self(service))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It ends by itself; the system removes it when it has.
        let _ = self.0.delete();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_and_bounded() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let order = Order { arguments: vec!["check".into()], input: "canary".into() };
        let (sent, got) = tokio::join!(send(&mut here, &order), receive::<Order>(&mut there));
        sent.unwrap();
        assert_eq!(got.unwrap().input, "canary");
        here.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        assert!(receive::<Order>(&mut there).await.is_err());
    }
}
