//! Binds by SASL and Sicily.

use serde_json::json;

use super::bind::BindContext;
use super::{Session, text};
use crate::dit::{Bound, LdapFailure, PolicyWord, ResultCode};

impl Session {
    pub(super) fn sasl_bind(&mut self, mut bind: BindContext, mechanism: &[u8], credentials: Option<&[u8]>) {
        let mechanism = String::from_utf8_lossy(mechanism).to_ascii_uppercase();
        bind.call.detail = json!({ "method": "sasl", "mechanism": mechanism });
        let personality = self.directory.personality();
        let announced = mechanism == "EXTERNAL" || personality.sasl_mechanisms.contains(&mechanism);
        match mechanism.as_str() {
            "EXTERNAL" if announced => self.external_bind(&bind),
            "PLAIN" if announced => self.plain_bind(&bind, credentials.unwrap_or_default()),
            _ => self.refuse_mechanism(&bind),
        }
    }

    pub(super) fn refuse_mechanism(&mut self, bind: &BindContext) {
        let text = text::unsupported_mechanism(self.directory.personality());
        self.refuse_bind(bind, &LdapFailure::new(ResultCode::AUTH_METHOD_NOT_SUPPORTED, text));
    }

    /// The TLS client certificate is the proof.
    fn external_bind(&mut self, bind: &BindContext) {
        match self.certificate_identity() {
            Some(identity) => {
                let bound = Bound { identity, policy: PolicyWord::default() };
                self.accept_bind(bind, bound, None);
            }
            None => {
                let text = "no client certificate that names an entry";
                self.refuse_bind(bind, &LdapFailure::new(ResultCode::INVALID_CREDENTIALS, text));
            }
        }
    }

    /// RFC 4616: authorization identity, name and password, separated by NUL.
    fn plain_bind(&mut self, bind: &BindContext, credentials: &[u8]) {
        let fields: Vec<&[u8]> = credentials.split(|byte| *byte == 0).collect();
        let outcome = match fields[..] {
            [_, name, password] if !name.is_empty() && !password.is_empty() => match self.protection_missing() {
                Some(failure) => Err(failure),
                None => self.replica.authenticate(name, password),
            },
            _ => Err(LdapFailure::new(ResultCode::INVALID_CREDENTIALS, "")),
        };
        match outcome {
            Ok(bound) => self.accept_bind(bind, bound, None),
            Err(failure) => self.refuse_bind(bind, &failure),
        }
    }

    pub(super) fn sicily_discovery(&mut self, bind: BindContext) {
        self.refuse_mechanism(&bind);
    }

    pub(super) fn sicily_negotiate(&mut self, bind: BindContext, _token: &[u8]) {
        self.refuse_mechanism(&bind);
    }

    pub(super) fn sicily_response(&mut self, bind: BindContext, _token: &[u8]) {
        self.refuse_mechanism(&bind);
    }
}
