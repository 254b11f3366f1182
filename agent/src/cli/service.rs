//! `service install|remove|start|stop`: a systemd unit on Linux. Windows services are not in this release.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::DataDir;

/// What to do with the service.
#[derive(Subcommand)]
pub enum Service {
    /// Write the unit and enable it
    Install(Place),
    /// Disable the service and remove the unit
    Remove(Place),
    /// Start the service
    Start(Place),
    /// Stop the service
    Stop(Place),
}

/// Where the unit is.
#[derive(Args)]
pub struct Place {
    /// Directory of systemd units
    #[arg(long, default_value = "/etc/systemd/system")]
    unit_dir: std::path::PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
}

#[cfg(not(target_os = "linux"))]
impl Service {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        bail!(
            "services of this operating system are not in this release; start `causeway-agent run` from a scheduler of your choice"
        )
    }
}

#[cfg(target_os = "linux")]
pub use linux::unit;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use anyhow::Context;

    use super::{ExitCode, Place, Service, bail};

    const UNIT: &str = "causeway-agent.service";

    impl Service {
        pub(in crate::cli) fn execute(self) -> anyhow::Result<ExitCode> {
            match self {
                Self::Install(place) => install(&place)?,
                Self::Remove(place) => remove(&place)?,
                Self::Start(_) => systemctl(&["start", UNIT])?,
                Self::Stop(_) => systemctl(&["stop", UNIT])?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }

    fn install(place: &Place) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("find this program")?;
        let data_dir = fs::canonicalize(&place.data_dir.data_dir)
            .with_context(|| format!("find {}; enrol first", place.data_dir.data_dir.display()))?;
        let path = place.unit_dir.join(UNIT);
        fs::write(&path, unit(&program, &data_dir)?).with_context(|| format!("write {}", path.display()))?;
        eprintln!("Wrote {}", path.display());
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", UNIT])
    }

    fn remove(place: &Place) -> anyhow::Result<()> {
        let path = place.unit_dir.join(UNIT);
        if !path.exists() {
            bail!("{} does not exist; the service is not installed", path.display());
        }
        let disabled = systemctl(&["disable", "--now", UNIT]);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        eprintln!("Removed {}", path.display());
        disabled?;
        systemctl(&["daemon-reload"])
    }

    /// No shell: fixed words only.
    fn systemctl(words: &[&str]) -> anyhow::Result<()> {
        let status = Command::new("systemctl").args(words).status().with_context(|| {
            format!("run systemctl {}; this machine does not seem to be run by systemd", words.join(" "))
        })?;
        if !status.success() {
            bail!("systemctl {} failed ({status})", words.join(" "));
        }
        Ok(())
    }

    /// The unit's text. The agent needs nothing but its data directory and the network.
    ///
    /// # Errors
    /// When a path cannot be written in a unit.
    pub fn unit(program: &Path, data_dir: &Path) -> anyhow::Result<String> {
        let (program, data_dir) = (quoted(program)?, quoted(data_dir)?);
        Ok(format!(
            "[Unit]
Description=Causeway agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={program} run --data-dir {data_dir}
Restart=on-failure
RestartSec=5
TimeoutStopSec=20
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ReadWritePaths={data_dir}
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"
        ))
    }

    /// systemd's own quoting: specifiers and quotes (systemd.syntax).
    fn quoted(path: &Path) -> anyhow::Result<String> {
        let text = path.to_str().filter(|text| !text.contains(['\n', '\r'])).with_context(|| {
            format!("{} cannot be written in a systemd unit; choose a plain path", path.display())
        })?;
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
        Ok(format!("\"{text}\""))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_unit_names_program_and_data_directory() {
            let text = unit(Path::new("/opt/causeway agent"), Path::new("/var/lib/100%")).unwrap();
            assert!(
                text.contains("ExecStart=\"/opt/causeway agent\" run --data-dir \"/var/lib/100%%\"\n"),
                "{text}"
            );
            assert!(text.contains("ReadWritePaths=\"/var/lib/100%%\"\n"), "{text}");
            assert!(unit(Path::new("/a\nExecStartPre=/bin/sh"), Path::new("/b")).is_err());
        }
    }
}
