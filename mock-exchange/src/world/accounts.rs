//! Who may sign in, and what roles they have.

use std::collections::HashMap;

use causeway_mock_kit::world::{Company, PersonState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mailbox::MailboxId;

/// Wrong passwords in a row after which an account is locked: the usual value of a company's policy.
const BAD_PASSWORDS_MAX: u32 = 10;

/// Someone who has signed in, or an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Short login, as budgets, audit entries and journals name it.
    pub login: String,
    /// The mailbox of a person; other accounts have none.
    pub mailbox: Option<MailboxId>,
    pub roles: Vec<String>,
}

/// Why somebody may not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignInError {
    UnknownUser,
    BadPassword,
    Disabled,
    Expired,
    PasswordExpired,
    MustChange,
    HoursDenied,
    LockedOut,
}

impl SignInError {
    /// As journals write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown user",
            Self::BadPassword => "bad password",
            Self::Disabled => "account disabled",
            Self::Expired => "account expired",
            Self::PasswordExpired => "password expired",
            Self::MustChange => "must change password",
            Self::HoursDenied => "not at this hour",
            Self::LockedOut => "account locked",
        }
    }
}

/// What has been changed about accounts since the company was generated, and accounts that were not.
#[derive(Clone, Default)]
pub(super) struct Accounts {
    /// Lower-case login, UPN and address of every person to position.
    by_name: HashMap<Box<str>, u32>,
    /// By lower-case login.
    extra: HashMap<String, Extra>,
    changes: HashMap<String, Change>,
    pub(super) domain: String,
    pub(super) netbios: String,
}

#[derive(Clone)]
struct Extra {
    password: String,
    roles: Vec<String>,
}

#[derive(Clone, Default)]
struct Change {
    password: Option<String>,
    refused: Option<SignInError>,
    bad_passwords: u32,
}

/// Whom a name means.
enum Who {
    Person(u32),
    Extra(String),
}

impl Accounts {
    pub(super) fn new(company: &Company) -> Self {
        let mut by_name = HashMap::with_capacity(company.people.len() * 2);
        for person in &company.people {
            by_name.insert(person.login.to_ascii_lowercase().into_boxed_str(), person.index);
            by_name.insert(person.mail.to_ascii_lowercase().into_boxed_str(), person.index);
        }
        Self {
            by_name,
            extra: HashMap::new(),
            changes: HashMap::new(),
            domain: company.domain.clone(),
            netbios: company.netbios.clone(),
        }
    }

    pub(super) fn add(&mut self, login: &str, password: String, roles: Vec<String>) {
        self.extra.insert(login.to_ascii_lowercase(), Extra { password, roles });
    }

    /// Finds a person by login, UPN, address or `DOMAIN\login`.
    pub(super) fn person(&self, name: &str) -> Option<u32> {
        match self.who(name)? {
            Who::Person(index) => Some(index),
            Who::Extra(_) => None,
        }
    }

    fn who(&self, name: &str) -> Option<Who> {
        let name = name.trim().to_ascii_lowercase();
        let short = match name.split_once('\\') {
            Some((domain, login))
                if domain.is_empty()
                    || domain.eq_ignore_ascii_case(&self.netbios)
                    || domain.eq_ignore_ascii_case(&self.domain) =>
            {
                login
            }
            Some(_) => return None,
            None => name.strip_suffix(&self.domain).and_then(|head| head.strip_suffix('@')).unwrap_or(&name),
        };
        if self.extra.contains_key(short) {
            return Some(Who::Extra(short.to_owned()));
        }
        let index = self.by_name.get(short).or_else(|| self.by_name.get(name.as_str()))?;
        Some(Who::Person(*index))
    }

    fn key(company: &Company, who: &Who) -> String {
        match who {
            Who::Person(index) => company.people[*index as usize].login.to_ascii_lowercase(),
            Who::Extra(login) => login.clone(),
        }
    }

    /// The password of an account, for schemes that prove knowledge of it without showing it.
    pub(super) fn password(&self, company: &Company, name: &str) -> Option<String> {
        let who = self.who(name)?;
        if let Some(password) =
            self.changes.get(&Self::key(company, &who)).and_then(|change| change.password.clone())
        {
            return Some(password);
        }
        Some(match who {
            Who::Person(index) => company.people[index as usize].password(),
            Who::Extra(login) => self.extra[&login].password.clone(),
        })
    }

    /// Signs in an account that has proven its password.
    pub(super) fn admit(&mut self, company: &Company, name: &str) -> Result<Account, SignInError> {
        let account = self.judge(company, name)?;
        if let Some(change) = self.changes.get_mut(&account.login.to_ascii_lowercase()) {
            change.bad_passwords = 0;
        }
        Ok(account)
    }

    /// Whether an account may sign in, its password apart.
    pub(super) fn judge(&self, company: &Company, name: &str) -> Result<Account, SignInError> {
        let who = self.who(name).ok_or(SignInError::UnknownUser)?;
        if let Some(change) = self.changes.get(&Self::key(company, &who)) {
            if change.bad_passwords >= BAD_PASSWORDS_MAX {
                return Err(SignInError::LockedOut);
            }
            if let Some(refused) = change.refused {
                return Err(refused);
            }
        }
        match who {
            Who::Extra(login) => {
                let roles = self.extra[&login].roles.clone();
                Ok(Account { login, mailbox: None, roles })
            }
            Who::Person(index) => {
                let person = &company.people[index as usize];
                let account = Account {
                    login: person.login.to_string(),
                    mailbox: Some(MailboxId(index)),
                    roles: vec!["MyBaseOptions".to_owned()],
                };
                match person.state {
                    PersonState::Active => Ok(account),
                    PersonState::Disabled => Err(SignInError::Disabled),
                    PersonState::Expired => Err(SignInError::Expired),
                    PersonState::PasswordExpired => Err(SignInError::PasswordExpired),
                    PersonState::MustChange => Err(SignInError::MustChange),
                    PersonState::HoursDenied => Err(SignInError::HoursDenied),
                }
            }
        }
    }

    /// Remembers a wrong password.
    pub(super) fn failed(&mut self, company: &Company, name: &str) {
        if let Some(who) = self.who(name) {
            self.changes.entry(Self::key(company, &who)).or_default().bad_passwords += 1;
        }
    }

    /// Wrong passwords in a row.
    pub(super) fn bad_passwords(&self, company: &Company, name: &str) -> u32 {
        let key = self.who(name).map(|who| Self::key(company, &who));
        key.and_then(|key| self.changes.get(&key)).map_or(0, |change| change.bad_passwords)
    }

    /// Gives an account another password. False when there is no such account.
    pub(super) fn set_password(&mut self, company: &Company, name: &str, password: &str) -> bool {
        let Some(who) = self.who(name) else { return false };
        let change = self.changes.entry(Self::key(company, &who)).or_default();
        change.password = Some(password.to_owned());
        change.bad_passwords = 0;
        true
    }

    /// Refuses, or admits again, an account whatever its password.
    pub(super) fn set_refused(
        &mut self,
        company: &Company,
        name: &str,
        refused: Option<SignInError>,
    ) -> bool {
        let Some(who) = self.who(name) else { return false };
        let change = self.changes.entry(Self::key(company, &who)).or_default();
        change.refused = refused;
        change.bad_passwords = 0;
        true
    }

    pub(super) fn set_roles(&mut self, name: &str, roles: Vec<String>) -> bool {
        match self.extra.get_mut(&name.to_ascii_lowercase()) {
            Some(extra) => {
                extra.roles = roles;
                true
            }
            None => false,
        }
    }

    pub(super) fn roles(&self, name: &str) -> Option<Vec<String>> {
        self.extra.get(&name.to_ascii_lowercase()).map(|extra| extra.roles.clone())
    }

    /// Login and roles of the accounts that are not people.
    pub(super) fn administrators(&self) -> Vec<(String, Vec<String>)> {
        let mut list: Vec<_> =
            self.extra.iter().map(|(login, extra)| (login.clone(), extra.roles.clone())).collect();
        list.sort();
        list
    }
}
