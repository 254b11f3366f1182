//! Binds by SASL and Sicily.

use causeway_mock_kit::ntlm::{self, Claim, NtHash, NtlmServer};
use causeway_mock_kit::spnego::{Acceptor, Step};
use causeway_protocol::Chain;
use serde_json::json;

use super::bind::BindContext;
use super::{Session, Transition};
use crate::config::ChannelBinding;
use crate::dit::{Bound, LdapFailure, PolicyWord, ResultCode};
use crate::message::{self, Outcome};
use crate::personality::Vendor;
use crate::sasl::{self, Exchange, SecurityLayer};

impl Session {
    pub(super) fn sasl_bind(&mut self, mut bind: BindContext, mechanism: &[u8], credentials: Option<&[u8]>) {
        let mechanism = String::from_utf8_lossy(mechanism).to_ascii_uppercase();
        bind.call.detail = json!({ "method": "sasl", "mechanism": mechanism });
        let personality = self.directory.personality();
        let announced = mechanism == "EXTERNAL" || personality.sasl_mechanisms.contains(&mechanism);
        match mechanism.as_str() {
            "EXTERNAL" if announced => self.external_bind(&bind),
            "GSS-SPNEGO" | "NTLM" if announced => self.spnego_bind(&bind, credentials.unwrap_or_default()),
            "PLAIN" if announced => self.plain_bind(&bind, credentials.unwrap_or_default()),
            _ => self.refuse_mechanism(&bind),
        }
    }

    pub(super) fn refuse_mechanism(&mut self, bind: &BindContext) {
        let text = self.directory.personality().text("unsupported_mechanism", &[]);
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
            [_, name, password] if !name.is_empty() && !password.is_empty() => {
                match self.protection_missing() {
                    Some(failure) => Err(failure),
                    None => self.replica.authenticate(name, password),
                }
            }
            _ => Err(LdapFailure::new(ResultCode::INVALID_CREDENTIALS, "")),
        };
        match outcome {
            Ok(bound) => self.accept_bind(bind, bound, None),
            Err(failure) => self.refuse_bind(bind, &failure),
        }
    }

    /// One round of NTLM, bare or inside SPNEGO (RFC 4178).
    fn spnego_bind(&mut self, bind: &BindContext, token: &[u8]) {
        let mut acceptor = match self.exchange.take() {
            Some(Exchange::Spnego(acceptor)) => acceptor,
            _ => Box::new(Acceptor::new(self.ntlm_server())),
        };
        match acceptor.accept(token) {
            Ok(Step::Reply(reply)) => {
                self.exchange = Some(Exchange::Spnego(acceptor));
                self.continue_bind(bind, &reply);
            }
            Ok(Step::Claimed(claim)) => match self.judge(&claim) {
                Ok((bound, mut session)) => match acceptor.complete(&mut session) {
                    Ok(proof) => self.accept_ntlm(bind, bound, session, proof.as_deref()),
                    Err(error) => self.refuse_token(bind, &error),
                },
                Err(failure) => self.refuse_bind(bind, &failure),
            },
            Err(error) => self.refuse_token(bind, &error),
        }
    }

    fn ntlm_server(&self) -> NtlmServer {
        let (domain, netbios) = (&self.shared.domain, &self.shared.netbios);
        let names = sasl::server_names(domain, netbios, self.replica.name());
        NtlmServer::new(names, ntlm::random_challenge(), self.shared.cx.clock.now_ms())
    }

    /// Checks the proof, then the account, then what the policies ask of the connection.
    fn judge(&self, claim: &Claim) -> Result<(Bound, ntlm::Session), LdapFailure> {
        let Some((identity, password)) = self.replica.ntlm_account(&claim.domain, &claim.user) else {
            return Err(self.replica.unknown_account());
        };
        let proof = claim.verify(&NtHash::of_password(&password));
        let bound = self.replica.account_verdict(&identity, proof.is_ok())?;
        let Ok(session) = proof else { return Err(self.replica.unknown_account()) };
        let effective = self.shared.effective.load();
        if !self.wire.is_tls() && effective.require_signing && !(session.signs() || session.seals()) {
            let text = self.directory.personality().text("signing_required", &[]);
            return Err(LdapFailure::new(ResultCode::STRONGER_AUTH_REQUIRED, text));
        }
        if self.wire.is_tls() && !self.channel_bound(effective.channel_binding, claim) {
            let text = self.directory.personality().text("channel_binding", &[]);
            return Err(LdapFailure::new(ResultCode::INVALID_CREDENTIALS, text));
        }
        Ok((bound, session))
    }

    fn channel_bound(&self, policy: ChannelBinding, claim: &Claim) -> bool {
        let right = claim.channel_bindings().map(|hash| hash == self.shared.channel_binding);
        match policy {
            ChannelBinding::Never => true,
            ChannelBinding::WhenSupported => right.unwrap_or(true),
            ChannelBinding::Always => right.unwrap_or(false),
        }
    }

    /// From the next message on the session signs or seals; TLS does that already where it is in use.
    fn accept_ntlm(
        &mut self,
        bind: &BindContext,
        bound: Bound,
        session: ntlm::Session,
        proof: Option<&[u8]>,
    ) {
        self.accept_bind(bind, bound, proof);
        if !self.wire.is_tls() && !self.protected {
            self.transition = SecurityLayer::new(session).map(|layer| Transition::Layer(Box::new(layer)));
        }
    }

    fn refuse_token(&mut self, bind: &BindContext, error: &(dyn std::error::Error + 'static)) {
        tracing::debug!(error = %Chain(error), "Authentication token refused");
        let mut failure = self.replica.unknown_account();
        failure.code = ResultCode::INVALID_CREDENTIALS;
        self.refuse_bind(bind, &failure);
    }

    /// Which packages there are; the answer travels in matchedDN.
    pub(super) fn sicily_discovery(&mut self, mut bind: BindContext) {
        bind.call.detail = json!({ "method": "sicily discovery" });
        if self.directory.personality().vendor != Vendor::ActiveDirectory {
            return self.refuse_mechanism(&bind);
        }
        self.answer_sicily(&bind, b"NTLM");
    }

    pub(super) fn sicily_negotiate(&mut self, mut bind: BindContext, token: &[u8]) {
        bind.call.detail = json!({ "method": "sicily negotiate" });
        if self.directory.personality().vendor != Vendor::ActiveDirectory {
            return self.refuse_mechanism(&bind);
        }
        let mut server = self.ntlm_server();
        match server.challenge(token) {
            Ok(challenge) => {
                self.exchange = Some(Exchange::Sicily(Box::new(server)));
                self.answer_sicily(&bind, &challenge);
            }
            Err(error) => self.refuse_token(&bind, &error),
        }
    }

    pub(super) fn sicily_response(&mut self, mut bind: BindContext, token: &[u8]) {
        bind.call.detail = json!({ "method": "sicily response" });
        let Some(Exchange::Sicily(server)) = self.exchange.take() else {
            return self.refuse_mechanism(&bind);
        };
        let outcome = match server.authenticate(token) {
            Ok(claim) => self.judge(&claim),
            Err(error) => return self.refuse_token(&bind, &error),
        };
        match outcome {
            Ok((bound, session)) => self.accept_ntlm(&bind, bound, session, None),
            Err(failure) => self.refuse_bind(&bind, &failure),
        }
    }

    fn answer_sicily(&mut self, bind: &BindContext, token: &[u8]) {
        let outcome = Outcome { matched_dn: token, ..Outcome::SUCCESS };
        let (out, call) = (self.wire.out(), &bind.call);
        message::put_result(out, call.id, call.tag, outcome, &[], |_| {});
        self.note(call, "success (in progress)");
    }
}
