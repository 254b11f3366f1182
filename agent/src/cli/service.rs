//! `service install|remove|start|stop`: a systemd unit on Linux, a service of the service control manager on Windows.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::DataDir;
use crate::platform::{ServicePlace, service};

/// What to do with the service.
#[derive(Subcommand)]
pub enum Service {
    /// Install the service, to start with the system and to be restarted when it fails
    Install(Place),
    /// Stop and remove the service
    Remove(Place),
    /// Start the service
    Start(Place),
    /// Stop the service
    Stop(Place),
    /// Run a command of this program under the service's account (Windows); standard input is passed on
    #[command(hide = cfg!(not(windows)))]
    Exec {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Run one command; only `service exec` calls this
    #[command(hide = true)]
    Answer {
        /// Where the command comes from
        pipe: String,
    },
    /// Be the service; only the service control manager calls this
    #[command(hide = true)]
    Run(DataDir),
}

/// Where the service's files are.
#[derive(Args)]
pub struct Place {
    /// Directory of systemd units
    #[arg(long, default_value = "/etc/systemd/system", hide = cfg!(windows))]
    unit_dir: std::path::PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
}

impl From<Place> for ServicePlace {
    fn from(place: Place) -> Self {
        Self { unit_dir: place.unit_dir, data_dir: place.data_dir.data_dir }
    }
}

impl Service {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Install(place) => service::install(&place.into())?,
            Self::Remove(place) => service::remove(&place.into())?,
            Self::Start(_) => service::start()?,
            Self::Stop(_) => service::stop()?,
            Self::Exec { words } => return service::exec(words).await,
            Self::Answer { pipe } => return service::answer(pipe).await,
            Self::Run(data_dir) => return service::run(&data_dir.data_dir).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}
