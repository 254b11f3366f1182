//! What a server says about itself in its rootDSE, and which servers a domain has.

use super::connection::Connection;
use super::entry::Entry;
use super::error::DirectoryError;
use super::message::SearchRequest;

/// Attributes asked for; all of them by name, because most are operational.
const ATTRIBUTES: &[&str] = &[
    "objectClass",
    "namingContexts",
    "defaultNamingContext",
    "nsslapd-defaultnamingcontext",
    "supportedControl",
    "supportedCapabilities",
    "vendorName",
    "vendorVersion",
    "dnsHostName",
    "dsServiceName",
    "highestCommittedUSN",
    "isSynchronized",
    "changelog",
    "firstChangeNumber",
    "lastChangeNumber",
];

/// The parts of a rootDSE that matter to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootDse {
    pub object_classes: Vec<String>,
    pub naming_contexts: Vec<String>,
    pub default_naming_context: Option<String>,
    pub controls: Vec<String>,
    pub capabilities: Vec<String>,
    pub vendor: String,
    pub dns_host_name: Option<String>,
    /// DN of the NTDS Settings object; its invocationId names the database of this domain controller.
    pub service_name: Option<String>,
    pub highest_usn: Option<u64>,
    /// False while a domain controller has not replicated yet; it must not be a source then.
    pub synchronized: bool,
    pub changelog: Option<String>,
    pub first_change: Option<u64>,
    pub last_change: Option<u64>,
}

impl RootDse {
    /// Reads it.
    ///
    /// # Errors
    /// When the server does not answer or has none.
    pub async fn read(connection: &mut Connection) -> Result<Self, DirectoryError> {
        let server = connection.server().clone();
        let entry = connection.read(&SearchRequest::read("", ATTRIBUTES)).await?;
        entry
            .map(|entry| Self::of(&entry))
            .ok_or_else(|| DirectoryError::misbehaved(&server, "search", "it has no rootDSE"))
    }

    fn of(entry: &Entry) -> Self {
        let text = |name: &str| entry.text(name).map(|text| text.into_owned());
        let number = |name: &str| text(name).and_then(|text| text.trim().parse().ok());
        Self {
            object_classes: entry.texts("objectClass"),
            naming_contexts: entry.texts("namingContexts"),
            default_naming_context: text("defaultNamingContext")
                .or_else(|| text("nsslapd-defaultnamingcontext"))
                .filter(|name| !name.is_empty()),
            controls: entry.texts("supportedControl"),
            capabilities: entry.texts("supportedCapabilities"),
            vendor: [text("vendorName"), text("vendorVersion")]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            dns_host_name: text("dnsHostName"),
            service_name: text("dsServiceName"),
            highest_usn: number("highestCommittedUSN"),
            synchronized: text("isSynchronized").is_none_or(|flag| !flag.eq_ignore_ascii_case("FALSE")),
            changelog: text("changelog"),
            first_change: number("firstChangeNumber"),
            last_change: number("lastChangeNumber"),
        }
    }

    /// Whether the server says it knows a control.
    pub fn supports(&self, oid: &str) -> bool {
        self.controls.iter().any(|known| known == oid)
    }

    /// Where searches start unless settings say otherwise.
    pub fn base(&self) -> String {
        self.default_naming_context
            .clone()
            .or_else(|| self.naming_contexts.iter().find(|name| !name.is_empty()).cloned())
            .unwrap_or_default()
    }
}
