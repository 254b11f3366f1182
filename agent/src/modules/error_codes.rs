//! Writes `docs/error-codes.md` from the error tables, so that it cannot disagree with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::Retry;
use super::certificates::CertError;
use super::exchange::MailError;
use super::user_auth::AuthError;
use super::user_visibility::SyncError;
use crate::directory::error::DirectoryError;

type Row = (&'static str, Retry, &'static str);

fn document() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         Every error that reaches the cloud, the portal or the doctor carries one of these codes. This page is made from the\n\
         tables in the code; run `CAUSEWAY_UPDATE_DOCS=1 cargo test -p causeway-agent error_codes` after changing them.\n\n\
         Retry: *after* helps later by itself, *needs admin* helps after a person has changed something, *permanent* never.\n",
    );
    let tables: [(&str, &str, &[Row]); 5] = [
        ("Directory", "Whatever talks LDAP.", DirectoryError::TABLE),
        (
            "user_auth",
            "Password checks. A check without a verdict is no error but the outcome `unavailable`.",
            AuthError::TABLE,
        ),
        (
            "user_visibility",
            "Collection of users, groups and units, besides those of the directory.",
            SyncError::TABLE,
        ),
        ("exchange", "Phones on Exchange.", MailError::TABLE),
        ("certificates", "Certificates of devices.", CertError::TABLE),
    ];
    for (title, about, rows) in tables {
        let _ = write!(text, "\n## {title}\n\n{about}\n\n| code | retry | what to do |\n|---|---|---|\n");
        let sorted: BTreeMap<_, _> = rows.iter().map(|row| (row.0, row)).collect();
        assert_eq!(sorted.len(), rows.len(), "{title}: a code twice");
        for (code, retry, remedy) in sorted.into_values() {
            let retry = match retry {
                Retry::After => "after",
                Retry::Permanent => "permanent",
                Retry::NeedsAdmin => "needs admin",
            };
            let _ = writeln!(text, "| `{code}` | {retry} | {remedy} |");
        }
    }
    text
}

#[test]
fn the_page_of_error_codes_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/error-codes.md");
    let document = document();
    if std::env::var_os("CAUSEWAY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document,
        "docs/error-codes.md is out of date; set CAUSEWAY_UPDATE_DOCS=1 and run this test"
    );
}
