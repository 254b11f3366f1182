//! Opening the state file, and setting aside one that is damaged or another enrolment's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError};

use super::thread::definition;
use super::{FILE_NAME, OpenError, PID_FILE_NAME, SCHEMA_VERSION};
use crate::limits::STORAGE_CACHE_BYTES;
use crate::platform::set_aside;
use crate::storage::Table;

const VERSION_KEY: &[u8] = b"schema_version";
const MACHINE_KEY: &[u8] = b"machine";
const OWNER_KEY: &[u8] = b"owner";

pub(super) enum Trouble {
    Damaged(String),
    Refused(OpenError),
}

pub(super) fn io_error(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: Arc::new(source) }
}

/// Begins a file where the last one was just set aside.
pub(super) fn open_new(path: &Path, machine: &str) -> Result<Database, OpenError> {
    open_checked(path, machine).map_err(|trouble| match trouble {
        Trouble::Damaged(what) => io_error(path, std::io::Error::other(what)),
        Trouble::Refused(error) => error,
    })
}

/// Makes sure that the file is this owner's; gives the new file, and where the other owner's is.
pub(super) fn owned(
    database: Database,
    path: &Path,
    machine: &str,
    owner: &str,
) -> Result<(Database, Option<PathBuf>), OpenError> {
    let failed = |error: redb::Error| io_error(path, error);
    let found = read_one(&database, OWNER_KEY).map_err(failed)?;
    if found.as_deref() == Some(owner.as_bytes()) {
        return Ok((database, None));
    }
    if found.is_none() {
        write_owner(&database, owner).map_err(failed)?;
        return Ok((database, None));
    }
    // Windows renames no file that is open.
    drop(database);
    let aside = set_aside(path, "former").map_err(|source| io_error(path, source))?;
    tracing::warn!(kept = %aside.display(), "The state file is of an earlier enrolment; it is kept aside and a new one begun");
    let database = open_new(path, machine)?;
    write_owner(&database, owner).map_err(failed)?;
    Ok((database, Some(aside)))
}

fn write_owner(database: &Database, owner: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(definition(Table::Meta))?.insert(OWNER_KEY, owner.as_bytes())?;
    write.commit()?;
    Ok(())
}

/// Whether a process has the state file of a data directory open; none when that cannot be told, as before there is one.
pub fn is_open(data_dir: &Path) -> Option<bool> {
    let file = fs::File::open(data_dir.join(FILE_NAME)).ok()?;
    // The library's own lock, wanted for the moment of asking only: it is gone with the handle.
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(fs::TryLockError::WouldBlock) => Some(true),
        Err(fs::TryLockError::Error(_)) => None,
    }
}

pub(super) fn open_checked(path: &Path, machine: &str) -> Result<Database, Trouble> {
    // The library takes an empty file for one to begin; we begin only where there is none, so this one has lost
    // everything.
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Err(Trouble::Damaged("it is empty".to_owned()));
    }
    // The library checks checksums but may still panic on a file it did not write; a panic here is damage too.
    let owned = path.to_owned();
    let opened = std::thread::spawn(move || {
        let mut builder = Builder::new();
        builder.set_cache_size(STORAGE_CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create(&owned)
    })
    .join();
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
            return Err(Trouble::Refused(OpenError::InUse { path: path.to_owned(), held_by: holder(path) }));
        }
        Ok(Err(DatabaseError::Storage(redb::StorageError::Io(error))))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            return Err(Trouble::Refused(io_error(path, error)));
        }
        Ok(Err(error)) => return Err(Trouble::Damaged(error.to_string())),
        Err(_) => return Err(Trouble::Damaged("reading it panicked".to_owned())),
    };
    restrict(path).map_err(|source| Trouble::Refused(io_error(path, source)))?;
    check_origin(&database, path, machine)?;
    // Only a word for people, so a disk that refuses it stops nobody.
    let pid_file = path.with_file_name(PID_FILE_NAME);
    let _ = fs::write(&pid_file, std::process::id().to_string());
    let _ = crate::platform::hand_over(&pid_file);
    Ok(database)
}

/// Who has the state file, by its own word.
fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path.with_file_name(PID_FILE_NAME)).ok()?.trim().parse().ok()
}

/// Reads who wrote the file; signs a new one.
fn check_origin(database: &Database, path: &Path, machine: &str) -> Result<(), Trouble> {
    let damaged = |error: redb::Error| Trouble::Damaged(error.to_string());
    let version = read_one(database, VERSION_KEY).map_err(damaged)?;
    let Some(version) = version else {
        return sign(database, machine).map_err(|error| Trouble::Refused(io_error(path, error)));
    };
    let found = version
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Trouble::Damaged("its version is unreadable".to_owned()))?;
    if found > SCHEMA_VERSION {
        return Err(Trouble::Refused(OpenError::Newer { path: path.to_owned(), found }));
    }
    let owner = read_one(database, MACHINE_KEY).map_err(damaged)?.unwrap_or_default();
    if owner != machine.as_bytes() {
        return Err(Trouble::Refused(OpenError::OtherMachine { path: path.to_owned() }));
    }
    Ok(())
}

fn read_one(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(definition(Table::Meta)) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn sign(database: &Database, machine: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(definition(Table::Meta))?;
        meta.insert(VERSION_KEY, SCHEMA_VERSION.to_be_bytes().as_slice())?;
        meta.insert(MACHINE_KEY, machine.as_bytes())?;
    }
    for table in Table::ALL {
        write.open_table(definition(table))?;
    }
    write.commit()?;
    Ok(())
}

#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    crate::platform::hand_over(path)
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> std::io::Result<()> {
    Ok(())
}
