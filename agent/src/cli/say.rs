//! What commands print. The standard library's macros panic when nobody reads any more or a disk is full; what is printed
//! here ends with an error then, or with nothing where the reader just had enough (`check --list | head`).

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// A line of the result, on standard output.
///
/// # Errors
/// When it cannot be written. A reader that has gone is no error.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// A text as it is.
///
/// # Errors
/// As [`line`].
pub(super) fn text(text: impl Display) -> anyhow::Result<()> {
    print(&text.to_string())
}

/// A word beside the result, on standard error. Where nobody can be told, nobody is.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn print(text: &str) -> anyhow::Result<()> {
    to(&mut io::stdout().lock(), text).context("write to standard output")
}

fn to(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
        to(&mut Refusing(ErrorKind::BrokenPipe), "x").unwrap();
        assert_eq!(
            to(&mut Refusing(ErrorKind::StorageFull), "x").unwrap_err().kind(),
            ErrorKind::StorageFull
        );
    }
}
