//! A missing peer is a loud, counted skip on a laptop and a failure where `CAUSEWAY_REQUIRE_PEERS=1`.
//!
//! Rust's test runners cannot mark a running test as skipped, so a skip is one line in the file named by
//! `CAUSEWAY_SKIP_LOG`; `cargo xtask test` takes those lines out of "passed" and prints them with their reasons.

use std::io::Write;

/// Whether the surroundings demand that every peer is there, as CI does.
pub fn peers_required() -> bool {
    std::env::var("CAUSEWAY_REQUIRE_PEERS").is_ok_and(|value| value == "1")
}

/// Records that the running test could not test anything.
///
/// # Panics
/// With `CAUSEWAY_REQUIRE_PEERS=1`: a missing peer is then a failure, with the same advice.
pub fn skip(what: &str, reason: &str) {
    // A worker thread of the runtime does not carry the test's name; nextest tells it to the whole process.
    let test = std::env::var("NEXTEST_TEST_NAME")
        .unwrap_or_else(|_| std::thread::current().name().unwrap_or("unnamed test").to_owned());
    assert!(!peers_required(), "{what} is required here but missing: {reason}");
    let line = format!("{test}: {what}: {}", reason.replace('\n', " "));
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("CAUSEWAY_SKIP_LOG") {
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            panic!(
                "a skip that cannot be counted is a failure: write {}: {error}",
                std::path::Path::new(&path).display()
            );
        }
    }
}
