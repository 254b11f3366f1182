//! What people type into the name field, and what it asks the directory for.

use crate::directory::dn;
use crate::directory::filter::Filter;
use crate::directory::personality::Personality;

/// A typed name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed<'a> {
    /// `asmith`
    Login(&'a str),
    /// `asmith@acme.example`: a mail address, a UPN, or a login with the domain's name.
    Address { whole: &'a str, local: &'a str, domain: &'a str },
    /// `ACME\asmith`, or a login with a backslash in it where a directory allows that.
    Domain { whole: &'a str, domain: &'a str, login: &'a str },
    /// `CN=Alice Smith,OU=Sales,DC=acme,DC=example`
    Dn(&'a str),
}

impl<'a> Typed<'a> {
    /// A name is a DN only where that is allowed; elsewhere it is an odd login, and unknown.
    pub(super) fn read(name: &'a str, accept_dn: bool) -> Self {
        if accept_dn && name.contains('=') && name.contains(',') {
            return Self::Dn(name);
        }
        if let Some((domain, login)) = name.split_once('\\')
            && !domain.is_empty()
            && !login.is_empty()
        {
            return Self::Domain { whole: name, domain, login };
        }
        match name.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() => {
                Self::Address { whole: name, local, domain }
            }
            _ => Self::Login(name),
        }
    }

    /// As it was typed.
    pub(super) fn text(&self) -> String {
        match *self {
            Self::Login(text)
            | Self::Address { whole: text, .. }
            | Self::Domain { whole: text, .. }
            | Self::Dn(text) => text.to_owned(),
        }
    }

    /// The login in it, for templates.
    pub(super) fn login(&self) -> &'a str {
        match *self {
            Self::Login(login) | Self::Domain { login, .. } | Self::Dn(login) => login,
            Self::Address { local, .. } => local,
        }
    }

    /// What to search for; `None` when the name belongs to another domain.
    pub(super) fn filter(&self, personality: &Personality, domains: &Domains) -> Option<Filter> {
        let login =
            |text: &str| personality.login.iter().map(|name| Filter::equals(name, text)).collect::<Vec<_>>();
        match *self {
            Self::Login(text) => Some(Filter::any(login(text))),
            Self::Domain { whole, domain, login: text } => {
                // Where a login may have a backslash, which Active Directory forbids, the whole text can be one.
                let mut any = if personality.upn.is_none() { login(whole) } else { Vec::new() };
                if domains.is_ours(domain) {
                    any.extend(login(text));
                }
                (!any.is_empty()).then(|| Filter::any(any))
            }
            Self::Address { whole, local, domain } => {
                let mut any = login(whole);
                any.push(Filter::equals(&personality.mail, whole));
                if let Some(upn) = &personality.upn {
                    any.push(Filter::equals(upn, whole));
                }
                if let Some(addresses) = &personality.proxy_addresses {
                    any.push(Filter::equals(addresses, format!("smtp:{whole}")));
                }
                // The implicit UPN: sAMAccountName and the domain's DNS name (MS-ADTS 5.1.1.1.1).
                if domains.dns.as_deref().is_some_and(|dns| dns.eq_ignore_ascii_case(domain)) {
                    any.extend(login(local));
                }
                Some(Filter::any(any))
            }
            Self::Dn(_) => Some(Filter::present("objectClass")),
        }
    }
}

/// Names of the domain we ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains {
    /// `acme.example`
    pub(super) dns: Option<String>,
    /// `ACME`, where it could be read.
    pub(super) netbios: Option<String>,
}

impl Domains {
    /// The DNS name that a base DN spells.
    pub(super) fn of_base(base: &str) -> Self {
        let mut labels = Vec::new();
        let mut rest = Some(base);
        while let Some(name) = rest {
            if name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("dc=")) {
                labels.push(dn::leaf_value(name));
            }
            rest = dn::parent(name);
        }
        Self { dns: (!labels.is_empty()).then(|| labels.join(".")), netbios: None }
    }

    fn is_ours(&self, domain: &str) -> bool {
        let is =
            |name: &Option<String>| name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(domain));
        // Where the NetBIOS name could not be read, any is believed: the search below our base decides.
        self.netbios.is_none() || is(&self.netbios) || is(&self.dns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        assert_eq!(Typed::read("asmith", false), Typed::Login("asmith"));
        assert_eq!(
            Typed::read("a@b@acme.example", false),
            Typed::Address { whole: "a@b@acme.example", local: "a@b", domain: "acme.example" }
        );
        assert_eq!(
            Typed::read("ACME\\asmith", false),
            Typed::Domain { whole: "ACME\\asmith", domain: "ACME", login: "asmith" }
        );
        assert_eq!(Typed::read("\\asmith", false), Typed::Login("\\asmith"));
        assert_eq!(Typed::read("CN=a,DC=x", false), Typed::Login("CN=a,DC=x"));
        assert_eq!(Typed::read("CN=a,DC=x", true), Typed::Dn("CN=a,DC=x"));
    }

    #[test]
    fn a_login_of_another_domain_is_not_searched_for() {
        let personality = Personality::named("active_directory").unwrap();
        let mut domains = Domains::of_base("OU=x,DC=acme,DC=example");
        assert_eq!(domains.dns.as_deref(), Some("acme.example"));
        domains.netbios = Some("ACME".into());
        assert!(Typed::read("acme\\asmith", false).filter(&personality, &domains).is_some());
        assert!(Typed::read("ACME.example\\asmith", false).filter(&personality, &domains).is_some());
        assert!(Typed::read("OTHER\\asmith", false).filter(&personality, &domains).is_none());
    }
}
