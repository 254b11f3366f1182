//! Setting passwords: unicodePwd (MS-ADTS 3.1.1.3.1.5), userPassword, and the extended operation of RFC 3062.

use std::sync::atomic::Ordering;

use causeway_mock_kit::world::mix_two;

use super::Writer;
use super::modify::Progress;
use crate::dit::account::verify;
use crate::dit::replica::Replica;
use crate::dit::schema::AttrId;
use crate::dit::time_text;
use crate::dit::types::{EntryId, Identity, LdapFailure, ModOp, Modification, ResultCode, WriteOp};
use crate::personality::Vendor;

impl Replica {
    /// RFC 3062. `user` none: the bound identity. Returns the generated password when `new` is none.
    pub fn change_password(
        &self,
        who: &Identity,
        user: Option<&[u8]>,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        secure: bool,
    ) -> Result<Option<String>, LdapFailure> {
        let dn = match user {
            Some(user) => String::from_utf8_lossy(user)
                .strip_prefix("dn:")
                .map_or_else(|| user.to_vec(), |dn| dn.as_bytes().to_vec()),
            None => who.dn().as_bytes().to_vec(),
        };
        if dn.is_empty() {
            let text = "only authenticated users may change passwords";
            return Err(LdapFailure::new(ResultCode::UNWILLING_TO_PERFORM, text));
        }
        let generated = new.is_none().then(|| {
            let number = self.shared.next_uuid.fetch_add(1, Ordering::Relaxed);
            format!("Gen-{:016x}", mix_two(self.shared.seed, number))
        });
        let secret = new.map_or_else(|| generated.clone().unwrap_or_default().into_bytes(), <[u8]>::to_vec);
        let windows = self.shared.personality.is_active_directory();
        let attribute = if windows { "unicodePwd" } else { "userPassword" };
        let value = |secret: &[u8]| if windows { quoted(secret) } else { secret.to_vec() };
        let modification = |op, secret: &[u8]| Modification {
            op,
            attribute: attribute.to_owned(),
            values: vec![value(secret)],
        };
        let changes = match old {
            Some(old) => vec![modification(ModOp::Delete, old), modification(ModOp::Add, &secret)],
            None => vec![modification(ModOp::Replace, &secret)],
        };
        self.write(WriteOp::Modify { dn, changes, permissive: false }, who, secure)?;
        Ok(generated)
    }
}

/// A password in the form unicodePwd wants: in quotes, UTF-16, little endian.
fn quoted(secret: &[u8]) -> Vec<u8> {
    format!("\"{}\"", String::from_utf8_lossy(secret)).encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The password inside a unicodePwd value; `None` when it is not quoted UTF-16.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    if !value.len().is_multiple_of(2) {
        return None;
    }
    let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(&units).ok()?;
    Some(text.strip_prefix('"')?.strip_suffix('"')?.as_bytes().to_vec())
}

impl Writer<'_> {
    pub(super) fn is_password(&self, attribute: AttrId) -> bool {
        let known = &self.replica.shared.known;
        [known.unicode_pwd, known.user_password].contains(&Some(attribute))
    }

    /// The attribute under which a password change is logged and replicated.
    pub(super) fn password_attribute(&self) -> Option<AttrId> {
        let known = &self.replica.shared.known;
        known.unicode_pwd.or(known.user_password)
    }

    /// The password in an add; `None` when the attribute is none.
    pub(super) fn secret_of(
        &self,
        attribute: AttrId,
        values: &[Vec<u8>],
    ) -> Result<Option<Vec<u8>>, LdapFailure> {
        if !self.is_password(attribute) {
            return Ok(None);
        }
        let Some(value) = values.first() else { return Ok(None) };
        let secret = self.decode(attribute, value)?;
        self.check_quality(&secret)?;
        Ok(Some(secret))
    }

    fn decode(&self, attribute: AttrId, value: &[u8]) -> Result<Vec<u8>, LdapFailure> {
        if Some(attribute) != self.replica.shared.known.unicode_pwd {
            return Ok(value.to_vec());
        }
        if !self.secure {
            return Err(self.refuse(ResultCode::UNWILLING_TO_PERFORM, "password_needs_tls", &[]));
        }
        unquoted(value)
            .ok_or_else(|| self.refuse(ResultCode::UNWILLING_TO_PERFORM, "password_needs_tls", &[]))
    }

    /// Only length is judged; the manager, and hashes made elsewhere, are exempt.
    fn check_quality(&self, secret: &[u8]) -> Result<(), LdapFailure> {
        let least = self.replica.shared.accounts().password_length_min as usize;
        let hashed = secret.first() == Some(&b'{') && !self.is_active_directory();
        let exempt = matches!(self.who, Identity::Manager { .. }) && !self.is_active_directory();
        if hashed || exempt || String::from_utf8_lossy(secret).chars().count() >= least {
            return Ok(());
        }
        let code = match self.vendor() {
            Vendor::ActiveDirectory => ResultCode::UNWILLING_TO_PERFORM,
            _ => ResultCode::CONSTRAINT_VIOLATION,
        };
        let mut failure = self.refuse(code, "password_policy", &[("length", &least.to_string())]);
        // passwordTooShort of the policy draft.
        failure.policy.error = Some(6);
        Err(failure)
    }

    /// One step of a modification that is about the password.
    pub(super) fn note_password(
        &self,
        progress: &mut Progress,
        attribute: AttrId,
        change: &Modification,
    ) -> Result<(), LdapFailure> {
        let value = change.values.first();
        match (change.op, value) {
            (ModOp::Delete, Some(value)) => progress.old_password = Some(self.decode(attribute, value)?),
            (ModOp::Add | ModOp::Replace, Some(value)) => {
                let secret = self.decode(attribute, value)?;
                self.check_quality(&secret)?;
                let before = self.current(progress.id);
                progress.password = Some(self.replica.shared.new_password(&secret, before));
            }
            (ModOp::Delete | ModOp::Replace, None) if !self.is_active_directory() => {
                // An empty secret opens nothing: empty passwords never get as far as a comparison.
                progress.password = Some(self.replica.shared.new_password(b"", None));
            }
            _ => return Err(self.refuse(ResultCode::UNWILLING_TO_PERFORM, "password_policy", &[])),
        }
        Ok(())
    }

    /// Checks the old password where one was named, and lets the account's state follow the new one.
    pub(super) fn settle_password(&self, progress: &mut Progress, own: bool) -> Result<(), LdapFailure> {
        if progress.old_password.is_none() && progress.password.is_none() {
            return Ok(());
        }
        if let Some(old) = &progress.old_password {
            let right = self.current(progress.id).is_some_and(|current| verify(&current, old));
            if !right {
                return Err(self.refuse(ResultCode::CONSTRAINT_VIOLATION, "password_old_wrong", &[]));
            }
        } else if own && self.is_active_directory() {
            // Without the old password it is a reset, and that takes a right the owner does not have.
            return Err(self.replica.no_access(self.who.dn()));
        }
        self.password_attribute().iter().for_each(|&attribute| progress.note(attribute));
        if progress.password.is_none() {
            progress.password = Some(self.replica.shared.new_password(b"", None));
        }
        progress.unlocked = true;
        let known = self.replica.shared.known;
        let now = self.replica.shared.clock.now_ms();
        let mut put = |attribute: Option<AttrId>, value: Option<String>| {
            if let Some(attribute) = attribute {
                progress.draft.set(attribute, value.into_iter().map(String::into_bytes).collect());
                progress.note(attribute);
            }
        };
        match self.vendor() {
            Vendor::ActiveDirectory => put(known.pwd_last_set, Some(time_text::filetime(now).to_string())),
            Vendor::OpenLdap => {
                put(known.pwd_changed, Some(time_text::generalized(now)));
                put(known.pwd_reset, None);
                put(known.pwd_locked, None);
            }
            Vendor::Ds389 | Vendor::Oracle => {
                put(known.password_expiration, None);
                put(known.pwd_reset, None);
                put(known.account_unlock, None);
            }
            Vendor::EDirectory => put(known.password_expiration, None),
            Vendor::Domino => {}
        }
        Ok(())
    }

    fn current(&self, id: EntryId) -> Option<Vec<u8>> {
        let set = self.reader.tree.passwords.get(&id).map(|stored| stored.secret.clone());
        set.or_else(|| self.replica.shared.passwords.of(id).map(|initial| initial.as_bytes().to_vec()))
    }

    /// Everybody may change the own password, and nothing else that way.
    pub(super) fn is_own_password_change(&self, dn: &[u8], changes: &[Modification]) -> bool {
        let Identity::Entry { id, .. } = self.who else { return false };
        let password = |change: &Modification| {
            self.reader.tree.schema.find(&change.attribute).is_some_and(|it| self.is_password(it))
        };
        !changes.is_empty()
            && changes.iter().all(password)
            && self.reader.tree.find(dn) == Some(*id)
            && !self.replica.rights(&self.reader, self.who).write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicode_passwords_are_quoted_utf_16() {
        assert_eq!(quoted(b"a"), b"\"\0a\0\"\0");
        assert_eq!(unquoted(b"\"\0a\0\"\0"), Some(b"a".to_vec()));
        for bad in [&b"\"\0a\0"[..], b"a\0", b"odd", b"\"\0\x00\xd8\"\0"] {
            assert_eq!(unquoted(bad), None, "{bad:?}");
        }
    }
}
