//! The acceptor's half of SPNEGO (RFC 4178) around NTLM and Kerberos, as Windows and its imitators use it (MS-SPNG).
//!
//! [`Acceptor`] takes a client's tokens, whether wrapped in SPNEGO or bare, and gives the answers in kind.

use crate::der::{DerError, Reader, element as der, tag};
use crate::kerberos::{self, Accepted, KerberosError, Service};
use crate::limits::SPNEGO_TOKEN_MAX_BYTES;
use crate::ntlm::{self, Claim, NtlmError, NtlmServer, Session};

/// 1.3.6.1.5.5.2, SPNEGO itself.
const OID_SPNEGO: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x02];
/// 1.3.6.1.4.1.311.2.2.10, NTLM (MS-SPNG 1.9).
pub const OID_NTLM: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a];
/// 1.2.840.113554.1.2.2, Kerberos 5.
pub const OID_KERBEROS: &[u8] = kerberos::OID;

/// Mechanisms in one list; Windows sends at most four.
const MECHANISMS_MAX: usize = 16;

/// What is wrong with a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpnegoError {
    /// The token is larger than any client sends.
    #[error("spnego token of {size_bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// The token is not the DER of a negotiation token.
    #[error("spnego token is malformed at {at}")]
    Malformed {
        /// The element that is wrong, as RFC 4178 names it.
        at: &'static str,
    },
    /// The client offers no mechanism this acceptor has.
    #[error("client offers no mechanism this server has")]
    NoCommonMechanism,
    /// A token came when none was due.
    #[error("spnego token came out of turn")]
    OutOfTurn,
    /// The mechanism list was not signed, or its signature does not match: it may have been changed on its way.
    #[error("mechanism list is not protected")]
    MechanismListUnprotected,
    /// The NTLM token inside is wrong.
    #[error("ntlm inside spnego")]
    Ntlm(#[source] NtlmError),
    /// The Kerberos token inside is wrong.
    #[error("kerberos inside spnego")]
    Kerberos(#[source] KerberosError),
}

impl From<DerError> for SpnegoError {
    fn from(error: DerError) -> Self {
        Self::Malformed { at: error.at }
    }
}

/// State of a negotiation in an answer (RFC 4178 4.2.2, negState).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegState {
    /// Done.
    AcceptCompleted,
    /// More tokens are needed.
    AcceptIncomplete,
    /// Refused.
    Reject,
    /// More tokens are needed, and the mechanism list must be signed.
    RequestMic,
}

impl NegState {
    fn number(self) -> u8 {
        match self {
            Self::AcceptCompleted => 0,
            Self::AcceptIncomplete => 1,
            Self::Reject => 2,
            Self::RequestMic => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::AcceptCompleted, Self::AcceptIncomplete, Self::Reject, Self::RequestMic]
            .into_iter()
            .find(|state| state.number() == number)
    }
}

/// A client's first token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NegTokenInit {
    /// Object identifiers of the mechanisms, preferred first, without tag and length.
    pub mechanisms: Vec<Vec<u8>>,
    /// The DER of the list, which the mechListMIC covers.
    pub mechanisms_der: Vec<u8>,
    /// First token of the preferred mechanism.
    pub mech_token: Option<Vec<u8>>,
}

impl NegTokenInit {
    /// Reads a first token (RFC 4178 4.2.1), with or without the GSS-API frame (RFC 2743 3.1).
    ///
    /// # Errors
    /// [`SpnegoError`].
    pub fn decode(token: &[u8]) -> Result<Self, SpnegoError> {
        let mut outer = read(token)?;
        let mut inner = outer;
        if outer.peek() == Some(tag::application(0)) {
            inner = outer.enter(tag::application(0), "InitialContextToken")?;
            if inner.take(tag::OID, "thisMech")? != OID_SPNEGO {
                return Err(SpnegoError::NoCommonMechanism);
            }
        }
        let mut choice = inner.enter(tag::context(0), "negTokenInit")?;
        let mut fields = choice.enter(tag::SEQUENCE, "NegTokenInit")?;
        let mut init = Self::default();
        let mut list = fields.enter(tag::context(0), "mechTypes")?;
        init.mechanisms_der = list.0.to_vec();
        let mut mechanisms = list.enter(tag::SEQUENCE, "MechTypeList")?;
        while mechanisms.peek().is_some() {
            if init.mechanisms.len() == MECHANISMS_MAX {
                return Err(SpnegoError::Malformed { at: "MechTypeList" });
            }
            init.mechanisms.push(mechanisms.take(tag::OID, "MechType")?.to_vec());
        }
        fields.skip_if(tag::context(1), "reqFlags")?;
        init.mech_token = octets_if(&mut fields, 2, "mechToken")?;
        Ok(init)
    }

    /// Writes a first token; used by clients.
    pub fn encode(mechanisms: &[&[u8]], mech_token: Option<&[u8]>) -> Vec<u8> {
        let list: Vec<u8> = mechanisms.iter().flat_map(|oid| der(tag::OID, oid)).collect();
        let mut fields = der(tag::context(0), &der(tag::SEQUENCE, &list));
        if let Some(token) = mech_token {
            fields.extend(der(tag::context(2), &der(tag::OCTETS, token)));
        }
        let init = der(tag::context(0), &der(tag::SEQUENCE, &fields));
        der(tag::application(0), &[der(tag::OID, OID_SPNEGO), init].concat())
    }
}

/// Every later token, from either side (RFC 4178 4.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NegTokenResp {
    /// State; clients leave it out.
    pub state: Option<NegState>,
    /// The mechanism the acceptor chose.
    pub mechanism: Option<Vec<u8>>,
    /// Token of that mechanism.
    pub response_token: Option<Vec<u8>>,
    /// Signature of the mechanism list.
    pub mech_list_mic: Option<Vec<u8>>,
}

impl NegTokenResp {
    /// Reads a later token.
    ///
    /// # Errors
    /// [`SpnegoError`].
    pub fn decode(token: &[u8]) -> Result<Self, SpnegoError> {
        let mut choice = read(token)?.enter(tag::context(1), "negTokenResp")?;
        let mut fields = choice.enter(tag::SEQUENCE, "NegTokenResp")?;
        let mut state = None;
        if fields.peek() == Some(tag::context(0)) {
            let number = fields.enter(tag::context(0), "negState")?.take(tag::ENUMERATED, "negState")?;
            let known = number.first().and_then(|number| NegState::from_number(*number));
            state = Some(known.ok_or(SpnegoError::Malformed { at: "negState" })?);
        }
        let mut mechanism = None;
        if fields.peek() == Some(tag::context(1)) {
            let oid = fields.enter(tag::context(1), "supportedMech")?.take(tag::OID, "supportedMech")?;
            mechanism = Some(oid.to_vec());
        }
        Ok(Self {
            state,
            mechanism,
            response_token: octets_if(&mut fields, 2, "responseToken")?,
            mech_list_mic: octets_if(&mut fields, 3, "mechListMIC")?,
        })
    }

    /// Writes a later token.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        if let Some(state) = self.state {
            fields.extend(der(tag::context(0), &der(tag::ENUMERATED, &[state.number()])));
        }
        if let Some(mechanism) = &self.mechanism {
            fields.extend(der(tag::context(1), &der(tag::OID, mechanism)));
        }
        for (number, octets) in [(2, &self.response_token), (3, &self.mech_list_mic)] {
            if let Some(octets) = octets {
                fields.extend(der(tag::context(number), &der(tag::OCTETS, octets)));
            }
        }
        der(tag::context(1), &der(tag::SEQUENCE, &fields))
    }
}

/// What follows from a client's token.
pub enum Step {
    /// Send this and wait for the next token.
    Reply(Vec<u8>),
    /// The client has said who it is: verify the claim, then [`Acceptor::complete`] or [`Acceptor::reject`].
    Claimed(Box<Claim>),
}

/// What follows from a client's token where tickets are taken too.
pub enum TicketStep {
    /// The client speaks NTLM.
    Ntlm(Step),
    /// The client has shown a ticket that is good. What it is to be sent stands beside it.
    Proven(Box<Accepted>, Option<Vec<u8>>),
    /// The client's ticket is not good: why, and what it is to be sent.
    Refused(&'static str, Vec<u8>),
}

/// Leads one client through the negotiation.
pub struct Acceptor {
    ntlm: NtlmServer,
    stage: Stage,
    wrapped: bool,
    mechanisms_der: Vec<u8>,
    /// The client's favourite is not the one chosen, so the list must be signed (RFC 4178 5, step c).
    mic_required: bool,
    client_mic: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    First,
    Negotiate,
    Authenticate,
    Done,
}

impl Acceptor {
    /// Starts with an NTLM server of a fresh challenge.
    pub fn new(ntlm: NtlmServer) -> Self {
        Self {
            ntlm,
            stage: Stage::First,
            wrapped: false,
            mechanisms_der: Vec::new(),
            mic_required: false,
            client_mic: None,
        }
    }

    /// Takes the client's next token.
    ///
    /// # Errors
    /// [`SpnegoError`]; the negotiation is over then.
    pub fn accept(&mut self, token: &[u8]) -> Result<Step, SpnegoError> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::First if ntlm::is_ntlm(token) => self.challenge(token),
            Stage::First => self.first(token),
            Stage::Negotiate => {
                let response = NegTokenResp::decode(token)?;
                let inner = response.response_token.ok_or(SpnegoError::Malformed { at: "responseToken" })?;
                self.challenge(&inner)
            }
            Stage::Authenticate => self.claim(token),
            Stage::Done => Err(SpnegoError::OutOfTurn),
        }
    }

    /// Takes the client's next token, and tickets where Kerberos is what the client likes best; `now_ms` is Unix time.
    ///
    /// # Errors
    /// [`SpnegoError`]; the negotiation is over then.
    pub fn accept_tickets(
        &mut self,
        token: &[u8],
        service: &Service,
        now_ms: i64,
    ) -> Result<TicketStep, SpnegoError> {
        if self.stage == Stage::First && !ntlm::is_ntlm(token) {
            if kerberos::is_kerberos(token) {
                self.stage = Stage::Done;
                return self.ticket(token, service, now_ms);
            }
            let init = NegTokenInit::decode(token)?;
            let favourite = init.mechanisms.first().map(Vec::as_slice);
            let is_kerberos = [kerberos::OID, kerberos::OID_OF_WINDOWS].map(Some).contains(&favourite);
            if let Some(token) = init.mech_token.filter(|_| is_kerberos) {
                (self.stage, self.wrapped) = (Stage::Done, true);
                return self.ticket(&token, service, now_ms);
            }
        }
        self.accept(token).map(TicketStep::Ntlm)
    }

    /// The last token after a verified claim; `None` when bare NTLM needs none.
    ///
    /// # Errors
    /// [`SpnegoError::MechanismListUnprotected`] when a needed signature is missing or a given one is wrong.
    pub fn complete(&self, session: &mut Session) -> Result<Option<Vec<u8>>, SpnegoError> {
        if !self.wrapped {
            return Ok(None);
        }
        let mut last = NegTokenResp { state: Some(NegState::AcceptCompleted), ..NegTokenResp::default() };
        match &self.client_mic {
            Some(mic) => {
                session
                    .verify_mechanisms(&self.mechanisms_der, mic)
                    .map_err(|_| SpnegoError::MechanismListUnprotected)?;
                last.mech_list_mic = Some(session.sign_mechanisms(&self.mechanisms_der).to_vec());
            }
            None if self.mic_required => return Err(SpnegoError::MechanismListUnprotected),
            None => {}
        }
        Ok(Some(last.encode()))
    }

    /// The last token after a refused claim; `None` when bare NTLM has none.
    pub fn reject(&self) -> Option<Vec<u8>> {
        let last = NegTokenResp { state: Some(NegState::Reject), ..NegTokenResp::default() };
        self.wrapped.then(|| last.encode())
    }

    fn first(&mut self, token: &[u8]) -> Result<Step, SpnegoError> {
        self.wrapped = true;
        let init = NegTokenInit::decode(token)?;
        let place =
            init.mechanisms.iter().position(|oid| oid == OID_NTLM).ok_or(SpnegoError::NoCommonMechanism)?;
        self.mechanisms_der = init.mechanisms_der;
        match init.mech_token {
            // The token is the favourite's, so it is ours only if NTLM is the favourite.
            Some(token) if place == 0 => self.challenge(&token),
            _ => {
                self.mic_required = place > 0;
                self.stage = Stage::Negotiate;
                let state = if self.mic_required { NegState::RequestMic } else { NegState::AcceptIncomplete };
                let answer = NegTokenResp {
                    state: Some(state),
                    mechanism: Some(OID_NTLM.to_vec()),
                    ..NegTokenResp::default()
                };
                Ok(Step::Reply(answer.encode()))
            }
        }
    }

    /// Kerberos takes one message: a ticket is good or not.
    fn ticket(&self, token: &[u8], service: &Service, now_ms: i64) -> Result<TicketStep, SpnegoError> {
        let in_kind = |state, token: Option<Vec<u8>>| match self.wrapped {
            false => token,
            true => {
                let mechanism = Some(OID_KERBEROS.to_vec());
                let answer = NegTokenResp {
                    state: Some(state),
                    mechanism,
                    response_token: token,
                    mech_list_mic: None,
                };
                Some(answer.encode())
            }
        };
        match service.accept(token, now_ms) {
            Ok(mut accepted) => {
                let reply = in_kind(NegState::AcceptCompleted, accepted.reply.take());
                Ok(TicketStep::Proven(Box::new(accepted), reply))
            }
            Err(KerberosError::Refused { why, reply }) => {
                let reply = in_kind(NegState::Reject, Some(reply)).unwrap_or_default();
                Ok(TicketStep::Refused(why, reply))
            }
            Err(error) => Err(SpnegoError::Kerberos(error)),
        }
    }

    fn challenge(&mut self, negotiate: &[u8]) -> Result<Step, SpnegoError> {
        let challenge = self.ntlm.challenge(negotiate).map_err(SpnegoError::Ntlm)?;
        self.stage = Stage::Authenticate;
        if !self.wrapped {
            return Ok(Step::Reply(challenge));
        }
        let answer = NegTokenResp {
            state: Some(NegState::AcceptIncomplete),
            mechanism: Some(OID_NTLM.to_vec()),
            response_token: Some(challenge),
            mech_list_mic: None,
        };
        Ok(Step::Reply(answer.encode()))
    }

    fn claim(&mut self, token: &[u8]) -> Result<Step, SpnegoError> {
        let claim = if self.wrapped {
            let response = NegTokenResp::decode(token)?;
            self.client_mic = response.mech_list_mic;
            let inner = response.response_token.ok_or(SpnegoError::Malformed { at: "responseToken" })?;
            self.ntlm.authenticate(&inner)
        } else {
            self.ntlm.authenticate(token)
        };
        Ok(Step::Claimed(Box::new(claim.map_err(SpnegoError::Ntlm)?)))
    }
}

fn read(token: &[u8]) -> Result<Reader<'_>, SpnegoError> {
    match token.len() {
        0..=SPNEGO_TOKEN_MAX_BYTES => Ok(Reader(token)),
        size_bytes => Err(SpnegoError::TooLarge { size_bytes }),
    }
}

fn octets_if(fields: &mut Reader<'_>, number: u8, at: &'static str) -> Result<Option<Vec<u8>>, DerError> {
    fields.field_if(number, at)?.map(|mut inside| inside.octets(at)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntlm::{NtHash, ServerNames, tests as client};

    fn acceptor() -> Acceptor {
        Acceptor::new(NtlmServer::new(
            ServerNames { netbios_domain: "ACME".into(), ..ServerNames::default() },
            [7; 8],
            0,
        ))
    }

    fn reply(step: Step) -> NegTokenResp {
        match step {
            Step::Reply(token) => NegTokenResp::decode(&token).unwrap(),
            Step::Claimed(_) => panic!("claimed too early"),
        }
    }

    fn claim(step: Step) -> Box<Claim> {
        match step {
            Step::Claimed(claim) => claim,
            Step::Reply(token) => panic!("no claim but {token:x?}"),
        }
    }

    fn answer(challenge: &NegTokenResp, mic: Option<Vec<u8>>) -> Vec<u8> {
        let inner = client::client_answer(
            &client::negotiate(),
            challenge.response_token.as_ref().unwrap(),
            "secret",
            [0; 16],
        );
        NegTokenResp { response_token: Some(inner), mech_list_mic: mic, ..NegTokenResp::default() }.encode()
    }

    #[test]
    fn ntlm_as_the_favourite_takes_one_round() {
        let mut acceptor = acceptor();
        let first = NegTokenInit::encode(&[OID_NTLM], Some(&client::negotiate()));
        let challenge = reply(acceptor.accept(&first).unwrap());
        assert_eq!(
            (challenge.state, challenge.mechanism.as_deref()),
            (Some(NegState::AcceptIncomplete), Some(OID_NTLM))
        );
        let claim = claim(acceptor.accept(&answer(&challenge, None)).unwrap());
        let mut session = claim.verify(&NtHash::of_password("secret")).unwrap();
        let last = NegTokenResp::decode(&acceptor.complete(&mut session).unwrap().unwrap()).unwrap();
        assert_eq!(last, NegTokenResp { state: Some(NegState::AcceptCompleted), ..NegTokenResp::default() });
        assert_eq!(acceptor.accept(&first).err(), Some(SpnegoError::OutOfTurn));
        let rejected = NegTokenResp::decode(&acceptor.reject().unwrap()).unwrap();
        assert_eq!(rejected.state, Some(NegState::Reject));
    }

    #[test]
    fn ntlm_as_second_choice_needs_a_signed_list() {
        let first = NegTokenInit::encode(&[OID_KERBEROS, OID_NTLM], Some(b"kerberos ticket"));
        let list = NegTokenInit::decode(&first).unwrap().mechanisms_der;
        for (signed, expected) in [(Some(list), true), (Some(b"other list".to_vec()), false), (None, false)] {
            let mut acceptor = acceptor();
            let choice = reply(acceptor.accept(&first).unwrap());
            assert_eq!((choice.state, choice.response_token), (Some(NegState::RequestMic), None));
            let negotiate =
                NegTokenResp { response_token: Some(client::negotiate()), ..NegTokenResp::default() };
            let challenge = reply(acceptor.accept(&negotiate.encode()).unwrap());
            let mut client_session = client::client_session();
            let mic = signed.map(|list| client_session.sign_mechanisms(&list).to_vec());
            let claim = claim(acceptor.accept(&answer(&challenge, mic)).unwrap());
            let mut session = claim.verify(&NtHash::of_password("secret")).unwrap();
            match acceptor.complete(&mut session) {
                Ok(last) => {
                    assert!(expected, "an unprotected list was accepted");
                    let mic = NegTokenResp::decode(&last.unwrap()).unwrap().mech_list_mic.unwrap();
                    client_session.verify_mechanisms(&acceptor.mechanisms_der, &mic).unwrap();
                    assert_eq!(session.unwrap(&client_session.wrap(b"first")).unwrap(), b"first");
                }
                Err(error) => assert!(!expected && error == SpnegoError::MechanismListUnprotected, "{error}"),
            }
        }
    }

    #[test]
    fn bare_ntlm_is_answered_bare() {
        let mut acceptor = acceptor();
        let Step::Reply(challenge) = acceptor.accept(&client::negotiate()).unwrap() else {
            panic!("claimed too early")
        };
        assert!(challenge.starts_with(b"NTLMSSP\0\x02"));
        let token = client::client_answer(&client::negotiate(), &challenge, "secret", [0; 16]);
        let mut session =
            claim(acceptor.accept(&token).unwrap()).verify(&NtHash::of_password("secret")).unwrap();
        assert_eq!(acceptor.complete(&mut session), Ok(None));
        assert_eq!(acceptor.reject(), None);
    }

    #[test]
    fn foreign_and_broken_tokens_are_refused() {
        let kerberos_only = NegTokenInit::encode(&[OID_KERBEROS], Some(b"ticket"));
        assert_eq!(acceptor().accept(&kerberos_only).err(), Some(SpnegoError::NoCommonMechanism));
        assert_eq!(acceptor().accept(b"").err(), Some(SpnegoError::Malformed { at: "negTokenInit" }));
        let cut = &kerberos_only[..kerberos_only.len() - 1];
        assert_eq!(acceptor().accept(cut).err(), Some(SpnegoError::Malformed { at: "InitialContextToken" }));
        let many = NegTokenInit::encode(&[OID_KERBEROS; 17], None);
        assert_eq!(acceptor().accept(&many).err(), Some(SpnegoError::Malformed { at: "MechTypeList" }));
    }

    #[test]
    fn the_first_token_windows_sends_is_read() {
        // RFC 4178 layout as sent by Windows clients offering NTLM only: 60 .. 06 06 SPNEGO, a0 .. mechTypes, a2 .. token.
        let mut token =
            vec![0x60, 0x28, 0x06, 0x06, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x02, 0xa0, 0x1e, 0x30, 0x1c];
        token.extend_from_slice(&[
            0xa0, 0x0e, 0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a,
        ]);
        token.extend_from_slice(&[0xa2, 0x0a, 0x04, 0x08, b'N', b'T', b'L', b'M', b'S', b'S', b'P', 0]);
        let init = NegTokenInit::decode(&token).unwrap();
        assert_eq!(init.mechanisms, [OID_NTLM]);
        assert_eq!(init.mech_token.as_deref(), Some(b"NTLMSSP\0".as_slice()));
        assert_eq!(NegTokenInit::encode(&[OID_NTLM], Some(b"NTLMSSP\0")), token);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = NegTokenInit::decode(&bytes);
            if let Ok(response) = NegTokenResp::decode(&bytes) {
                proptest::prop_assert_eq!(NegTokenResp::decode(&response.encode()).unwrap(), response);
            }
        }
    }
}
