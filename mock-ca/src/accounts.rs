//! Who may sign in at the front ends that ask, and who may enrol.

use std::collections::HashMap;
use std::sync::Arc;

use causeway_mock_kit::world::{Company, PersonState};
use serde::{Deserialize, Serialize};

/// Someone who has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Short login, as journals name it.
    pub login: String,
    pub upn: String,
    /// Position in the company, for people.
    pub person: Option<usize>,
    /// May enrol on every template: on Windows, the right Enroll on NDES's three.
    pub enrols: bool,
}

/// Why somebody may not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    #[error("unknown user")]
    UnknownUser,
    #[error("bad password")]
    BadPassword,
    #[error("account not usable")]
    NotUsable,
}

/// An account besides the people of the company and the service account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    pub login: String,
    pub password: String,
    /// May enrol. Default true.
    #[serde(default = "yes")]
    pub enrols: bool,
}

fn yes() -> bool {
    true
}

impl std::fmt::Debug for AccountConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountConfig")
            .field("login", &self.login)
            .field("enrols", &self.enrols)
            .finish_non_exhaustive()
    }
}

/// Every account.
pub struct Accounts {
    company: Arc<Company>,
    /// Lower-case login and address of every person to position.
    people: HashMap<String, usize>,
    /// By lower-case login.
    others: HashMap<String, AccountConfig>,
}

impl Accounts {
    pub(crate) fn new(company: Arc<Company>, more: &[AccountConfig]) -> Self {
        let mut people = HashMap::with_capacity(company.people.len() * 2);
        for (at, person) in company.people.iter().enumerate() {
            people.insert(person.login.to_ascii_lowercase(), at);
            people.insert(person.mail.to_ascii_lowercase(), at);
        }
        let service = &company.service_account;
        let service =
            AccountConfig { login: service.login.to_owned(), password: service.password(), enrols: true };
        let others = std::iter::once(service).chain(more.iter().cloned());
        let others = others.map(|account| (account.login.to_ascii_lowercase(), account)).collect();
        Self { company, people, others }
    }

    /// Checks a password. An empty one is a mistake, never a proof.
    ///
    /// # Errors
    /// [`SignInError`]
    pub fn sign_in(&self, name: &str, password: &str) -> Result<Account, SignInError> {
        let own = self.password_of(name).ok_or(SignInError::UnknownUser)?;
        let same =
            aws_lc_rs::constant_time::verify_slices_are_equal(own.as_bytes(), password.as_bytes()).is_ok();
        if password.is_empty() || !same {
            return Err(SignInError::BadPassword);
        }
        self.admit(name)
    }

    /// The password of an account, for schemes that prove knowledge of it without showing it.
    pub fn password_of(&self, name: &str) -> Option<String> {
        match self.who(name)? {
            Who::Person(at) => Some(self.company.people[at].password()),
            Who::Other(account) => Some(account.password.clone()),
        }
    }

    /// Whether an account that has proven its password may sign in.
    ///
    /// # Errors
    /// [`SignInError`]
    pub fn admit(&self, name: &str) -> Result<Account, SignInError> {
        match self.who(name).ok_or(SignInError::UnknownUser)? {
            Who::Person(at) => {
                let person = &self.company.people[at];
                let (login, upn) = (person.login.to_string(), self.company.upn(&person.login));
                match person.state {
                    PersonState::Active => Ok(Account { login, upn, person: Some(at), enrols: false }),
                    _ => Err(SignInError::NotUsable),
                }
            }
            Who::Other(account) => Ok(Account {
                login: account.login.clone(),
                upn: self.company.upn(&account.login),
                person: None,
                enrols: account.enrols,
            }),
        }
    }

    /// Finds an account by login, UPN, address or `DOMAIN\login`.
    fn who(&self, name: &str) -> Option<Who<'_>> {
        let name = name.trim().to_ascii_lowercase();
        let domain = &self.company.domain;
        let short = match name.split_once('\\') {
            Some((given, login))
                if given.is_empty()
                    || given.eq_ignore_ascii_case(&self.company.netbios)
                    || given.eq_ignore_ascii_case(domain) =>
            {
                login
            }
            Some(_) => return None,
            None => {
                name.strip_suffix(domain.as_str()).and_then(|head| head.strip_suffix('@')).unwrap_or(&name)
            }
        };
        if let Some(account) = self.others.get(short) {
            return Some(Who::Other(account));
        }
        self.people.get(short).or_else(|| self.people.get(&name)).map(|at| Who::Person(*at))
    }
}

/// Whom a name means.
enum Who<'a> {
    Person(usize),
    Other(&'a AccountConfig),
}
