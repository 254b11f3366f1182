//! The rootDSE: constants of the personality, and what follows from the state of this server (MS-ADTS 3.1.1.3.2).

use std::sync::atomic::Ordering;

use bytes::BytesMut;

use super::encode::encode_made_up;
use super::made_up::{self, MadeUp};
use super::replica::Replica;
use super::time_text;
use super::types::Selection;
use crate::filter::Filter;
use crate::personality::Vendor;

/// OID of StartTLS, which is not offered on a connection that has TLS.
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

impl Replica {
    /// The empty DN, in the layout of `encode_entry`. `tls`: this connection is protected.
    pub fn root_dse(&self, selection: &Selection, tls: bool, out: &mut BytesMut) {
        encode_made_up("", &self.root_dse_attributes(tls), selection, out);
    }

    /// Whether a base-scope search of the empty DN with this filter shows the rootDSE.
    pub fn root_dse_matches(&self, filter: &Filter) -> bool {
        let attributes = self.root_dse_attributes(false);
        made_up::holds(filter, &attributes, &self.shared.schema, self.shared.folding) == Some(true)
    }

    fn root_dse_attributes(&self, tls: bool) -> Vec<MadeUp> {
        self.catch_up();
        let personality = &self.shared.personality;
        let active_directory = personality.is_active_directory();
        let extensions =
            personality.supported_extensions.iter().filter(|oid| !tls || oid.as_str() != START_TLS);
        let mut attributes = vec![
            MadeUp::new("supportedControl", personality.supported_controls.iter().map(String::as_str)),
            MadeUp::new("supportedExtension", extensions.map(String::as_str)),
            MadeUp::new("supportedSASLMechanisms", personality.sasl_mechanisms.iter().map(String::as_str)),
            MadeUp::new("supportedFeatures", personality.supported_features.iter().map(String::as_str)),
            MadeUp::new("subschemaSubentry", [self.shared.naming.subschema.as_str()]),
        ];
        for (name, values) in personality.root_dse_constants() {
            let organisation = self.shared.naming.organisation.to_ascii_uppercase();
            let values = values.iter().map(|value| value.replace("{ORGANISATION}", &organisation));
            attributes.push(MadeUp::new(name, values));
        }
        if active_directory {
            self.domain_controller_attributes(&mut attributes);
        } else {
            self.plain_attributes(&mut attributes);
            // RFC 4512 5.1: operational, so asked for by name or `+`; the object class is the exception.
            attributes
                .iter_mut()
                .for_each(|attribute| attribute.operational = attribute.name != "objectClass");
        }
        attributes.retain(|attribute| !attribute.values.is_empty());
        attributes
    }

    fn domain_controller_attributes(&self, attributes: &mut Vec<MadeUp>) {
        let naming = &self.shared.naming;
        let host = self.host_name();
        let dsa =
            self.shared.landmarks.dsa.get(self.index).and_then(|&dsa| self.dn_of(dsa)).unwrap_or_default();
        let server = dsa.split_once(',').map_or("", |(_, server)| server);
        let zones = ["DomainDnsZones", "ForestDnsZones"].map(|zone| format!("DC={zone},{}", naming.base));
        let contexts = [naming.base.clone(), naming.configuration.clone(), naming.schema.clone()];
        let synchronized = if self.synchronized.load(Ordering::Relaxed) { "TRUE" } else { "FALSE" };
        let short = self.name.to_ascii_lowercase();
        let mut one = |name: &str, value: String| attributes.push(MadeUp::new(name, [value]));
        one("defaultNamingContext", naming.base.clone());
        one("rootDomainNamingContext", naming.base.clone());
        one("configurationNamingContext", naming.configuration.clone());
        one("schemaNamingContext", naming.schema.clone());
        one("dnsHostName", host);
        one("ldapServiceName", format!("{}:{short}$@{}", naming.domain, naming.domain.to_ascii_uppercase()));
        one("serverName", server.to_owned());
        one("currentTime", time_text::generalized_ad(self.shared.clock.now_ms()));
        one("highestCommittedUSN", self.highest_usn().to_string());
        one("isSynchronized", synchronized.to_owned());
        one("dsServiceName", dsa);
        attributes.push(MadeUp::new("namingContexts", contexts.into_iter().chain(zones)));
    }

    fn plain_attributes(&self, attributes: &mut Vec<MadeUp>) {
        let naming = &self.shared.naming;
        let vendor = self.shared.personality.vendor;
        match vendor {
            Vendor::Domino => attributes.push(MadeUp::new("namingContexts", [""])),
            _ => attributes.push(MadeUp::new("namingContexts", [naming.base.as_str()])),
        }
        if matches!(vendor, Vendor::Ds389 | Vendor::Oracle) {
            let (first, last) = self.changelog_bounds();
            attributes.push(MadeUp::new("changeLog", ["cn=changelog"]));
            attributes.push(MadeUp::new("firstChangeNumber", [first.to_string()]));
            attributes.push(MadeUp::new("lastChangeNumber", [last.to_string()]));
            attributes.push(MadeUp::new("defaultNamingContext", [naming.base.as_str()]));
        }
        if vendor == Vendor::EDirectory {
            attributes.push(MadeUp::new("dsaName", [format!("cn={},{}", self.name, naming.base)]));
        }
    }
}
