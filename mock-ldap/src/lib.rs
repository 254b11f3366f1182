//! A directory server for tests and demos: one generated company behind the personalities of the directories in use.

pub mod dit;
pub mod dn;
pub mod filter;
pub mod personality;
