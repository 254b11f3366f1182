//! Keys of services in a file, as `ktutil`, `ktpass` and `samba-tool domain exportkeytab` write it (MIT's format 5.2).

use super::crypto::{Enctype, Key};

/// Entries of one file.
const ENTRIES_MAX: usize = 1_024;

/// The keys a service opens tickets with.
#[derive(Clone, Default)]
pub struct Keytab {
    /// Service in lower case (`http/mail1.acme.example`), realm, key.
    entries: Vec<(String, String, Key)>,
}

/// The file is not a keytab.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeytabError {
    /// It begins with something else.
    #[error("not a keytab of version 5.2")]
    NotKeytab,
    /// An entry is cut off or says a length it does not have.
    #[error("keytab entry {number} is malformed")]
    Malformed {
        /// From 0.
        number: usize,
    },
}

impl Keytab {
    /// Reads a file's bytes. Entries of types nobody here knows are left out.
    ///
    /// # Errors
    /// [`KeytabError`].
    pub fn read(bytes: &[u8]) -> Result<Self, KeytabError> {
        let mut rest = bytes.strip_prefix(&[5, 2]).ok_or(KeytabError::NotKeytab)?;
        let mut keytab = Self::default();
        for number in 0..ENTRIES_MAX {
            let malformed = KeytabError::Malformed { number };
            let Some((size, after)) = rest.split_first_chunk::<4>() else { break };
            let size = i32::from_be_bytes(*size);
            // A negative size is a hole where an entry was removed; 0 is the end.
            let length = usize::try_from(size.unsigned_abs()).unwrap_or(usize::MAX);
            let Some((entry, after)) = after.split_at_checked(length) else { return Err(malformed) };
            rest = after;
            match size {
                0 => break,
                1.. => keytab.entries.extend(read_entry(entry).ok_or(malformed)?),
                _ => {}
            }
        }
        Ok(keytab)
    }

    /// Adds a key of `class/host` (no realm).
    pub fn add(&mut self, service: &str, realm: &str, key: Key) {
        self.entries.push((service.to_ascii_lowercase(), realm.to_owned(), key));
    }

    /// Its keys for a service, in the file's order.
    pub(super) fn keys(&self, service: &str, realm: &str) -> impl Iterator<Item = &Key> {
        let (service, realm) = (service.to_ascii_lowercase(), realm.to_owned());
        self.entries
            .iter()
            .filter(move |(name, of, _)| *name == service && of.eq_ignore_ascii_case(&realm))
            .map(|(_, _, key)| key)
    }

    /// Whether any key is there.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One entry; an unknown type of key gives an empty list.
fn read_entry(entry: &[u8]) -> Option<Option<(String, String, Key)>> {
    let mut rest = entry;
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(taken)
    };
    let counted = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let count = counted(take(2)?);
    let mut texts = Vec::new();
    for _ in 0..=count.min(8) {
        let length = counted(take(2)?);
        texts.push(String::from_utf8(take(length)?.to_vec()).ok()?);
    }
    // Type of name, time, short version.
    take(4 + 4 + 1)?;
    let enctype = counted(take(2)?);
    let length = counted(take(2)?);
    let key = take(length)?;
    let known = Enctype::numbered(i64::try_from(enctype).ok()?);
    let (realm, parts) = texts.split_first()?;
    let service = parts.join("/").to_ascii_lowercase();
    match known {
        Some(enctype) => Some(Some((service, realm.clone(), Key::from_bytes(enctype, key)?))),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry for `HTTP/a@R` with a key of sevens, after a hole of four bytes; put together by hand from the format's
    /// description.
    fn file() -> Vec<u8> {
        let entry = [
            &[0, 2, 0, 1, b'R', 0, 4][..],
            b"HTTP",
            &[0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 17, 0, 16],
            &[7; 16],
            &[0, 0, 0, 1],
        ]
        .concat();
        let size = u32::try_from(entry.len()).unwrap().to_be_bytes();
        [&[5, 2, 0xff, 0xff, 0xff, 0xfc, 9, 9, 9, 9][..], &size, &entry].concat()
    }

    #[test]
    fn keys_are_found_by_service_and_realm() {
        let keytab = Keytab::read(&file()).unwrap();
        assert_eq!(keytab.keys("http/A", "r").map(|key| key.bytes().to_vec()).collect::<Vec<_>>(), [[7; 16]]);
        assert_eq!(keytab.keys("http/b", "R").count() + keytab.keys("http/a", "Q").count(), 0);
    }

    #[test]
    fn broken_files_are_told_from_short_ones() {
        let file = file();
        assert_eq!(Keytab::read(b"\x05\x01").err(), Some(KeytabError::NotKeytab));
        for length in 14..file.len() {
            assert_eq!(Keytab::read(&file[..length]).err(), Some(KeytabError::Malformed { number: 1 }));
        }
        assert!(Keytab::read(b"\x05\x02").unwrap().is_empty());
    }
}
