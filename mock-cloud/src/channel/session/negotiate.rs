//! What a client negotiates after login: a resource, stream management, its old session.

use causeway_protocol::channel::element::SmFailed;
use causeway_protocol::channel::sm::StreamManagement;
use causeway_protocol::channel::{RESOURCE, SmElement, StreamElement};
use jid::Jid;
use tokio::io::{AsyncBufRead, AsyncWrite};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::DefinedCondition as StanzaCondition;

use super::super::inbound;
use super::super::login::Role;
use super::{End, Loop, Stream, too_many};

impl Loop {
    pub(super) fn on_bind<S>(
        &mut self,
        stream: &mut Stream<'_, S>,
        id: String,
        payload: minidom::Element,
    ) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let refuse = |condition, text: &str| Box::new(inbound::refusal(&id, None, None, condition, text));
        let wanted = match BindQuery::try_from(payload) {
            Ok(query) => query.resource,
            Err(_) => {
                return self.answer(stream, refuse(StanzaCondition::BadRequest, "unreadable bind request"));
            }
        };
        let resource = wanted.filter(|name| !name.is_empty()).unwrap_or_else(|| RESOURCE.to_owned());
        let Ok(jid) = Jid::new(&format!("{}@{}/{resource}", self.role.node(), self.domain)) else {
            return self
                .answer(stream, refuse(StanzaCondition::BadRequest, "the resource is not a valid one"));
        };
        if !self.session.bind(jid.clone()) {
            return self.answer(stream, refuse(StanzaCondition::NotAllowed, "a resource is bound already"));
        }
        let full = jid.try_into_full().expect("a JID made with a resource is a full one");
        let response = BindResponse { jid: full };
        self.answer(stream, Box::new(Iq::Result { from: None, to: None, id, payload: Some(response.into()) }))
    }

    pub(super) fn on_enable<S>(&mut self, stream: &mut Stream<'_, S>, enable: &sm::Enable) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        self.must_be_bound()?;
        if self.sm.is_some() || matches!(self.role, Role::Enrolling { .. }) {
            return self.sm_failed(stream, StanzaCondition::UnexpectedRequest);
        }
        self.sm = Some(StreamManagement::default());
        let mut enabled = sm::Enabled { id: None, location: None, max: None, resume: false };
        if enable.resume {
            let id = self.cloud.ids.next().simple().to_string();
            self.cloud.sessions.enable_resumption(&id, &self.session);
            enabled.id = Some(sm::StreamId(id.clone()));
            enabled.resume = true;
            enabled.max = Some(self.cloud.config.channel.resume_secs);
            self.sm_id = Some(id);
        }
        self.write(stream, &StreamElement::Sm(SmElement::Enabled(enabled)))
    }

    /// XEP-0198 §5: instead of bind, on an authenticated stream.
    pub(super) async fn on_resume<S>(
        &mut self,
        stream: &mut Stream<'_, S>,
        resume: sm::Resume,
    ) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        if self.session.jid().is_some() {
            return self.sm_failed(stream, StanzaCondition::UnexpectedRequest);
        }
        let sm::StreamId(id) = &resume.previd;
        let Some(detached) = self.cloud.sessions.take(id, self.role.identity()).await else {
            return self.sm_failed(stream, StanzaCondition::ItemNotFound);
        };
        self.cloud.sessions.disconnect(&self.session);
        detached.session.moved_to(self.session.from());
        self.session = detached.session;
        self.inlets = detached.inlets;
        self.unacked_bytes = detached.unacked_bytes;
        let mut sm = detached.sm;
        self.session.reattach();
        self.cloud.sessions.connect(&self.session);
        self.cloud.sessions.enable_resumption(id, &self.session);
        self.sm_id = Some(id.clone());
        let resumed = sm::Resumed { h: sm.h(), previd: resume.previd.clone() };
        let to = self.session.jid().cloned().expect("only bound sessions can be resumed");
        let again: Vec<Iq> = match sm.resumed(resume.h) {
            Ok(unacked) => unacked.map(|stanza| stanza.to_repeated_iq(&self.domain, &to)).collect(),
            Err(error) => return Err(too_many(error)),
        };
        self.sm = Some(sm);
        self.write(stream, &StreamElement::Sm(SmElement::Resumed(resumed)))?;
        for iq in again {
            self.write(stream, &StreamElement::Iq(iq))?;
        }
        self.write(stream, &StreamElement::Sm(SmElement::Request(sm::R)))?;
        super::super::resumed(&self.cloud, &self.session);
        Ok(())
    }

    fn sm_failed<S>(&mut self, stream: &mut Stream<'_, S>, condition: StanzaCondition) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let failed = SmFailed { h: None, condition: Some(condition) };
        self.write(stream, &StreamElement::Sm(SmElement::Failed(failed)))
    }
}
