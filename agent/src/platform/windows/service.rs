//! The service of the service control manager: installed, controlled, and run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::runtime::Handle;
use tokio::sync::watch;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use super::event_log::{self, EventLog};
pub(crate) use super::exec::exec;
use crate::chain::Chain;
use crate::platform::limits::{
    SERVICE_CHECKPOINT_EVERY, SERVICE_POLL_EVERY, SERVICE_RESTARTS, SERVICE_WITHIN,
};
use crate::platform::syslog::{Severity, SystemLog};
use crate::platform::{SERVICE_DESCRIPTION, SERVICE_DISPLAY_NAME, SERVICE_NAME, ServicePlace, Standing};
use crate::{Agent, AgentConfig, logging};

/// Says when the service has to end.
type Stop = watch::Receiver<bool>;

/// Installs the service, or brings an installed one up to date: own process, LocalSystem, started with Windows once the
/// rest is up, restarted when it fails.
///
/// # Errors
/// When the service control manager refuses; it takes an administrator.
pub(crate) fn install(place: &ServicePlace) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let data_dir =
        std::path::absolute(&place.data_dir).with_context(|| format!("find {}", place.data_dir.display()))?;
    super::acl::create_private_dir(&data_dir)
        .with_context(|| format!("keep {} to administrators", data_dir.display()))?;
    event_log::install().context("register the source of the event log")?;

    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
    let wanted = description(program, &data_dir);
    let service = match manager.open_service(SERVICE_NAME, ServiceAccess::ALL_ACCESS) {
        Ok(service) => {
            service.change_config(&wanted).context("change the installed service")?;
            service
        }
        Err(_) => manager
            .create_service(&wanted, ServiceAccess::ALL_ACCESS)
            .context("install the service; run as an administrator")?,
    };
    service.set_description(SERVICE_DESCRIPTION).context("describe the service")?;
    service.update_failure_actions(recovery()).context("set what happens when the service fails")?;
    // Since Windows Vista; Wine has no such setting, and a service without it is still a service.
    if let Err(error) = service.set_failure_actions_on_non_crash_failures(true) {
        crate::cli::say::note(format_args!(
            "It will be restarted after crashes, but not after errors: {}",
            Chain(&error)
        ));
    }
    crate::cli::say::note(format_args!("Installed the service {SERVICE_NAME}"));
    Ok(())
}

/// Stops the service and removes it and its source in the event log. The data directory stays.
///
/// # Errors
/// When there is no such service or the service control manager refuses.
pub(crate) fn remove(_: &ServicePlace) -> anyhow::Result<()> {
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE)?;
    if state(&service)? != ServiceState::Stopped {
        stop_and_wait(&service)?;
    }
    service.delete().context("remove the service")?;
    event_log::remove().context("remove the source of the event log")?;
    crate::cli::say::note(format_args!("Removed the service {SERVICE_NAME}"));
    Ok(())
}

/// Starts the service and waits until it runs.
///
/// # Errors
/// When it does not start.
pub(crate) fn start() -> anyhow::Result<()> {
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::START)?;
    if state(&service)? == ServiceState::Running {
        return Ok(());
    }
    service.start::<&OsStr>(&[]).context("start the service")?;
    let reached = wait(&service, |state| matches!(state, ServiceState::Running | ServiceState::Stopped))?;
    if reached != ServiceState::Running {
        bail!("the service ended as soon as it began; the event log and {} say why", logging::FILE_NAME);
    }
    Ok(())
}

/// Stops the service and waits until it has ended.
///
/// # Errors
/// When it does not stop.
pub(crate) fn stop() -> anyhow::Result<()> {
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP)?;
    if state(&service)? == ServiceState::Stopped { Ok(()) } else { stop_and_wait(&service) }
}

/// How the service stands, for the doctor.
pub(crate) fn standing() -> Standing {
    let Ok(service) = open(ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG) else {
        return Standing::Missing;
    };
    let by_itself =
        service.query_config().is_ok_and(|config| config.start_type == ServiceStartType::AutoStart);
    match state(&service) {
        Ok(ServiceState::Running) if by_itself => Standing::Running,
        Ok(_) if by_itself => Standing::Stopped,
        _ => Standing::Disabled,
    }
}

/// Is the service: returns when the service control manager has ended it.
///
/// # Errors
/// When somebody else than the service control manager calls.
pub(crate) async fn run(data_dir: &Path) -> anyhow::Result<ExitCode> {
    become_service(Work::Agent { data_dir: data_dir.to_owned() }).await
}

/// Is the service that runs one command for `service exec`.
///
/// # Errors
/// When somebody else than the service control manager calls.
pub(crate) async fn answer(pipe: String) -> anyhow::Result<ExitCode> {
    become_service(Work::Command { pipe }).await
}

async fn become_service(work: Work) -> anyhow::Result<ExitCode> {
    if BEING.set(Being { work, runtime: Handle::current() }).is_err() {
        bail!("a process is one service, once");
    }
    // A service with a process of its own is found by that; the name is not looked at.
    tokio::task::spawn_blocking(|| service_dispatcher::start(SERVICE_NAME, service_entry))
        .await
        .context("wait for the service's thread")?
        .context("reach the service control manager; only that starts `service run`, see `service start`")?;
    Ok(ExitCode::SUCCESS)
}

/// What the entry point needs: the system calls it without any context of ours.
struct Being {
    work: Work,
    runtime: Handle,
}

/// What this process is a service for.
enum Work {
    /// Being the agent.
    Agent { data_dir: PathBuf },
    /// One command.
    Command { pipe: String },
}

static BEING: OnceLock<Being> = OnceLock::new();

define_windows_service!(service_entry, service_main);

fn service_main(_: Vec<OsString>) {
    let being = BEING.get().expect("the dispatcher is started after this is set");
    let log = EventLog::open().ok();
    if let Err(error) = being.serve() {
        if let Some(log) = &log {
            log.write(Severity::Error, &format!("The agent does not run: {error:#}"));
        }
        tracing::error!(error = format!("{error:#}"), "The agent does not run");
    }
}

impl Being {
    fn serve(&self) -> anyhow::Result<()> {
        let (tell, stop) = watch::channel(false);
        let on_control = move |control| match control {
            ServiceControl::Stop | ServiceControl::Shutdown | ServiceControl::Preshutdown => {
                tell.send_replace(true);
                ServiceControlHandlerResult::NoError
            }
            ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
            _ => ServiceControlHandlerResult::NotImplemented,
        };
        let report = Report(
            service_control_handler::register(SERVICE_NAME, on_control).context("register for controls")?,
        );
        report.pending(ServiceState::StartPending, 1)?;
        let result = match &self.work {
            Work::Agent { data_dir } => self.runtime.block_on(agent(data_dir, &report, stop)),
            Work::Command { pipe } => {
                report.running()?;
                self.runtime.block_on(super::exec::answer(pipe))
            }
        };
        // A code of our own makes the recovery actions count it as a failure.
        report.stopped(if result.is_ok() { 0 } else { 1 })?;
        result
    }
}

async fn agent(data_dir: &Path, report: &Report, mut stop: Stop) -> anyhow::Result<()> {
    let config = AgentConfig::load(data_dir)?;
    let system = EventLog::open().context("open the event log")?;
    logging::to_file(&config.settings.settings.log, data_dir, system)?;
    let instance = config.identity.instance.clone();
    let agent = Agent::start(config).await?;
    report.running()?;
    tracing::info!(instance, version = env!("CARGO_PKG_VERSION"), "Agent started");
    if let Ok(log) = EventLog::open() {
        log.write(Severity::Notice, concat!("The agent ", env!("CARGO_PKG_VERSION"), " has started"));
    }
    // An error means that the sender is gone, and with it every way to tell us.
    let _ = stop.wait_for(|stop| *stop).await;
    tracing::info!("Agent stops");
    let mut stopping = std::pin::pin!(agent.stop());
    let mut checkpoint = 0;
    let mut tick = tokio::time::interval(SERVICE_CHECKPOINT_EVERY);
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(()),
            _ = tick.tick() => {
                checkpoint += 1;
                report.pending(ServiceState::StopPending, checkpoint)?;
            }
        }
    }
}

/// Tells the service control manager how we are.
struct Report(ServiceStatusHandle);

impl Report {
    fn running(&self) -> anyhow::Result<()> {
        let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
        self.tell(ServiceState::Running, accepted, 0, 0)
    }

    fn pending(&self, state: ServiceState, checkpoint: u32) -> anyhow::Result<()> {
        self.tell(state, ServiceControlAccept::empty(), checkpoint, 0)
    }

    fn stopped(&self, code: u32) -> anyhow::Result<()> {
        self.tell(ServiceState::Stopped, ServiceControlAccept::empty(), 0, code)
    }

    fn tell(
        &self,
        state: ServiceState,
        accepted: ServiceControlAccept,
        checkpoint: u32,
        code: u32,
    ) -> anyhow::Result<()> {
        let exit_code =
            if code == 0 { ServiceExitCode::Win32(0) } else { ServiceExitCode::ServiceSpecific(code) };
        self.0
            .set_service_status(ServiceStatus {
                service_type: ServiceType::OWN_PROCESS,
                current_state: state,
                controls_accepted: accepted,
                exit_code,
                checkpoint,
                wait_hint: if checkpoint == 0 { Duration::ZERO } else { SERVICE_CHECKPOINT_EVERY * 5 },
                process_id: None,
            })
            .context("tell the service control manager")
    }
}

fn description(program: PathBuf, data_dir: &Path) -> ServiceInfo {
    ServiceInfo {
        name: SERVICE_NAME.into(),
        display_name: SERVICE_DISPLAY_NAME.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: vec!["service".into(), "run".into(), "--data-dir".into(), data_dir.into()],
        dependencies: Vec::new(),
        account_name: None,
        account_password: None,
    }
}

fn recovery() -> ServiceFailureActions {
    let restart = |delay| ServiceAction { action_type: ServiceActionType::Restart, delay };
    ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(24 * 3600)),
        reboot_msg: None,
        command: None,
        actions: Some(SERVICE_RESTARTS.into_iter().map(restart).collect()),
    }
}

pub(super) fn manager(access: ServiceManagerAccess) -> anyhow::Result<ServiceManager> {
    ServiceManager::local_computer(None::<&OsStr>, access)
        .context("reach the service control manager; run as an administrator")
}

fn open(access: ServiceAccess) -> anyhow::Result<Service> {
    manager(ServiceManagerAccess::CONNECT)?.open_service(SERVICE_NAME, access).with_context(|| {
        format!("open the service {SERVICE_NAME}; is it installed, and are you an administrator")
    })
}

fn state(service: &Service) -> anyhow::Result<ServiceState> {
    Ok(service.query_status().context("ask for the service's state")?.current_state)
}

fn stop_and_wait(service: &Service) -> anyhow::Result<()> {
    service.stop().context("stop the service")?;
    wait(service, |state| state == ServiceState::Stopped).map(drop)
}

/// The service control manager signals nothing that one could wait for with the rights a command has.
fn wait(service: &Service, reached: impl Fn(ServiceState) -> bool) -> anyhow::Result<ServiceState> {
    let until = Instant::now() + SERVICE_WITHIN;
    loop {
        let now = state(service)?;
        if reached(now) {
            return Ok(now);
        }
        if Instant::now() >= until {
            bail!("the service is {now:?} after {} s", SERVICE_WITHIN.as_secs());
        }
        thread::park_timeout(SERVICE_POLL_EVERY);
    }
}
