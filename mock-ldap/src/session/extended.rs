//! Extended operations: StartTLS, "Who am I?" and password modify; each only where the personality announces it.

use super::{Call, Session, Transition, outcome_of};
use crate::ber::{self, BerError, Reader};
use crate::dit::{LdapFailure, ResultCode};
use crate::message::{self, Operation, tag};

const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
const WHO_AM_I: &str = "1.3.6.1.4.1.4203.1.11.3";
const PASSWORD_MODIFY: &str = "1.3.6.1.4.1.4203.1.11.1";

/// The word of an operation in journal and fault rules; known extended operations have their own.
pub(super) fn word(operation: &Operation<'_>) -> &'static str {
    match operation {
        Operation::Extended { name, .. } if *name == START_TLS.as_bytes() => "start_tls",
        Operation::Extended { name, .. } if *name == WHO_AM_I.as_bytes() => "who_am_i",
        Operation::Extended { name, .. } if *name == PASSWORD_MODIFY.as_bytes() => "password_modify",
        other => other.word(),
    }
}

/// Whether an operation is allowed while the password must be changed first.
pub(super) fn changes_password(operation: &Operation<'_>, word: &str) -> bool {
    match operation {
        Operation::Bind { .. } | Operation::Unbind | Operation::Abandon { .. } => true,
        Operation::Extended { .. } => word == "start_tls" || word == "password_modify",
        Operation::Modify { changes, .. } => changes
            .iter()
            .all(|change| super::describe::is_secret(&String::from_utf8_lossy(change.attribute))),
        _ => false,
    }
}

impl Session {
    pub(super) fn extended(&mut self, call: Call, name: &[u8], value: Option<&[u8]>) {
        let name = String::from_utf8_lossy(name).into_owned();
        let announced = self.directory.personality().supported_extensions.contains(&name);
        match name.as_str() {
            START_TLS if announced => self.start_tls(call),
            WHO_AM_I if announced => {
                let identity = self.replica.who_am_i(&self.who);
                self.answer_extended(&call, None, Some(identity.as_bytes()));
            }
            PASSWORD_MODIFY if announced => self.password_modify(&call, value),
            _ => self.fail(call, ResultCode::PROTOCOL_ERROR, "unsupported extended operation"),
        }
    }

    /// RFC 4511 section 4.14. Bytes that came with the request would cross from clear text into the protected
    /// session, so they end the connection unread.
    fn start_tls(&mut self, call: Call) {
        let refused = if self.wire.is_tls() || self.protected {
            Some((ResultCode::OPERATIONS_ERROR, "TLS or a security layer is already established"))
        } else if !self.is_quiet() {
            Some((ResultCode::OPERATIONS_ERROR, "operations are outstanding"))
        } else {
            None
        };
        if let Some((code, text)) = refused {
            return self.answer_extended_named(&call, Some(&LdapFailure::new(code, text)), START_TLS);
        }
        if self.wire.has_received() {
            let failure = LdapFailure::new(ResultCode::PROTOCOL_ERROR, "data follows the StartTLS request");
            self.answer_extended_named(&call, Some(&failure), START_TLS);
            return self.disconnect(ResultCode::PROTOCOL_ERROR, "data follows the StartTLS request");
        }
        self.answer_extended_named(&call, None, START_TLS);
        self.transition = Some(Transition::Tls);
    }

    fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.held.is_empty() && self.watches.is_empty() && self.exchange.is_none()
    }

    /// RFC 3062.
    fn password_modify(&mut self, call: &Call, value: Option<&[u8]>) {
        let Ok(request) = value.map_or(Ok(PasswordModify::default()), PasswordModify::decode) else {
            let failure =
                LdapFailure::new(ResultCode::PROTOCOL_ERROR, "password modify request cannot be decoded");
            return self.answer_extended(call, Some(&failure), None);
        };
        let secure = self.is_secure();
        let outcome = self.replica.change_password(&self.who, request.user, request.old, request.new, secure);
        match outcome {
            Ok(generated) => {
                self.must_change = false;
                let response = generated.map(|password| {
                    let mut out = bytes::BytesMut::new();
                    ber::constructed(&mut out, ber::SEQUENCE, |out| {
                        ber::primitive(out, 0x80, password.as_bytes());
                    });
                    out
                });
                self.answer_extended(call, None, response.as_deref());
            }
            Err(failure) => self.answer_extended(call, Some(&failure), None),
        }
    }

    fn answer_extended(&mut self, call: &Call, failure: Option<&LdapFailure>, value: Option<&[u8]>) {
        message::put_result(self.wire.out(), call.id, call.tag, outcome_of(failure), &[], |out| {
            if let Some(value) = value {
                ber::primitive(out, 0x8b, value);
            }
        });
        self.note_outcome(call, failure);
    }

    /// StartTLS answers with its own OID (RFC 4511 section 4.14.2).
    fn answer_extended_named(&mut self, call: &Call, failure: Option<&LdapFailure>, name: &str) {
        debug_assert_eq!(call.tag, tag::EXTENDED_RESPONSE);
        message::put_result(self.wire.out(), call.id, call.tag, outcome_of(failure), &[], |out| {
            ber::primitive(out, 0x8a, name.as_bytes());
        });
        self.note_outcome(call, failure);
    }
}

#[derive(Default)]
struct PasswordModify<'a> {
    user: Option<&'a [u8]>,
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
}

impl<'a> PasswordModify<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, BerError> {
        let mut fields = Reader::new(value).nested(ber::SEQUENCE)?;
        Ok(Self { user: fields.optional(0x80)?, old: fields.optional(0x81)?, new: fields.optional(0x82)? })
    }
}
