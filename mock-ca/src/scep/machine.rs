//! The server's side of a transaction (RFC 8894 section 4): what a message is answered with.

use aws_lc_rs::rand::SecureRandom as _;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::cms::{ContentCipher, SignerKey, write_bag};
use causeway_protocol::pkix::{Certificate, Key};
use causeway_protocol::scep::{
    Asked, FailInfo, Header, MessageType, Replier, Request, ScepError, ScepRandom, Unverified,
};
use serde_json::{Value, json};

use super::capabilities::Capabilities;
use crate::core::{
    Authority, Challenges, Csr, Decision, Denial, Generation, Issued, Serial, Signer, Submission, Transaction,
};
use crate::server::World;

/// An answer, and what the journal says of it.
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) operation: &'static str,
    pub(super) outcome: String,
    pub(super) detail: Value,
}

/// What is to be said, before it is signed and encrypted.
enum Verdict {
    /// Certificates, leaf first.
    Certificates(Vec<Vec<u8>>),
    Crl(Vec<u8>),
    Pending,
    Failure(Option<FailInfo>, String),
}

/// The authority and the rules for one message.
pub(super) struct Machine<'a> {
    authority: &'a Authority,
    world: &'a World,
    /// A fault rule that struck: its word.
    word: &'a str,
    peer: &'a str,
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        authority: &'a Authority,
        world: &'a World,
        fault: Option<&'a Fault>,
        peer: &'a str,
    ) -> Self {
        let word = match fault {
            Some(Fault::Custom { word, .. }) => word.as_str(),
            _ => "",
        };
        Self { authority, world, word, peer }
    }

    /// Answers a message.
    pub(super) fn answer(&self, message: &Unverified) -> Result<Reply, ScepError> {
        let hierarchy = self.authority.hierarchy();
        let generation = hierarchy.current();
        let accept = Capabilities::of(self.world).accept();
        let request = match message.verify(accept) {
            Ok(request) => request,
            Err(error) => return self.refuse(generation, message.header(), &error),
        };
        // Messages that were encrypted for the generation before a rollover are still on their way.
        let keys = hierarchy.generations.iter().rev().map(|one| &one.ra_encryption);
        let mut opened = Err(ScepError::Unreadable);
        for identity in keys {
            opened = request.open(&identity.key, &identity.certificate);
            if opened.is_ok() {
                break;
            }
        }
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refuse(generation, request.header(), &error),
        };
        let (verdict, detail) = self.decide(&request, &opened.asked);
        self.write(generation, &request, opened.cipher, verdict, detail)
    }

    fn decide(&self, request: &Request, asked: &Asked) -> (Verdict, Value) {
        match asked {
            Asked::Certificate(csr) => self.certificate(request, csr.raw()),
            Asked::Poll { .. } => {
                let decision = self.authority.poll("scep", &transaction(request));
                let unknown =
                    || Verdict::Failure(Some(FailInfo::BadCertId), "no such transaction".to_owned());
                (decision.map_or_else(unknown, |decision| self.verdict(decision)), json!(null))
            }
            Asked::Issued { serial, .. } => {
                let found = Serial::from_hex(serial).and_then(|serial| self.authority.certificate(&serial));
                let verdict = match found {
                    Some(issued) => Verdict::Certificates(self.bag(&issued)),
                    None => Verdict::Failure(Some(FailInfo::BadCertId), "no such certificate".to_owned()),
                };
                (verdict, json!({ "serial": serial }))
            }
            Asked::Crl { serial, .. } => {
                let issued = Serial::from_hex(serial).and_then(|serial| self.authority.certificate(&serial));
                let generation = issued.map(|issued| issued.generation);
                let generation = generation.unwrap_or_else(|| self.authority.hierarchy().current().number);
                let crl = self.authority.crl(Signer::Generation(generation));
                let none = || Verdict::Failure(Some(FailInfo::BadCertId), "no such list".to_owned());
                (crl.map_or_else(none, Verdict::Crl), json!({ "serial": serial }))
            }
        }
    }

    /// PKCSReq and RenewalReq.
    fn certificate(&self, request: &Request, csr: &[u8]) -> (Verdict, Value) {
        match self.word {
            "expired_challenge" => return (refused("the challenge has expired"), json!(null)),
            "refused" => return (refused("a fault rule refuses it"), json!(null)),
            _ => {}
        }
        if let Some((_, fail, why)) = NOES.iter().find(|(word, ..)| *word == self.word) {
            return (Verdict::Failure(*fail, (*why).to_owned()), json!(null));
        }
        let renews = self.renewed(request.signer());
        if request.header().kind == MessageType::RenewalReq && renews.is_none() {
            return (refused("the certificate to renew is not ours"), json!(null));
        }
        let requester = match &renews {
            Some(issued) => format!("holder of {}", issued.serial),
            None => self.peer.to_owned(),
        };
        let submission = Submission {
            front: "scep",
            csr,
            requester: &requester,
            template: None,
            transaction: Some(transaction(request)),
            renews: renews.as_ref().map(|issued| issued.serial),
            hold: self.word == "pending",
            ..Submission::default()
        };
        let same_key = self.world.config.scep.same_key && renews.is_none();
        let decision = self.authority.submit(&submission, |csr| {
            if same_key && csr.spki() != request.signer().public_key().spki() {
                return Err(Denial::BadSignature);
            }
            if renews.is_none() {
                take(&self.world.challenges, self.authority.now_ms(), csr)?;
            }
            Ok(())
        });
        let detail = match &decision {
            Decision::Issued(issued) => {
                json!({ "serial": issued.serial.to_string(), "subject": issued.subject, "template": issued.template, "request": issued.request })
            }
            Decision::Pending(id) | Decision::Denied(_, id) => json!({ "request": id }),
        };
        (self.verdict(decision), detail)
    }

    /// The certificate of ours a message is signed with. Only its key could have made the signature.
    fn renewed(&self, signer: &Certificate) -> Option<std::sync::Arc<Issued>> {
        let serial = Serial::from_bytes(signer.serial_raw())?;
        self.authority.certificate(&serial).filter(|issued| issued.certificate == signer.raw())
    }

    fn verdict(&self, decision: Decision) -> Verdict {
        match decision {
            Decision::Issued(issued) if self.word == "another_key" => {
                Verdict::Certificates(vec![self.authority.with_another_key(&issued)])
            }
            Decision::Issued(issued) => Verdict::Certificates(self.bag(&issued)),
            Decision::Pending(_) => Verdict::Pending,
            Decision::Denied(denial, _) => {
                let fail = match denial {
                    Denial::BadSignature | Denial::Unreadable => FailInfo::BadMessageCheck,
                    Denial::KeyKind => FailInfo::BadAlg,
                    _ => FailInfo::BadRequest,
                };
                Verdict::Failure(Some(fail), denial.to_string())
            }
        }
    }

    /// A certificate and its chain, leaf first: old clients take the first one.
    fn bag(&self, issued: &Issued) -> Vec<Vec<u8>> {
        let hierarchy = self.authority.hierarchy();
        let generation = hierarchy.generations.iter().find(|one| one.number == issued.generation);
        let chain = generation.map(|generation| hierarchy.chain(generation)).unwrap_or_default();
        std::iter::once(issued.certificate.clone()).chain(chain.into_iter().map(<[u8]>::to_vec)).collect()
    }

    fn refuse(
        &self,
        generation: &Generation,
        header: &Header,
        error: &ScepError,
    ) -> Result<Reply, ScepError> {
        let fail = error.fail_info();
        self.failure(generation, header, Some(fail), error.to_string(), json!(null))
    }

    /// Nothing of `why` reaches the client: what helps an honest one helps others more.
    fn failure(
        &self,
        generation: &Generation,
        header: &Header,
        fail: Option<FailInfo>,
        why: String,
        mut detail: Value,
    ) -> Result<Reply, ScepError> {
        let signer = &generation.ra_signing;
        let replier = Replier { signer: SignerKey { certificate: &signer.certificate, key: &signer.key } };
        let bytes = replier.failure(header, fail, None, nonce())?;
        if detail.is_null() {
            detail = json!({});
        }
        detail["why"] = why.into();
        let outcome = format!("FAILURE {}", fail.map_or("without a reason", FailInfo::name));
        Ok(Reply { bytes, operation: name(header.kind), outcome, detail })
    }

    fn write(
        &self,
        generation: &Generation,
        request: &Request,
        cipher: ContentCipher,
        verdict: Verdict,
        detail: Value,
    ) -> Result<Reply, ScepError> {
        let stranger = (self.word == "another_reply").then(|| self.authority.stranger());
        let signer = stranger.as_ref().map_or(&generation.ra_signing, |stranger| &stranger.ra_signing);
        let (certificate, key): (&Certificate, &Key) = (&signer.certificate, &signer.key);
        let replier = Replier { signer: SignerKey { certificate, key } };
        let header = request.header();
        let (bytes, outcome) = match verdict {
            Verdict::Certificates(certificates) => {
                let certificates: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
                (replier.success(request, &write_bag(&certificates, &[]), cipher, &random())?, "SUCCESS")
            }
            Verdict::Crl(crl) => {
                (replier.success(request, &write_bag(&[], &[&crl]), cipher, &random())?, "SUCCESS")
            }
            Verdict::Pending => (replier.pending(header, nonce())?, "PENDING"),
            Verdict::Failure(fail, why) => return self.failure(generation, header, fail, why, detail),
        };
        Ok(Reply { bytes, operation: name(header.kind), outcome: outcome.to_owned(), detail })
    }
}

/// What fault rules have an authority say that would not say it by itself: word, reason, and what the journal says.
const NOES: [(&str, Option<FailInfo>, &str); 4] = [
    ("bad_alg", Some(FailInfo::BadAlg), "an algorithm is not allowed"),
    ("bad_message_check", Some(FailInfo::BadMessageCheck), "the message cannot be decrypted"),
    ("bad_time", Some(FailInfo::BadTime), "the time of the message is not near enough"),
    ("no_reason", None, "it says no and not why"),
];

fn refused(why: &str) -> Verdict {
    Verdict::Failure(Some(FailInfo::BadRequest), why.to_owned())
}

fn take(challenges: &Challenges, now_ms: i64, csr: &Csr) -> Result<(), Denial> {
    let shown = csr.challenge().map(causeway_protocol::Secret::expose);
    challenges.take(now_ms, shown, csr.common_name()).map_err(Denial::Challenge)
}

fn transaction(request: &Request) -> Transaction {
    let asker = request.signer().public_key().spki();
    let asker = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, asker);
    Transaction {
        id: request.header().transaction.as_bytes().to_vec(),
        asker: asker.as_ref().try_into().expect("SHA-256 has 32 bytes"),
    }
}

fn name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::PkcsReq => "PKCSReq",
        MessageType::RenewalReq => "RenewalReq",
        MessageType::CertPoll => "CertPoll",
        MessageType::GetCert => "GetCert",
        MessageType::GetCrl => "GetCRL",
        MessageType::CertRep => "CertRep",
    }
}

fn nonce() -> [u8; 16] {
    filled()
}

fn random() -> ScepRandom {
    ScepRandom::new(filled())
}

fn filled<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}
