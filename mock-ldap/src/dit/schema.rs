//! Attribute types and object classes of one personality, read from the table files under `data/`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of an attribute type within one schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct AttrId(pub(crate) u16);

impl AttrId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How values of an attribute compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Syntax {
    CaseIgnore,
    CaseExact,
    Integer,
    Boolean,
    Octets,
    Dn,
    Oid,
    Time,
    Telephone,
    Numeric,
    Sid,
    Descriptor,
}

impl Syntax {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "str" => Self::CaseIgnore,
            "exact" => Self::CaseExact,
            "int" => Self::Integer,
            "bool" => Self::Boolean,
            "octet" => Self::Octets,
            "dn" => Self::Dn,
            "oid" => Self::Oid,
            "time" => Self::Time,
            "tel" => Self::Telephone,
            "num" => Self::Numeric,
            "sid" => Self::Sid,
            "sd" => Self::Descriptor,
            _ => return None,
        })
    }

    /// Syntax OID, equality, ordering and substrings rules for the RFC 4512 description.
    fn description(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::CaseIgnore => (
                "1.3.6.1.4.1.1466.115.121.1.15",
                "caseIgnoreMatch",
                "caseIgnoreOrderingMatch",
                "caseIgnoreSubstringsMatch",
            ),
            Self::CaseExact => (
                "1.3.6.1.4.1.1466.115.121.1.15",
                "caseExactMatch",
                "caseExactOrderingMatch",
                "caseExactSubstringsMatch",
            ),
            Self::Integer => ("1.3.6.1.4.1.1466.115.121.1.27", "integerMatch", "integerOrderingMatch", ""),
            Self::Boolean => ("1.3.6.1.4.1.1466.115.121.1.7", "booleanMatch", "", ""),
            Self::Octets | Self::Sid | Self::Descriptor => {
                ("1.3.6.1.4.1.1466.115.121.1.40", "octetStringMatch", "octetStringOrderingMatch", "")
            }
            Self::Dn => ("1.3.6.1.4.1.1466.115.121.1.12", "distinguishedNameMatch", "", ""),
            Self::Oid => ("1.3.6.1.4.1.1466.115.121.1.38", "objectIdentifierMatch", "", ""),
            Self::Time => {
                ("1.3.6.1.4.1.1466.115.121.1.24", "generalizedTimeMatch", "generalizedTimeOrderingMatch", "")
            }
            Self::Telephone => (
                "1.3.6.1.4.1.1466.115.121.1.50",
                "telephoneNumberMatch",
                "",
                "telephoneNumberSubstringsMatch",
            ),
            Self::Numeric => {
                ("1.3.6.1.4.1.1466.115.121.1.36", "numericStringMatch", "numericStringOrderingMatch", "")
            }
        }
    }
}

/// Where the values of an attribute come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Written and kept as bytes.
    Stored,
    /// Names of objects, kept as their numbers so that renames and deletions follow.
    Link,
    /// The objects that name this one in the given links.
    BackLink(Vec<AttrId>),
    /// Derived from the object's state.
    Computed(Computed),
}

macro_rules! computed {
    ($($variant:ident = $word:literal),* $(,)?) => {
        /// Attributes that are derived and not stored. The word is the one of the table files.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) enum Computed { $($variant),* }
        impl Computed {
            fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

computed! {
    ObjectClass = "object_class", StructuralClass = "structural_class", ObjectCategory = "object_category",
    Guid = "guid", UuidText = "uuid_text", NsUniqueId = "ns_unique_id", DominoUnid = "domino_unid",
    RdnValue = "rdn_value", EntryDn = "entry_dn", CanonicalName = "canonical_name", ParentGuid = "parent_guid",
    PrincipalName = "principal_name", UsnCreated = "usn_created", UsnChanged = "usn_changed", EntryUsn = "entry_usn",
    WhenCreated = "when_created", WhenChanged = "when_changed", CreateTimestamp = "create_timestamp",
    ModifyTimestamp = "modify_timestamp", EntryCsn = "entry_csn", ContextCsn = "context_csn",
    ManagerName = "manager_name", SubschemaSubentry = "subschema_subentry", HasSubordinates = "has_subordinates",
    NumSubordinates = "num_subordinates", EntryNumber = "entry_number", ParentNumber = "parent_number",
    Revision = "revision", IsDeleted = "is_deleted", SamAccountType = "sam_account_type",
    AccountControl = "uac_computed", PrimaryGroupToken = "primary_group_token", TokenGroups = "token_groups",
    TokenGroupsGlobal = "token_groups_global", MemberOfTransitive = "member_of_transitive",
    MemberTransitive = "member_transitive", AllowedAttributes = "allowed_attributes",
    SecurityDescriptor = "security_descriptor", BadCount = "bad_count", BadTime = "bad_time",
    LastLogon = "last_logon", LastLogonTime = "last_logon_time", LogonCount = "logon_count",
    FailureTimes = "failure_times", RetryReset = "retry_reset", LockedFlag = "locked_flag",
}

impl Computed {
    /// Costly or meaningless over many objects: answered for a base-scope search only (MS-ADTS 3.1.1.4.5.19).
    pub(crate) fn base_scope_only(self) -> bool {
        matches!(
            self,
            Self::TokenGroups | Self::TokenGroupsGlobal | Self::MemberOfTransitive | Self::MemberTransitive
        )
    }
}

/// One attribute type.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    /// First the canonical spelling, which is what answers carry.
    pub(crate) names: Vec<String>,
    pub(crate) oid: String,
    pub(crate) syntax: Syntax,
    pub(crate) single: bool,
    /// Sent only when asked for by name or `+`.
    pub(crate) operational: bool,
    /// Clients may not write it.
    pub(crate) read_only: bool,
    /// In the partial attribute set of the Global Catalog.
    pub(crate) in_global_catalog: bool,
    /// Part of ambiguous name resolution.
    pub(crate) in_anr: bool,
    /// Survives deletion in a tombstone (searchFlags 0x8 and the fixed list of MS-ADTS 3.1.1.5.5.1.1).
    pub(crate) kept_on_delete: bool,
    /// Differs between the servers of a domain.
    pub(crate) local: bool,
    pub(crate) source: Source,
    /// `04 len name`, ready to be copied into an answer.
    pub(crate) name_tlv: Box<[u8]>,
}

impl Attribute {
    pub(crate) fn name(&self) -> &str {
        &self.names[0]
    }

    pub(crate) fn is_link(&self) -> bool {
        self.source == Source::Link
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClassKind {
    Abstract,
    Structural,
    Auxiliary,
}

/// One object class.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) names: Vec<String>,
    pub(crate) oid: String,
    pub(crate) kind: ClassKind,
    pub(crate) superior: Option<usize>,
    pub(crate) must: Vec<AttrId>,
    pub(crate) may: Vec<AttrId>,
    /// Naming attribute of Active Directory, preferred one elsewhere.
    pub(crate) rdn: Option<AttrId>,
    /// Active Directory: the class whose schema object is the objectCategory.
    pub(crate) category: String,
    /// Any known attribute is allowed.
    pub(crate) open: bool,
}

impl Class {
    pub(crate) fn name(&self) -> &str {
        &self.names[0]
    }
}

/// The classes of an object, shared by all objects that have the same ones.
#[derive(Debug)]
pub(crate) struct ClassSet {
    /// As shown in objectClass.
    pub(crate) shown: Vec<usize>,
    /// With all superior classes.
    pub(crate) all: Vec<usize>,
    /// The most derived structural class.
    pub(crate) structural: usize,
    /// `31 len ...` with the shown names.
    pub(crate) values_tlv: Box<[u8]>,
}

impl ClassSet {
    pub(crate) fn contains(&self, class: usize) -> bool {
        self.all.contains(&class)
    }
}

/// A schema; cheap to look things up in, shared by all servers of a directory.
#[derive(Debug)]
pub(crate) struct Schema {
    attributes: Vec<Attribute>,
    by_name: HashMap<String, AttrId>,
    classes: Vec<Class>,
    class_by_name: HashMap<String, usize>,
    /// objectClass answers the whole chain, not just what was written (Active Directory).
    pub(crate) shows_superiors: bool,
    sets: Mutex<HashMap<Vec<usize>, Arc<ClassSet>>>,
}

/// A mistake in a table file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema line `{line}`: {problem}")]
pub(crate) struct SchemaError {
    pub(crate) line: String,
    pub(crate) problem: &'static str,
}

impl Schema {
    /// Reads table files in order; a later definition of a name replaces an earlier one.
    pub(crate) fn parse(files: &[&str], shows_superiors: bool) -> Result<Self, SchemaError> {
        let mut schema = Self {
            attributes: Vec::new(),
            by_name: HashMap::new(),
            classes: Vec::new(),
            class_by_name: HashMap::new(),
            shows_superiors,
            sets: Mutex::new(HashMap::new()),
        };
        let lines: Vec<String> = files.iter().flat_map(|file| logical_lines(file)).collect();
        // Two rounds: links and classes name attributes that may be defined further down.
        for line in lines.iter().filter(|line| line.starts_with("attr ")) {
            schema.add_attribute(line)?;
        }
        for line in lines.iter().filter(|line| line.contains(" back=")) {
            schema.add_back_link(line)?;
        }
        for line in lines.iter().filter(|line| line.starts_with("class ")) {
            schema.add_class(line)?;
        }
        match lines.iter().find(|line| !line.starts_with("attr ") && !line.starts_with("class ")) {
            Some(line) => Err(error(line, "neither attr nor class")),
            None => Ok(schema),
        }
    }

    pub(crate) fn attribute(&self, id: AttrId) -> &Attribute {
        &self.attributes[id.index()]
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = (AttrId, &Attribute)> {
        (0u16..).map(AttrId).zip(&self.attributes)
    }

    pub(crate) fn len(&self) -> usize {
        self.attributes.len()
    }

    /// By any name or OID, in any case, without options.
    pub(crate) fn find(&self, name: &str) -> Option<AttrId> {
        if let Some(id) = self.by_name.get(name) {
            return Some(*id);
        }
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// An attribute the code itself relies on.
    pub(crate) fn known(&self, name: &str) -> AttrId {
        self.find(name).expect("every schema file defines the attributes the code names")
    }

    pub(crate) fn class(&self, index: usize) -> &Class {
        &self.classes[index]
    }

    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(crate) fn find_class(&self, name: &str) -> Option<usize> {
        self.class_by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// The class itself and its superiors, most general first.
    pub(crate) fn lineage(&self, class: usize) -> Vec<usize> {
        let mut chain: Vec<usize> =
            std::iter::successors(Some(class), |&index| self.classes[index].superior).collect();
        chain.reverse();
        chain
    }

    /// The shared set for these classes; `None` when no structural class is among them.
    pub(crate) fn class_set(&self, classes: &[usize]) -> Option<Arc<ClassSet>> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(classes) {
            return Some(set.clone());
        }
        let mut all = Vec::new();
        for class in classes.iter().flat_map(|&class| self.lineage(class)) {
            if !all.contains(&class) {
                all.push(class);
            }
        }
        let depth = |class: usize| self.lineage(class).len();
        let structural = all
            .iter()
            .copied()
            .filter(|&class| self.classes[class].kind == ClassKind::Structural)
            .max_by_key(|&c| depth(c))?;
        let shown = if self.shows_superiors { all.clone() } else { classes.to_vec() };
        let names: Vec<&[u8]> = shown.iter().map(|&class| self.classes[class].name().as_bytes()).collect();
        let mut values_tlv = Vec::new();
        super::tlv::put_set(&mut values_tlv, &names);
        let set = Arc::new(ClassSet { shown, all, structural, values_tlv: values_tlv.into() });
        sets.insert(classes.to_vec(), set.clone());
        Some(set)
    }

    /// RFC 4512 4.1.2 descriptions of all attribute types.
    pub(crate) fn attribute_descriptions(&self) -> Vec<String> {
        self.attributes.iter().map(describe_attribute).collect()
    }

    /// RFC 4512 4.1.1 descriptions of all object classes.
    pub(crate) fn class_descriptions(&self) -> Vec<String> {
        self.classes.iter().map(|class| self.describe_class(class)).collect()
    }

    fn describe_class(&self, class: &Class) -> String {
        let mut text = format!("( {} NAME {}", class.oid, quoted(&class.names));
        if let Some(superior) = class.superior {
            text.push_str(&format!(" SUP {}", self.classes[superior].name()));
        }
        text.push_str(match class.kind {
            ClassKind::Abstract => " ABSTRACT",
            ClassKind::Structural => " STRUCTURAL",
            ClassKind::Auxiliary => " AUXILIARY",
        });
        for (word, attributes) in [("MUST", &class.must), ("MAY", &class.may)] {
            let names: Vec<&str> = attributes.iter().map(|&id| self.attribute(id).name()).collect();
            if !names.is_empty() {
                text.push_str(&format!(" {word} ( {} )", names.join(" $ ")));
            }
        }
        text + " )"
    }

    fn add_attribute(&mut self, line: &str) -> Result<(), SchemaError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, names, oid, syntax, flags @ ..] = words.as_slice() else {
            return Err(error(line, "needs names, OID and syntax"));
        };
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let flag = |word: &str| flags.contains(&word);
        let mut source = if flag("link") { Source::Link } else { Source::Stored };
        if let Some(word) = flags.iter().find_map(|word| word.strip_prefix("calc=")) {
            source = Source::Computed(Computed::parse(word).ok_or_else(|| error(line, "unknown calc word"))?);
        }
        let mut name_tlv = Vec::new();
        super::tlv::put_octets(&mut name_tlv, names[0].as_bytes());
        let attribute = Attribute {
            oid: (*oid).to_owned(),
            syntax: Syntax::parse(syntax).ok_or_else(|| error(line, "unknown syntax"))?,
            single: !flag("multi"),
            operational: flag("op"),
            read_only: flag("ro"),
            in_global_catalog: flag("gc"),
            in_anr: flag("anr"),
            kept_on_delete: flag("keep"),
            local: flag("local"),
            source,
            name_tlv: name_tlv.into(),
            names,
        };
        let id = match self.by_name.get(&attribute.names[0].to_ascii_lowercase()) {
            Some(&id) => id,
            None => {
                AttrId(u16::try_from(self.attributes.len()).map_err(|_| error(line, "too many attributes"))?)
            }
        };
        for name in attribute.names.iter().chain([&attribute.oid]) {
            self.by_name.insert(name.to_ascii_lowercase(), id);
        }
        match self.attributes.get_mut(id.index()) {
            Some(slot) => *slot = attribute,
            None => self.attributes.push(attribute),
        }
        Ok(())
    }

    fn add_back_link(&mut self, line: &str) -> Result<(), SchemaError> {
        let mut words = line.split_whitespace();
        let name = words.nth(1).and_then(|names| names.split(',').next()).unwrap_or_default();
        let forward = words.find_map(|word| word.strip_prefix("back=")).unwrap_or_default();
        let links = forward.split(',').map(|name| self.find(name)).collect::<Option<Vec<_>>>();
        let links = links.ok_or_else(|| error(line, "back= names an unknown attribute"))?;
        let id = self.find(name).ok_or_else(|| error(line, "unknown attribute"))?;
        self.attributes[id.index()].source = Source::BackLink(links);
        Ok(())
    }

    fn add_class(&mut self, line: &str) -> Result<(), SchemaError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, names, oid, kind, superior, options @ ..] = words.as_slice() else {
            return Err(error(line, "needs names, OID, kind and superior"));
        };
        let option = |word: &str| options.iter().find_map(|option| option.strip_prefix(word));
        let list = |word: &str| {
            let names =
                option(word).into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
            names
                .map(|name| self.find(name))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| error(line, "unknown attribute"))
        };
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let class = Class {
            oid: (*oid).to_owned(),
            kind: match *kind {
                "abstract" => ClassKind::Abstract,
                "structural" => ClassKind::Structural,
                "auxiliary" => ClassKind::Auxiliary,
                _ => return Err(error(line, "unknown kind")),
            },
            superior: match *superior {
                "-" => None,
                name => Some(self.find_class(name).ok_or_else(|| error(line, "unknown superior"))?),
            },
            must: list("must=")?,
            may: list("may=")?,
            rdn: option("rdn=").and_then(|name| self.find(name)),
            category: option("category=").unwrap_or(&names[0]).to_owned(),
            open: options.contains(&"open"),
            names,
        };
        let index = self.find_class(class.name()).unwrap_or(self.classes.len());
        for name in class.names.iter().chain([&class.oid]) {
            self.class_by_name.insert(name.to_ascii_lowercase(), index);
        }
        match self.classes.get_mut(index) {
            Some(slot) => *slot = class,
            None => self.classes.push(class),
        }
        Ok(())
    }
}

fn describe_attribute(attribute: &Attribute) -> String {
    let (syntax, equality, ordering, substrings) = attribute.syntax.description();
    let mut text = format!("( {} NAME {}", attribute.oid, quoted(&attribute.names));
    for (word, rule) in [("EQUALITY", equality), ("ORDERING", ordering), ("SUBSTR", substrings)] {
        if !rule.is_empty() {
            text.push_str(&format!(" {word} {rule}"));
        }
    }
    text.push_str(&format!(" SYNTAX {syntax}"));
    if attribute.single {
        text.push_str(" SINGLE-VALUE");
    }
    if attribute.read_only {
        text.push_str(" NO-USER-MODIFICATION");
    }
    // RFC 4512 4.1.2: NO-USER-MODIFICATION requires an operational usage.
    if attribute.operational || attribute.read_only {
        text.push_str(" USAGE directoryOperation");
    }
    text + " )"
}

fn quoted(names: &[String]) -> String {
    match names {
        [only] => format!("'{only}'"),
        many => format!("( {} )", many.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" ")),
    }
}

fn logical_lines(file: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match lines.last_mut() {
            // A list that ends in a comma goes on without a blank in between.
            Some(last) if line.starts_with(' ') && last.ends_with(',') => last.push_str(line.trim()),
            Some(last) if line.starts_with(' ') => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.trim_end().to_owned()),
        }
    }
    lines
}

fn error(line: &str, problem: &'static str) -> SchemaError {
    SchemaError { line: line.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = include_str!("../../data/common.schema");

    #[test]
    fn names_oids_and_case_find_one_attribute() {
        let schema = Schema::parse(&[COMMON], false).unwrap();
        let cn = schema.known("cn");
        assert_eq!(["CN", "commonname", "2.5.4.3"].map(|name| schema.find(name)), [Some(cn); 3]);
        assert_eq!(schema.find("nosuchthing"), None);
    }

    #[test]
    fn descriptions_follow_rfc_4512() {
        let schema = Schema::parse(&[COMMON], false).unwrap();
        let cn = describe_attribute(schema.attribute(schema.known("cn")));
        assert_eq!(
            cn,
            "( 2.5.4.3 NAME ( 'cn' 'commonName' ) EQUALITY caseIgnoreMatch ORDERING caseIgnoreOrderingMatch SUBSTR \
             caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )"
        );
        let top = schema.find_class("person").unwrap();
        assert_eq!(
            schema.describe_class(schema.class(top)),
            "( 2.5.6.6 NAME 'person' SUP top STRUCTURAL MUST ( sn $ cn ) MAY ( userPassword $ telephoneNumber $ seeAlso $ \
             description ) )"
        );
    }

    #[test]
    fn class_sets_are_shared_and_know_superiors() {
        let schema = Schema::parse(&[COMMON], false).unwrap();
        let person = schema.find_class("inetOrgPerson").unwrap();
        let set = schema.class_set(&[person]).unwrap();
        assert!(set.contains(schema.find_class("person").unwrap()));
        assert_eq!(set.structural, person);
        assert!(Arc::ptr_eq(&set, &schema.class_set(&[person]).unwrap()));
        assert!(schema.class_set(&[schema.find_class("dcObject").unwrap()]).is_none(), "only auxiliary");
    }

    #[test]
    fn a_mistake_names_its_line() {
        let problem = Schema::parse(&["attr x 1.2 nosuch"], false).unwrap_err();
        assert_eq!(problem.to_string(), "schema line `attr x 1.2 nosuch`: unknown syntax");
    }
}
