//! Simple Certificate Enrolment Protocol (RFC 8894): its messages for both roles, and the client's machine.
//!
//! A message is a signed one around an encrypted one. A server goes [`Unverified::read`] (which message is it, and is it
//! one of the six there are), [`Unverified::verify`] (does whoever signed it have the key it shows), [`Request::open`]
//! (what is asked for), and answers with a [`Replier`]. There is no way to the contents past the signature.
//! A client reads [`Caps`] and [`CaCertificates`], then drives an [`Enrollment`].

mod authority;
mod caps;
mod client;
mod error;
mod message;
mod query;
mod reply;
mod request;
mod types;

pub use authority::{CaCertificates, write_next_ca};
pub use caps::{Caps, Suite};
pub use client::{Enrollment, Outcome};
pub use error::ScepError;
pub use message::{Header, Unverified};
pub use query::{Operation, decode_get, encode_get, url};
pub use reply::{Answer, CertRep, Replier};
pub use request::{Asked, Opened, Request, RequestWriter, ScepRandom};
pub use types::{FailInfo, MessageType, PkiStatus, TransactionId};
