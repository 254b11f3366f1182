//! Bounds of the directory's own state, with the reason for each value. The wire has its own in `crate::limits`.

/// Longest name parsed. AD stops at 255 characters per relative name and a few dozen levels; 64 KiB is what fits no
/// honest name and still costs nothing.
pub(crate) const DN_SIZE_MAX_BYTES: usize = 64 * 1024;

/// Levels of nesting in the text form of a filter, the same bound the wire has for BER.
pub(crate) const FILTER_DEPTH_MAX: usize = 100;

/// Changes kept for cursors. A record is about 100 bytes, so a full log costs 100 MB; older cursors get everything.
pub(crate) const LOG_RECORDS_MAX: usize = 1_000_000;

/// Changes OpenLDAP and 389-ds remember for the delete phase (`syncprov-sessionlog`); beyond it: the present phase.
pub(crate) const SESSION_LOG_RECORDS_MAX: usize = 10_000;

/// Entries of `cn=changelog` (`nsslapd-changelogmaxentries`), which hold the text of the change.
pub(crate) const CHANGELOG_RECORDS_MAX: usize = 50_000;

/// Objects on one DirSync page: what domain controllers are reported to send.
pub(crate) const DIRSYNC_PAGE_OBJECTS_MAX: usize = 1_000;

/// Largest and smallest page the maxBytes hint of DirSync can ask for; the lower one holds any ordinary object.
pub(crate) const DIRSYNC_PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
pub(crate) const DIRSYNC_PAGE_BYTES_MIN: usize = 16 * 1024;

/// Servers and restores named in one cookie; more is not a cookie of ours.
pub(crate) const COOKIE_ORIGINS_MAX: usize = 64;

/// Values of one attribute of one entry, linked ones included.
pub(crate) const VALUES_PER_ATTRIBUTE_MAX: usize = 1_000_000;

/// Bytes of all stored attributes of one entry, thumbnails included.
pub(crate) const ENTRY_SIZE_MAX_BYTES: usize = 10 * 1024 * 1024;

/// Accounts whose logon counters are kept per server; beyond it only failures are recorded.
pub(crate) const LOGON_STATES_MAX: usize = 2_000_000;

/// Levels of nested objects when a tree is deleted or walked upwards.
pub(crate) const TREE_DEPTH_MAX: usize = 256;

/// Turns of all servers in which everything is delivered. The second carries what conflicts made the servers write, the
/// third what that led to; more only while others go on writing.
pub(crate) const REPLICATION_ROUNDS_MAX: usize = 32;
