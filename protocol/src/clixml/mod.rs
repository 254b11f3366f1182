//! CLIXML: how PowerShell writes values (MS-PSRP 2.2.5).

mod primitive;
mod read;
mod text;
mod value;
mod write;

pub use read::{ClixmlError, Reader, read};
pub use value::{Content, ListKind, Members, Object, Value};
pub use write::{write, write_object, write_to};
