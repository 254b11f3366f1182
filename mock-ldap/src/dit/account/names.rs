//! Whom a bind name means.

use crate::dit::condition::Condition;
use crate::dit::matching;
use crate::dit::reader::rdn_value;
use crate::dit::replica::Replica;
use crate::dit::schema::AttrId;
use crate::dit::types::{EntryId, LdapFailure, ResultCode};
use crate::dn::{self, Dn};
use crate::personality::Vendor;

impl Replica {
    /// The one account a bind name means, in the forms of the personality.
    pub(super) fn account_named(&self, name: &[u8]) -> Result<Option<EntryId>, LdapFailure> {
        let text = String::from_utf8_lossy(name);
        let by_dn =
            || Dn::parse(name).ok().and_then(|dn| self.read(|reader| reader.resolve(&dn::Name::Path(dn))));
        match self.shared.personality.vendor {
            Vendor::ActiveDirectory => Ok(by_dn().or_else(|| self.windows_name(&text))),
            Vendor::Domino => {
                let known = &self.shared.known;
                let forms = [known.short_name, known.mail, known.cn, known.full_name];
                Ok(by_dn().or_else(|| {
                    forms.into_iter().flatten().find_map(|attribute| self.by_text(attribute, &text))
                }))
            }
            _ => match Dn::parse(name) {
                Ok(_) => Ok(by_dn()),
                Err(_) => {
                    Err(LdapFailure::new(ResultCode::INVALID_DN_SYNTAX, self.shared.text("bad_dn", &[])))
                }
            },
        }
    }

    /// The name forms of MS-ADTS 5.1.1.1.1, in turn. A plain account name is not among them.
    fn windows_name(&self, text: &str) -> Option<EntryId> {
        let known = &self.shared.known;
        if let Some(id) = self.user_principal(text) {
            return Some(id);
        }
        if let Some((domain, account)) = text.split_once('\\') {
            let naming = &self.shared.naming;
            let ours =
                domain.eq_ignore_ascii_case(&naming.netbios) || domain.eq_ignore_ascii_case(&naming.domain);
            return ours.then(|| self.by_account_name(account)).flatten();
        }
        if text.contains('/')
            && let Some(id) = self.canonical(text)
        {
            return Some(id);
        }
        if let Some(guid) = dn::parse_guid(text) {
            return self.by_bytes(known.object_guid?, &guid);
        }
        if let Some(sid) =
            text.get(..2).filter(|start| start.eq_ignore_ascii_case("S-")).and_then(|_| dn::parse_sid(text))
        {
            return self.by_bytes(known.object_sid?, &sid);
        }
        let unique = [known.display_name, known.service_principal_name].into_iter().flatten();
        unique.into_iter().find_map(|attribute| self.by_unique_text(attribute, text))
    }

    pub(super) fn user_principal(&self, text: &str) -> Option<EntryId> {
        let explicit = self.by_unique_text(self.shared.known.user_principal_name?, text);
        explicit.or_else(|| {
            let (account, domain) = text.rsplit_once('@')?;
            domain
                .eq_ignore_ascii_case(&self.shared.naming.domain)
                .then(|| self.by_account_name(account))
                .flatten()
        })
    }

    pub(super) fn by_account_name(&self, account: &str) -> Option<EntryId> {
        let known = &self.shared.known;
        self.by_unique_text(known.sam_account_name.or(known.uid)?, account)
    }

    /// `acme.example/Berlin/Jane Doe`, walked from the head of the domain.
    fn canonical(&self, text: &str) -> Option<EntryId> {
        let (domain, path) = text.split_once('/')?;
        if !domain.eq_ignore_ascii_case(&self.shared.naming.domain) {
            return None;
        }
        self.read(|reader| {
            let mut at = self.shared.landmarks.base?;
            for part in path.replace("\\/", "\0").split('/') {
                let value = part.replace('\0', "/");
                let folded = self.shared.folding.fold(value.as_bytes());
                let is_it = |&&child: &&EntryId| {
                    let node = reader.tree.node(child);
                    let name = node.and_then(|node| rdn_value(&node.entry.rdn));
                    name.is_some_and(|name| self.shared.folding.fold(&name) == folded)
                };
                at = *reader.tree.children(at).iter().find(is_it)?;
            }
            Some(at)
        })
    }

    pub(crate) fn by_text(&self, attribute: AttrId, text: &str) -> Option<EntryId> {
        let syntax = self.shared.schema.attribute(attribute).syntax;
        let normalized = matching::normalize(syntax, self.shared.folding, text.as_bytes());
        self.by_bytes(attribute, &normalized)
    }

    /// As [`Self::by_text`], but two objects with the value are as good as none.
    fn by_unique_text(&self, attribute: AttrId, text: &str) -> Option<EntryId> {
        let syntax = self.shared.schema.attribute(attribute).syntax;
        let normalized = matching::normalize(syntax, self.shared.folding, text.as_bytes()).into_owned();
        self.ensure_index(attribute);
        self.read(|reader| {
            let condition = Condition::Equals { attribute, value: normalized };
            let ids = condition.candidates(reader)?;
            let live = |id: &EntryId| {
                let node = reader.tree.node(*id);
                node.is_some_and(|node| {
                    !node.entry.deleted && condition.holds(reader, *id, node) == Some(true)
                })
            };
            let mut matching = ids.into_iter().filter(live);
            matching.next().filter(|_| matching.next().is_none())
        })
    }

    fn by_bytes(&self, attribute: AttrId, normalized: &[u8]) -> Option<EntryId> {
        self.ensure_index(attribute);
        self.read(|reader| {
            let found = reader.by_value(attribute, normalized)?;
            reader.tree.node(found).is_some_and(|node| !node.entry.deleted).then_some(found)
        })
    }
}
