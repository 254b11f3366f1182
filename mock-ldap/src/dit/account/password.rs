//! Passwords: where they come from, how they are compared.

use std::collections::HashMap;

use crate::dit::shared::Shared;
use crate::dit::types::EntryId;

/// A password that was set, as given: plain, or with a `{SCHEME}` in front.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredPassword {
    pub(crate) secret: Vec<u8>,
    /// The one before, and until when it still opens the account.
    pub(crate) previous: Option<(Vec<u8>, i64)>,
}

impl std::fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// The passwords people start with, one behind the other: a hundred thousand cost three megabytes.
#[derive(Default)]
pub(crate) struct InitialPasswords {
    text: String,
    ends: Vec<u32>,
    first: u32,
    others: HashMap<EntryId, String>,
    manager: String,
}

impl InitialPasswords {
    pub(crate) fn new(first: u32, manager: String) -> Self {
        Self { first, manager, ..Self::default() }
    }

    pub(crate) fn push_person(&mut self, password: &str) {
        self.text.push_str(password);
        self.ends.push(self.text.len() as u32);
    }

    pub(crate) fn insert(&mut self, id: EntryId, password: String) {
        self.others.insert(id, password);
    }

    pub(crate) fn of(&self, id: EntryId) -> Option<&str> {
        let at = id.0.checked_sub(self.first).map(|at| at as usize).filter(|&at| at < self.ends.len());
        match at {
            Some(at) => {
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
                Some(&self.text[start..self.ends[at] as usize])
            }
            None => self.others.get(&id).map(String::as_str),
        }
    }

    pub(crate) fn manager(&self) -> &str {
        &self.manager
    }
}

impl Shared {
    /// What is kept of a password that a client sets, with the one before it while the grace lasts.
    pub(crate) fn new_password(&self, secret: &[u8], before: Option<Vec<u8>>) -> StoredPassword {
        let grace_ms = self.accounts().old_password_grace_secs as i64 * 1000;
        let previous = before.filter(|_| grace_ms > 0).map(|old| (old, self.clock.now_ms() + grace_ms));
        StoredPassword { secret: secret.to_vec(), previous }
    }
}

/// Compares without telling by time how much was right.
pub(super) fn same(expected: &[u8], given: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, given).is_ok()
}

/// Plain, or RFC 2307 userPassword schemes.
pub(crate) fn verify(stored: &[u8], given: &[u8]) -> bool {
    use aws_lc_rs::digest;
    use base64::Engine as _;
    let scheme =
        |name: &str| stored.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name.as_bytes()));
    let decode = |name: &str| {
        base64::engine::general_purpose::STANDARD.decode(&stored[name.len()..]).unwrap_or_default()
    };
    if scheme("{SSHA}").is_some() || scheme("{SHA}").is_some() {
        let bytes = decode(if scheme("{SSHA}").is_some() { "{SSHA}" } else { "{SHA}" });
        let Some((hash, salt)) = bytes.split_at_checked(20) else { return false };
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(given);
        context.update(salt);
        return same(hash, context.finish().as_ref());
    }
    match scheme("{CLEARTEXT}") {
        Some(head) => same(&stored[head.len()..], given),
        None => same(stored, given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_of_rfc_2307() {
        // SHA-1 of "secret" with the salt "salt", computed with another tool.
        assert!(verify(b"plain", b"plain") && !verify(b"plain", b"Plain"));
        assert!(verify(b"{cleartext}x", b"x"));
        assert!(verify(b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"secret"));
        assert!(!verify(b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"Secret"));
        assert!(!verify(b"{SSHA}AAAA", b"secret"), "too short to hold a hash");
    }

    #[test]
    fn initial_passwords_are_found_by_number() {
        let mut passwords = InitialPasswords::new(10, "boss".to_owned());
        passwords.push_person("one");
        passwords.push_person("two");
        passwords.insert(EntryId(3), "svc".to_owned());
        let found = [9, 10, 11, 12, 3].map(|id| passwords.of(EntryId(id)));
        assert_eq!(found, [None, Some("one"), Some("two"), None, Some("svc")]);
    }
}
