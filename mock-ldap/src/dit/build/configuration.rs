//! The Configuration and Schema naming contexts: partitions, sites, servers, policies, classes and attributes.

use super::super::reader::schema_cn;
use super::super::schema::{Attribute, Source, Syntax};
use super::super::types::EntryId;
use super::{Builder, Shape};

const SITE: &str = "Default-First-Site-Name";

/// NTDSDSA options: the server is a Global Catalog (MS-ADTS 6.1.1.2.2.1.2.1.1).
const OPTION_GLOBAL_CATALOG: &str = "1";

/// lDAPAdminLimits as shipped (MS-ADTS 3.1.1.3.4.6).
const QUERY_POLICY: [&str; 13] = [
    "MaxValRange=1500",
    "MaxReceiveBuffer=10485760",
    "MaxDatagramRecv=4096",
    "MaxPoolThreads=4",
    "MaxResultSetSize=262144",
    "MaxTempTableSize=10000",
    "MaxQueryDuration=120",
    "MaxPageSize=1000",
    "MaxNotificationPerConn=5",
    "MaxActiveQueries=20",
    "MaxConnIdleTime=900",
    "InitRecvTimeout=120",
    "MaxConnections=5000",
];

impl Builder<'_> {
    pub(super) fn configuration(&mut self, base: EntryId) {
        let naming = self.naming.clone();
        let head = self.simple(None, &naming.configuration, "configuration", &[]);
        self.partitions(head);
        self.sites(head);
        self.services(head);
        let rights = self.simple(Some(head), "CN=Extended-Rights", "container", &[]);
        let right = [("rightsGuid", "1131f6aa-9c07-11d1-f79f-00c04fc2dcd2"), ("validAccesses", "256")];
        self.simple(Some(rights), "CN=DS-Replication-Get-Changes", "controlAccessRight", &right);
        self.schema_context();
        // The roles live on the first server (MS-ADTS 6.1.5.1).
        if let (Some(&first), Some(role)) = (self.landmarks.dsa.first(), self.schema.find("fSMORoleOwner")) {
            self.tree.link_new(base, role, first);
        }
        for zone in ["DomainDnsZones", "ForestDnsZones"] {
            self.simple(None, &format!("DC={zone},{}", naming.base), "domainDNS", &[]);
        }
    }

    fn partitions(&mut self, head: EntryId) {
        let naming = self.naming.clone();
        let parent =
            self.simple(Some(head), "CN=Partitions", "crossRefContainer", &[("msDS-Behavior-Version", "7")]);
        let domain = naming.domain.as_str();
        let mut cross_ref = |rdn: &str, context: &str, root: &str, flags: &str, netbios: &str| {
            let extra =
                [("nCName", context), ("dnsRoot", root), ("systemFlags", flags), ("nETBIOSName", netbios)];
            self.simple(Some(parent), rdn, "crossRef", &extra);
        };
        cross_ref("CN=Enterprise Configuration", &naming.configuration, domain, "1", "");
        cross_ref("CN=Enterprise Schema", &naming.schema, domain, "1", "");
        cross_ref(&format!("CN={}", naming.netbios), &naming.base, domain, "3", &naming.netbios);
        for zone in ["DomainDnsZones", "ForestDnsZones"] {
            let context = format!("DC={zone},{}", naming.base);
            cross_ref(&format!("CN={zone}"), &context, &format!("{zone}.{domain}"), "5", "");
        }
    }

    fn sites(&mut self, head: EntryId) {
        let naming = self.naming.clone();
        let sites = self.simple(Some(head), "CN=Sites", "sitesContainer", &[]);
        self.simple(Some(sites), "CN=Subnets", "subnetContainer", &[]);
        self.simple(Some(sites), "CN=Inter-Site Transports", "interSiteTransportContainer", &[]);
        let site = self.simple(Some(sites), &format!("CN={SITE}"), "site", &[]);
        let servers = self.simple(Some(site), "CN=Servers", "serversContainer", &[]);
        let classes = self.classes(&["nTDSDSA"]);
        let cn = self.attribute("cn");
        let (instance, options) = (self.attribute("instanceType"), self.attribute("options"));
        let (invocation_id, masters) = (self.attribute("invocationId"), self.attribute("hasMasterNCs"));
        let domains = self.attribute("msDS-HasDomainNCs");
        let invocations = self.invocations;
        for (server, invocation) in self.spec.servers.clone().iter().zip(invocations) {
            let name = server.name.to_ascii_uppercase();
            let host = format!("{}.{}", server.name, naming.domain);
            let parent =
                self.simple(Some(servers), &format!("CN={name}"), "server", &[("dNSHostName", &host)]);
            let shape = Shape {
                parent: Some(parent),
                rdn: "CN=NTDS Settings",
                classes: &classes,
                uuid: None,
                created_ms: super::active_directory::FOUNDED_MS,
            };
            let id = self.put(&shape, |entry| {
                entry.text(cn, "NTDS Settings").number(instance, 4).text(options, OPTION_GLOBAL_CATALOG);
                entry.bytes(invocation_id, &[invocation]);
                let contexts =
                    [naming.schema.as_bytes(), naming.configuration.as_bytes(), naming.base.as_bytes()];
                entry.bytes(masters, &contexts).text(domains, &naming.base);
            });
            self.landmarks.dsa.push(id);
        }
    }

    fn services(&mut self, head: EntryId) {
        let services = self.simple(Some(head), "CN=Services", "container", &[]);
        let windows = self.simple(Some(services), "CN=Windows NT", "container", &[]);
        let service = self.simple(
            Some(windows),
            "CN=Directory Service",
            "nTDSService",
            &[("tombstoneLifetime", "180")],
        );
        let policies = self.simple(Some(service), "CN=Query-Policies", "container", &[]);
        let classes = self.classes(&["queryPolicy"]);
        let (cn, limits, instance) =
            (self.attribute("cn"), self.attribute("lDAPAdminLimits"), self.attribute("instanceType"));
        let shape = Shape {
            parent: Some(policies),
            rdn: "CN=Default Query Policy",
            classes: &classes,
            uuid: None,
            created_ms: super::active_directory::FOUNDED_MS,
        };
        let announced = &self.spec.personality.limits;
        let actual = [
            ("MaxPageSize", announced.page_size_max),
            ("MaxValRange", announced.values_max),
            ("MaxReceiveBuffer", announced.receive_buffer_max_bytes),
        ];
        let values: Vec<String> = QUERY_POLICY
            .iter()
            .map(|row| {
                let name = row.split('=').next().unwrap_or_default();
                let own = actual.iter().find(|(known, _)| *known == name);
                own.map_or_else(|| (*row).to_owned(), |(name, value)| format!("{name}={value}"))
            })
            .collect();
        self.put(&shape, |entry| {
            entry.text(cn, "Default Query Policy").number(instance, 4);
            entry.bytes(limits, &values.iter().map(String::as_bytes).collect::<Vec<_>>());
        });
    }

    fn schema_context(&mut self) {
        let naming = self.naming.clone();
        let schema = self.schema.clone();
        let head = self.simple(None, &naming.schema, "dMD", &[]);
        for class in schema.classes() {
            let category = super::super::reader::category_dn(&class.category, &naming.schema);
            let rdn = format!("CN={}", schema_cn(class.name()));
            let kind = match class.kind {
                super::super::schema::ClassKind::Structural => "1",
                super::super::schema::ClassKind::Abstract => "2",
                super::super::schema::ClassKind::Auxiliary => "3",
            };
            let superior = class.superior.map_or("top", |superior| schema.class(superior).name());
            let extra = [
                ("lDAPDisplayName", class.name()),
                ("governsID", &class.oid),
                ("objectClassCategory", kind),
                ("subClassOf", superior),
                ("defaultObjectCategory", &category),
            ];
            self.simple(Some(head), &rdn, "classSchema", &extra);
        }
        for (_, attribute) in schema.attributes() {
            self.attribute_schema(head, attribute);
        }
        let classes = self.classes(&["subSchema"]);
        let (cn, types) = (self.attribute("cn"), self.attribute("attributeTypes"));
        let (objects, instance) = (self.attribute("objectClasses"), self.attribute("instanceType"));
        let (descriptions, class_descriptions) =
            (schema.attribute_descriptions(), schema.class_descriptions());
        let shape = Shape {
            parent: Some(head),
            rdn: "CN=Aggregate",
            classes: &classes,
            uuid: None,
            created_ms: super::active_directory::FOUNDED_MS,
        };
        self.put(&shape, |entry| {
            entry.text(cn, "Aggregate").number(instance, 4);
            entry.bytes(types, &descriptions.iter().map(String::as_bytes).collect::<Vec<_>>());
            entry.bytes(objects, &class_descriptions.iter().map(String::as_bytes).collect::<Vec<_>>());
        });
    }

    fn attribute_schema(&mut self, head: EntryId, attribute: &Attribute) {
        let truth = |value: bool| if value { "TRUE" } else { "FALSE" };
        let (syntax, om) = syntax_of(attribute.syntax);
        let constructed = matches!(attribute.source, Source::Computed(_)) && attribute.operational;
        let flags = u32::from(attribute.in_anr) * 5 + u32::from(attribute.kept_on_delete) * 8;
        let flags = flags.to_string();
        let extra = [
            ("lDAPDisplayName", attribute.name()),
            ("attributeID", &attribute.oid),
            ("attributeSyntax", syntax),
            ("oMSyntax", om),
            ("isSingleValued", truth(attribute.single)),
            ("isMemberOfPartialAttributeSet", truth(attribute.in_global_catalog)),
            ("searchFlags", &flags),
            ("systemFlags", if constructed { "20" } else { "16" }),
        ];
        self.simple(Some(head), &format!("CN={}", schema_cn(attribute.name())), "attributeSchema", &extra);
    }
}

/// attributeSyntax and oMSyntax (MS-ADTS 3.1.1.2.2.2).
fn syntax_of(syntax: Syntax) -> (&'static str, &'static str) {
    match syntax {
        Syntax::Dn => ("2.5.5.1", "127"),
        Syntax::Oid => ("2.5.5.2", "6"),
        Syntax::CaseExact => ("2.5.5.3", "27"),
        Syntax::CaseIgnore | Syntax::Telephone => ("2.5.5.12", "64"),
        Syntax::Numeric => ("2.5.5.6", "18"),
        Syntax::Boolean => ("2.5.5.8", "1"),
        Syntax::Integer => ("2.5.5.9", "2"),
        Syntax::Octets => ("2.5.5.10", "4"),
        Syntax::Time => ("2.5.5.11", "24"),
        Syntax::Descriptor => ("2.5.5.15", "66"),
        Syntax::Sid => ("2.5.5.17", "4"),
    }
}
