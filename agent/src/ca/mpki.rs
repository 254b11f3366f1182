//! Symantec Managed PKI, later DigiCert PKI Platform, over SOAP. We are known by the certificate of a registration
//! authority. Seats are what the company pays for, so nothing is ever issued twice: a request whose answer was lost is
//! looked for by seat and key before another one goes out.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::enrol::ShapeError;
use causeway_protocol::enrol::mpki::{
    self, Enroll, Enrolled, Entry, Found, Operation, Profile, Reason, Request, Search, Target, UpdateStatus,
    Updated,
};
use causeway_protocol::enrol::soap::{Message, Version};
use causeway_protocol::pkix::{Certificate, Csr, Name, oid};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::http::{Endpoint, FrontEnds, Who};
use super::once::{Failed, Ticket};
use super::settings::{CaSettings, RevocationKind};
use super::soap::{self, Reply};
use super::{Answer, Authority, CaError, Keep, Order, Revocation, Seen, issued, limits};
use crate::directory::Net;
use crate::secrets::SecretStore;

/// The service with one account.
pub struct Mpki {
    settings: CaSettings,
    front_ends: FrontEnds,
    profiles: Mutex<Option<(Instant, Arc<Vec<Profile>>)>>,
}

impl Mpki {
    /// Connects to nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        Self { front_ends: FrontEnds::new(name, &settings, secrets), settings, profiles: Mutex::default() }
    }

    async fn call(
        &self,
        net: &Net,
        base: &Endpoint,
        request: &Request,
    ) -> Result<(Endpoint, Message), Failed> {
        let endpoint = base.at(request.path());
        let action = request.soap_action();
        let envelope = request.write();
        let called =
            soap::call(&self.front_ends, net, &endpoint, Version::V11, Some(&action), envelope, Who::Nobody);
        match called.await? {
            Reply::Message(message) => Ok((endpoint, message)),
            Reply::Fault(fault) => {
                let (code, detail) = mpki::read_fault(&fault);
                let (code, detail) = (issued::shortened(&code), issued::shortened(&detail));
                Err(CaError::Refused { host: endpoint.to_string(), code, detail }.into())
            }
        }
    }

    /// As [`Mpki::call`], for what may be repeated.
    async fn ask<T>(
        &self,
        net: &Net,
        base: &Endpoint,
        request: &Request,
        read: impl FnOnce(&Message) -> Result<T, ShapeError>,
    ) -> Result<T, CaError> {
        let (endpoint, message) = self.call(net, base, request).await.map_err(|failed| failed.error)?;
        read(&message).map_err(|error| soap::misshapen(&endpoint, &error))
    }

    async fn profiles(&self, net: &Net, base: &Endpoint) -> Result<Arc<Vec<Profile>>, CaError> {
        let kept = self.profiles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, profiles)) = kept
            && since.elapsed() < limits::CAPABILITIES_HOLD
        {
            return Ok(profiles);
        }
        let request = Request::GetPolicies { transaction: transaction() };
        let profiles = Arc::new(self.ask(net, base, &request, mpki::read_policies).await?);
        let kept = Some((Instant::now(), profiles.clone()));
        *self.profiles.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(profiles)
    }

    /// The seat an order is counted by: the pattern of the settings with the order's variables.
    fn seat(&self, order: &Order) -> Result<String, CaError> {
        let mut seat = String::new();
        for (at, piece) in self.settings.seat.split('%').enumerate() {
            if at % 2 == 0 {
                seat.push_str(piece);
            } else {
                let value = order.variables.get(piece).filter(|value| !value.is_empty());
                seat.push_str(value.ok_or_else(|| CaError::Settings {
                    detail: format!("the seat needs %{piece}%, which this order does not have; change seat"),
                })?);
            }
        }
        Ok(seat)
    }

    /// What the profile asks for, out of the order.
    async fn enroll(&self, net: &Net, base: &Endpoint, order: &Order) -> Result<Enroll, CaError> {
        let host = base.to_string();
        let id = order.template.clone().ok_or_else(|| CaError::Settings {
            detail:
                "the profile names no template; write the object identifier of one of the service's profiles"
                    .into(),
        })?;
        let profiles = self.profiles(net, base).await?;
        let profile =
            profiles.iter().find(|profile| profile.oid == id || profile.name.eq_ignore_ascii_case(&id));
        let profile = profile.ok_or_else(|| {
            let known: Vec<&str> = profiles.iter().map(|profile| profile.oid.as_str()).take(10).collect();
            let detail = format!("it has no profile {id}, but {}", known.join(", "));
            CaError::Refused { host, code: "unknown_profile".to_owned(), detail }
        })?;
        let mut fields = vec![("seat_id".to_owned(), self.seat(order)?)];
        for field in profile.fields.iter().filter(|field| field.name != "seat_id") {
            match value_of(&field.name, order) {
                Some(value) => fields.push((field.name.clone(), value)),
                None if field.mandatory => {
                    let detail =
                        format!("the profile {id} wants {}, which this order does not have", field.name);
                    return Err(CaError::Settings { detail });
                }
                None => {}
            }
        }
        Ok(Enroll {
            profile: profile.oid.clone(),
            transaction: transaction_of(&order.request),
            renew: order.renews.is_some(),
            csr: order.csr.clone(),
            fields,
        })
    }

    /// Certificates in the service's books that match.
    async fn search(&self, net: &Net, base: &Endpoint, search: Search) -> Result<Vec<Entry>, CaError> {
        let mut all = Vec::new();
        for _ in 0..limits::SEARCH_PAGES_MAX {
            let search = Search { transaction: transaction(), start: all.len(), ..search.clone() };
            let page = self.ask(net, base, &Request::Search(search), Found::read).await?;
            let more = page.more && !page.certificates.is_empty();
            all.extend(page.certificates);
            if !more {
                break;
            }
        }
        Ok(all)
    }

    /// What an earlier try has led to, if to anything.
    async fn found(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        enroll: &Enroll,
    ) -> Result<Option<Vec<u8>>, CaError> {
        let csr = Csr::read(&order.csr)
            .map_err(|_| CaError::Settings { detail: "the request is no PKCS#10".to_owned() })?;
        let seat = enroll.fields.first().map(|(_, seat)| seat.clone());
        let search = Search { seat, profile: Some(enroll.profile.clone()), ..Search::default() };
        let found = self.search(net, base, search).await?.into_iter().map(|entry| entry.certificate);
        let ours = |der: &Vec<u8>| {
            Certificate::read(der).is_ok_and(|found| found.public_key().same_as(csr.public_key()))
        };
        Ok(found.into_iter().find(ours))
    }

    async fn at(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        keep: &dyn Keep,
    ) -> Result<Answer, CaError> {
        let enroll = self.enroll(net, base, order).await?;
        let ticket = Ticket { url: base.url.clone(), at_ms: net.clock.now_ms(), ..Ticket::default() };
        let request = Request::Enroll(enroll);
        let (endpoint, message) = ticket.send(keep, self.call(net, base, &request)).await?;
        let enrolled = Enrolled::read(&message).map_err(|error| soap::misshapen(&endpoint, &error))?;
        let bag = issued::bag(&endpoint, &enrolled.bag)?;
        issued::answer(&endpoint, &self.settings, order, &bag)
    }

    /// What became of a request whose answer was lost.
    async fn asked(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        ticket: &Ticket,
    ) -> Result<Answer, CaError> {
        if !ticket.sent {
            return Ok(Answer::Unknown);
        }
        let enroll = self.enroll(net, base, order).await?;
        match self.found(net, base, order, &enroll).await? {
            Some(certificate) => issued::answer(base, &self.settings, order, &[certificate]),
            None => ticket.settled(net, limits::SETTLES_WITHIN).map(|()| Answer::Unknown),
        }
    }

    async fn revoked(
        &self,
        net: &Net,
        base: &Endpoint,
        id: &CertificateId,
        reason: RevocationReason,
    ) -> Result<Revocation, CaError> {
        let request = Request::UpdateStatus(UpdateStatus {
            transaction: transaction(),
            target: Target::Serial(id.serial.clone()),
            issuer: None,
            reason: Some(match reason {
                RevocationReason::Unspecified => Reason::Unspecified,
                RevocationReason::KeyCompromise => Reason::KeyCompromise,
                RevocationReason::Superseded => Reason::Superseded,
                RevocationReason::CessationOfOperation => Reason::CessationOfOperation,
            }),
            operation: Operation::Revoke,
        });
        let updated = self.ask(net, base, &request, Updated::read).await;
        // Whatever it says about the order, what counts is what its books say afterwards.
        let search = Search { serial: Some(id.serial.clone()), ..Search::default() };
        let books = self.search(net, base, search).await?;
        if books.iter().any(|entry| entry.status.eq_ignore_ascii_case("REVOKED")) {
            return Ok(Revocation::Done);
        }
        let host = base.to_string();
        match updated? {
            Updated { code, message, .. } if code < 0 => {
                Err(CaError::Refused { host, code: code.to_string(), detail: issued::shortened(&message) })
            }
            _ => {
                let detail =
                    "it says that the certificate is revoked, but its books do not; look at them".to_owned();
                Err(CaError::Answer { host, detail })
            }
        }
    }
}

/// The value of a field of a profile, by the name it has there.
fn value_of(field: &str, order: &Order) -> Option<String> {
    let variable = |name: &str| order.variables.get(name).filter(|value| !value.is_empty()).cloned();
    let subject = |kind| Name::parse(&order.subject).ok()?.value(kind).map(str::to_owned);
    let alternative = |kind: &str| {
        let mut names = order.alternative_names.iter();
        names.find_map(|name| {
            name.split_once(':').filter(|(known, _)| *known == kind).map(|(_, value)| value.to_owned())
        })
    };
    match field {
        "common_name" => subject(oid::CN).or_else(|| variable("cn")),
        "mail" | "mail_email" | "emailAddress" | "email" => {
            alternative("email").or_else(|| subject(oid::EMAIL_ADDRESS)).or_else(|| variable("email"))
        }
        "user_principal_name" | "upn" => alternative("upn").or_else(|| variable("upn")),
        "mail_firstName" => subject(oid::GIVEN_NAME),
        "mail_lastName" => subject(oid::SURNAME),
        "country" => subject(oid::COUNTRY),
        other => variable(other),
    }
}

/// An id for an exchange that may be repeated.
fn transaction() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The id of an order's exchange: the same for ever, of a form every service takes.
fn transaction_of(request: &str) -> String {
    let hash = digest(&SHA256, request.as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Authority for Mpki {
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.front_ends.look(move |server| {
            Box::pin(async move {
                let profiles = self.profiles(net, server.endpoint()).await?;
                let names: Vec<String> =
                    profiles.iter().map(|profile| format!("{} ({})", profile.name, profile.oid)).collect();
                let facts = vec![("profiles".to_owned(), issued::shortened(&names.join(", ")))];
                Ok(Seen { facts, ..Seen::default() })
            })
        }))
    }

    fn submit<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        keep: &'a dyn Keep,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.front_ends.first(false, move |server| {
            Box::pin(async move { self.at(net, server.endpoint(), order, keep).await })
        }))
    }

    /// Nothing waits here, requests are decided at once; but an answer may have got lost.
    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.front_ends.first(true, move |server| {
            Box::pin(async move { self.asked(net, server.endpoint(), order, &Ticket::read(ticket)?).await })
        }))
    }

    fn revoke<'a>(
        &'a self,
        net: &'a Net,
        id: &'a CertificateId,
        reason: RevocationReason,
    ) -> BoxFuture<'a, Result<Revocation, CaError>> {
        if self.settings.revocation != RevocationKind::Auto {
            return Box::pin(async { Ok(issued::not_told()) });
        }
        Box::pin(self.front_ends.first(true, move |server| {
            Box::pin(async move { self.revoked(net, server.endpoint(), id, reason).await })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orders_exchange_keeps_its_id() {
        assert_eq!(transaction_of("r-1"), transaction_of("r-1"));
        assert_ne!(transaction_of("r-1"), transaction_of("r-2"));
        assert_eq!(transaction_of("x").len(), 32);
    }
}
