//! Where the company's mailboxes are, so that its directory and its mail servers agree.

/// Short names of the mail servers.
pub const MAIL_SERVERS: [&str; 2] = ["mail1", "mail2"];

/// Mailbox databases on each of them.
pub const DATABASES_PER_SERVER: usize = 2;

/// Name of a database, from 1.
pub fn database_name(number: usize) -> String {
    format!("DB{number:02}")
}

/// Server and database of a person, by the person's place in the company.
pub fn mailbox_home(index: u32) -> (&'static str, String) {
    let count = MAIL_SERVERS.len() * DATABASES_PER_SERVER;
    let place = usize::try_from(index).unwrap_or(usize::MAX) % count;
    (MAIL_SERVERS[place / DATABASES_PER_SERVER], database_name(place + 1))
}
