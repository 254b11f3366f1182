//! The systemd unit.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::platform::{ServicePlace, Standing};

const UNIT: &str = "causeway-agent.service";

/// Writes the unit and enables it.
///
/// # Errors
/// When the unit cannot be written or systemd refuses.
pub(crate) fn install(place: &ServicePlace) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let data_dir = fs::canonicalize(&place.data_dir)
        .with_context(|| format!("find {}; enrol first", place.data_dir.display()))?;
    let path = place.unit_dir.join(UNIT);
    fs::write(&path, unit(&program, &data_dir)?).with_context(|| format!("write {}", path.display()))?;
    crate::cli::say::note(format_args!("Wrote {}", path.display()));
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", UNIT])
}

/// Disables the service and removes its unit.
///
/// # Errors
/// When there is none or systemd refuses.
pub(crate) fn remove(place: &ServicePlace) -> anyhow::Result<()> {
    let path = place.unit_dir.join(UNIT);
    if !path.exists() {
        bail!("{} does not exist; the service is not installed", path.display());
    }
    let disabled = systemctl(&["disable", "--now", UNIT]);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    crate::cli::say::note(format_args!("Removed {}", path.display()));
    disabled?;
    systemctl(&["daemon-reload"])
}

/// How the service stands, for the doctor. Where another program is process 1 there are no services of this kind.
pub(crate) fn standing() -> Standing {
    if !Path::new("/run/systemd/system").exists() {
        return Standing::NoServices {
            because: "systemd does not run this machine; start `run` in another way",
        };
    }
    let says = |word: &str| -> String {
        let output = Command::new("systemctl").args([word, UNIT]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    match (says("is-enabled").as_str(), says("is-active").as_str()) {
        ("enabled" | "enabled-runtime" | "static" | "linked", "active") => Standing::Running,
        ("enabled" | "enabled-runtime" | "static" | "linked", _) => Standing::Stopped,
        ("" | "not-found", _) => Standing::Missing,
        _ => Standing::Disabled,
    }
}

/// Starts the service.
///
/// # Errors
/// When systemd refuses.
pub(crate) fn start() -> anyhow::Result<()> {
    systemctl(&["start", UNIT])
}

/// Stops it.
///
/// # Errors
/// When systemd refuses.
pub(crate) fn stop() -> anyhow::Result<()> {
    systemctl(&["stop", UNIT])
}

/// systemd starts `run` itself.
///
/// # Errors
/// Always.
pub(crate) async fn run(_: &Path) -> anyhow::Result<ExitCode> {
    bail!("systemd starts `causeway-agent run`; this command is for Windows")
}

/// Only Windows seals for an account.
///
/// # Errors
/// Always.
pub(crate) async fn exec(_: Vec<OsString>) -> anyhow::Result<ExitCode> {
    bail!("`service exec` is for Windows; here use sudo or systemd-run, as docs/deployment.md says")
}

/// Only `service exec` calls this.
///
/// # Errors
/// Always.
pub(crate) async fn answer(_: String) -> anyhow::Result<ExitCode> {
    bail!("this command is for Windows")
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
Type=notify
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
LimitCORE=0

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
        assert!(text.contains("\nLimitCORE=0\n"), "{text}");
        assert!(unit(Path::new("/a\nExecStartPre=/bin/sh"), Path::new("/b")).is_err());
    }
}
