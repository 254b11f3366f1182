//! The cloud of a world: its settings, and how the world reaches it.

use std::sync::Arc;

use anyhow::{Context, Result};
use causeway_mock_cloud::MockCloud;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::spec::WorldSpec;

/// Lease time in scenarios: long enough for a slow machine, short enough to wait for.
const LEASE_TTL_MS: i64 = 6_000;

/// Time between two health reports in scenarios.
const HEALTH_EVERY_SECS: i64 = 2;

/// The settings of a scenario's cloud; its state goes below `folder`.
pub(super) fn cloud_settings(spec: &WorldSpec, folder: &TempDir) -> Result<toml::Table> {
    let data_dir = folder.path().join("cloud");
    let data_dir = data_dir.to_str().context("the folder's path is not UTF-8")?.to_owned();
    let mut settings = toml::Table::new();
    settings.insert("data_dir".into(), data_dir.into());
    settings
        .insert("leases".into(), toml::Table::from_iter([("ttl_ms".to_owned(), LEASE_TTL_MS.into())]).into());
    let channel = toml::Table::from_iter([("health_every_secs".to_owned(), HEALTH_EVERY_SECS.into())]);
    settings.insert("channel".into(), channel.into());
    let mut common = toml::Table::new();
    if let Some(listen) = spec.listen {
        common.insert("listen".into(), listen.ip().to_string().into());
        let ports = toml::Table::from_iter([("api".to_owned(), toml::Value::from(i64::from(listen.port())))]);
        common.insert("ports".into(), ports.into());
    }
    settings.insert("common".into(), common.into());
    merge(&mut settings, &spec.cloud.settings);
    Ok(settings)
}

/// Starts the cloud and pins the port it got, so that a restart finds the same one.
pub(super) async fn start_cloud(mut settings: toml::Table) -> Result<(MockCloud, toml::Table)> {
    let config: causeway_mock_cloud::Config =
        settings.clone().try_into().context("settings of mock-cloud")?;
    let cloud = MockCloud::start(config).await.context("start mock-cloud")?;
    let port = authority(&cloud.urls()["api"])?
        .rsplit_once(':')
        .context("the API's URL has no port")?
        .1
        .parse::<i64>()?;
    let pinned = toml::toml! { [common.ports] };
    merge(&mut settings, &pinned);
    settings["common"]["ports"].as_table_mut().context("ports is a table")?.insert("api".into(), port.into());
    Ok((cloud, settings))
}

/// Trusts the cloud's own authority and nobody else.
pub(super) fn client_tls(cloud: &MockCloud) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(cloud.ca_pem()).context("read the cloud's CA")? {
        roots.add(certificate.context("read the cloud's CA")?)?;
    }
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Host and port of a URL.
pub(super) fn authority(url: &str) -> Result<&str> {
    let rest = url.split_once("://").with_context(|| format!("{url:?} is no URL"))?.1;
    Ok(rest.split('/').next().unwrap_or(rest))
}

/// Merges `over` into `base`: tables key by key, anything else replaced.
pub(super) fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
