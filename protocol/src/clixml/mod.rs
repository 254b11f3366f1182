//! CLIXML: how PowerShell writes values (MS-PSRP 2.2.5).

mod value;

pub use value::{Content, ListKind, Members, Object, Value};
