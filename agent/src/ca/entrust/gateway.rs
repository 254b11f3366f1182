//! Entrust CA Gateway: REST over TLS with a certificate of ours.
//!
//! A tracking id is asked for again. An enrolment whose answer was lost is looked for among the authority's events before
//! another one goes out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::enrol::gateway::{
    self, Act, Action, Details, Enroll, Enrollment, Events, Failed as Failure, Format, OneAuthority,
    OneCertificate, OneProfile, Profile, Profiles, PutRevoke, Typed,
};
use causeway_protocol::enrol::{ShapeError, base64_text};
use causeway_protocol::pkix::{Certificate, Csr, Name};
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ca::http::{Ask, Endpoint, FrontEnds, Who};
use crate::ca::once::{Failed, Ticket};
use crate::ca::percent::encoded;
use crate::ca::settings::{CaSettings, GatewayRevoke, RevocationKind};
use crate::ca::soap::misshapen;
use crate::ca::{Answer, Authority, CaError, Keep, Order, Revocation, Seen, issued, limits};
use crate::directory::Net;
use crate::secrets::SecretStore;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One gateway, or several before one authority.
pub struct Gateway {
    settings: CaSettings,
    front_ends: FrontEnds,
}

impl Gateway {
    /// Connects to nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        Self { front_ends: FrontEnds::new(name, &settings, secrets), settings }
    }

    /// A resource of the authority.
    fn resource(&self, base: &Endpoint, path: &str) -> Endpoint {
        let root = base.path.split('?').next().unwrap_or_default().trim_end_matches('/');
        base.at(format!("{root}{}/{}{path}", gateway::PATH, encoded(&self.settings.authority_id)))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        method: Method,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failed> {
        let bytes =
            body.map(|body| serde_json::to_vec(body).expect("text always becomes JSON")).unwrap_or_default();
        let headers = HeaderMap::from_iter([(ACCEPT, JSON), (CONTENT_TYPE, JSON)]);
        let ask = Ask { method, headers, body: Bytes::from(bytes) };
        let answer = self.front_ends.send(net, endpoint, ask, Who::Account).await?;
        if answer.status.is_success() {
            return Ok(gateway::answer(&answer.body).map_err(|error| misshapen(endpoint, &error))?);
        }
        let said = gateway::answer::<Failure>(&answer.body);
        match said {
            Ok(Failure { error })
                if answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS =>
            {
                let (code, detail) = (issued::shortened(&error.code), issued::shortened(&error.message));
                let host = endpoint.to_string();
                Err(match answer.status {
                    StatusCode::UNAUTHORIZED => CaError::Credentials { host, detail },
                    StatusCode::FORBIDDEN => CaError::Forbidden { host, detail },
                    _ => CaError::Refused { host, code, detail },
                }
                .into())
            }
            _ => Err(Failed::of_status(endpoint, &answer)),
        }
    }

    async fn get<T: DeserializeOwned>(&self, net: &Net, endpoint: &Endpoint) -> Result<T, CaError> {
        self.call(net, endpoint, Method::GET, None::<&()>).await.map_err(|failed| failed.error)
    }

    /// The authority's certificates, from itself upwards.
    async fn authority(&self, net: &Net, base: &Endpoint) -> Result<Vec<Vec<u8>>, CaError> {
        let endpoint = self.resource(base, "?$fields=ca.certificate,ca.chain");
        let OneAuthority { ca, .. } = self.get(net, &endpoint).await?;
        let all = ca.certificate.iter().chain(&ca.chain).map(|one| one.der());
        all.collect::<Result<_, _>>().map_err(|error| misshapen(&endpoint, &error))
    }

    async fn enroll(&self, net: &Net, base: &Endpoint, order: &Order) -> Result<Enroll, CaError> {
        let profile_id = order.template.clone().ok_or_else(|| CaError::Settings {
            detail: "the profile names no template; write the id of one of the gateway's profiles".to_owned(),
        })?;
        let endpoint = self.resource(base, &format!("/profiles/{}", encoded(&profile_id)));
        let OneProfile { profile, .. } = self.get(net, &endpoint).await?;
        let (subject_variables, subject_dn) = subject(&profile, order)?;
        let names = order.alternative_names.iter().map(|name| alternative(name));
        Ok(Enroll {
            profile_id,
            required_format: Format { format: "PEM".to_owned() },
            csr: Some(STANDARD.encode(&order.csr)),
            subject_variables,
            subject_alt_names: names.collect::<Result<_, _>>()?,
            include_ca: true,
            properties: Default::default(),
            optional_certificate_request_details: subject_dn
                .map(|dn| Details { subject_dn: Some(dn), validity_period: None }),
        })
    }

    /// What became of an enrolment.
    async fn judged(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        ticket: &Ticket,
        enrollment: Enrollment,
    ) -> Result<Answer, CaError> {
        let shape = |error: ShapeError| misshapen(base, &error);
        let status = enrollment.status.to_ascii_uppercase();
        if let Some(body) = enrollment.body.as_deref().filter(|body| !body.trim().is_empty()) {
            let mut bag = vec![base64_text(body, "body").map_err(shape)?];
            for link in &enrollment.chain {
                bag.push(base64_text(&link.certificate_data, "certificateData").map_err(shape)?);
            }
            if enrollment.chain.is_empty() {
                bag.extend(self.authority(net, base).await?);
            }
            return issued::answer(base, &self.settings, order, &bag);
        }
        if matches!(status.as_str(), "REJECTED" | "FAILED" | "DENIED" | "CANCELLED") {
            let detail = issued::shortened(enrollment.reason.as_deref().unwrap_or("it gives no reason"));
            return Err(CaError::Refused {
                host: base.to_string(),
                code: status.to_ascii_lowercase(),
                detail,
            });
        }
        if enrollment.id.is_empty() {
            let detail = "it neither issues nor gives a tracking id".to_owned();
            return Err(CaError::Answer { host: base.to_string(), detail });
        }
        let ticket = Ticket { id: Some(enrollment.id), sent: true, ..ticket.clone() };
        Ok(Answer::Pending { ticket: ticket.value(), ask_after: None })
    }

    /// A certificate with the order's key among what was issued since a try.
    async fn found(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        since_ms: i64,
    ) -> Result<Option<Vec<u8>>, CaError> {
        let csr = Csr::read(&order.csr)
            .map_err(|_| CaError::Settings { detail: "the request is no PKCS#10".to_owned() })?;
        // By the gateway's clock, whose last answer has told it.
        let since_ms = since_ms + self.front_ends.ahead_ms(base).unwrap_or_default();
        let since =
            i128::from(since_ms) * 1_000_000 - i128::try_from(limits::CLOCKS_DIFFER.as_nanos()).unwrap_or(0);
        let since =
            OffsetDateTime::from_unix_timestamp_nanos(since).ok().and_then(|at| at.format(&Rfc3339).ok());
        let since = encoded(&since.unwrap_or_default());
        let query = format!("startDate={since}&preferredPageSize={}", limits::EVENTS_PAGE);
        let mut next = String::new();
        for _ in 0..limits::EVENTS_PAGES_MAX {
            let endpoint = self.resource(base, &format!("/certificate-events?{query}{next}"));
            let page: Events = self.get(net, &endpoint).await?;
            for text in page.events.iter().filter_map(|event| event.certificate.as_deref()) {
                let Ok(der) = base64_text(text, "certificate") else { continue };
                let fits = |read: Certificate| read.public_key().same_as(csr.public_key());
                if Certificate::read(&der).is_ok_and(fits) {
                    return Ok(Some(der));
                }
            }
            match page.next_page_index {
                Some(index) if page.more_pages => next = format!("&nextPageIndex={index}"),
                _ => return Ok(None),
            }
        }
        let detail =
            "there are more events than can be looked through; look for the certificate in its console"
                .to_owned();
        Err(CaError::Unclear { host: base.to_string(), detail })
    }

    /// What became of an enrolment whose answer was lost.
    async fn lost(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        ticket: Ticket,
    ) -> Result<Answer, CaError> {
        if let Some(certificate) = self.found(net, base, order, ticket.at_ms).await? {
            let mut bag = vec![certificate];
            bag.extend(self.authority(net, base).await?);
            return issued::answer(base, &self.settings, order, &bag);
        }
        ticket.settled(net, limits::SETTLES_WITHIN)?;
        // It may also wait for a person, which no event tells.
        let detail =
            "no event shows a certificate, but the request may wait for approval; look for it in its console";
        Err(CaError::Unclear { host: base.to_string(), detail: detail.to_owned() })
    }

    async fn submitted(
        &self,
        net: &Net,
        base: &Endpoint,
        order: &Order,
        keep: &dyn Keep,
    ) -> Result<Answer, CaError> {
        let enroll = self.enroll(net, base, order).await?;
        let endpoint = self.resource(base, "/enrollments");
        let ticket = Ticket { url: base.url.clone(), at_ms: net.clock.now_ms(), ..Ticket::default() };
        let work = self.call::<gateway::Enrolled>(net, &endpoint, Method::POST, Some(&enroll));
        let enrolled = ticket.clone().send(keep, work).await?.enrollment;
        if !enrolled.id.is_empty() {
            let known = Ticket { id: Some(enrolled.id.clone()), sent: true, ..ticket.clone() };
            keep.keep(known.value()).await?;
        }
        self.judged(net, base, order, &ticket, enrolled).await
    }

    async fn asked(&self, net: &Net, order: &Order, ticket: &Ticket) -> Result<Answer, CaError> {
        let server = self.front_ends.named(&ticket.url).ok_or_else(|| CaError::Settings {
            detail: format!(
                "{} has the request, but is not among the URLs any more; put it back",
                ticket.url
            ),
        })?;
        let base = server.endpoint();
        let id = ticket.id.as_deref().unwrap_or_default();
        let endpoint = self.resource(base, &format!("/enrollments/{}", encoded(id)));
        let gateway::Enrolled { enrollment, .. } = self.get(net, &endpoint).await?;
        self.judged(net, base, order, ticket, enrollment).await
    }

    async fn revoked(
        &self,
        net: &Net,
        base: &Endpoint,
        id: &CertificateId,
        reason: RevocationReason,
    ) -> Result<Revocation, CaError> {
        let reason = match reason {
            RevocationReason::Unspecified => "unspecified",
            RevocationReason::KeyCompromise => "keyCompromise",
            RevocationReason::Superseded => "superseded",
            RevocationReason::CessationOfOperation => "cessationOfOperation",
        };
        let certificate = format!("/certificates/{}", encoded(&id.serial));
        let told: Result<Value, Failed> = match self.settings.gateway_revoke {
            GatewayRevoke::Actions => {
                let action = Action {
                    kind: "RevokeAction".to_owned(),
                    reason: Some(reason.to_owned()),
                    comment: None,
                    succeed_if_already_in_requested_state: Some(true),
                    status: None,
                };
                let endpoint = self.resource(base, &format!("{certificate}/actions"));
                self.call(net, &endpoint, Method::POST, Some(&Act { action })).await
            }
            GatewayRevoke::Put => {
                let endpoint = self.resource(base, &format!("{certificate}/revoke"));
                self.call(net, &endpoint, Method::PUT, Some(&PutRevoke { reason: reason.to_owned() })).await
            }
        };
        // What counts is what its books say afterwards.
        let endpoint = self.resource(base, &certificate);
        let books: Result<OneCertificate, CaError> = self.get(net, &endpoint).await;
        match (told, books) {
            (_, Ok(OneCertificate { certificate, .. }))
                if certificate
                    .status
                    .as_deref()
                    .is_some_and(|status| status.eq_ignore_ascii_case("REVOKED")) =>
            {
                Ok(Revocation::Done)
            }
            (Err(failed), _) => Err(failed.error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(_)) => {
                let detail = "it takes the revocation, but its books do not show it; look at them, and at gateway_revoke";
                Err(CaError::Answer { host: base.to_string(), detail: detail.to_owned() })
            }
        }
    }
}

/// The subject as the profile wants it: in parts, or whole.
fn subject(profile: &Profile, order: &Order) -> Result<(Vec<Typed>, Option<String>), CaError> {
    if profile.subject_variable_requirements.is_empty() {
        return Ok((Vec::new(), Some(order.subject.clone())));
    }
    let parts = parts(&order.subject)?;
    let mut variables = Vec::new();
    for wanted in &profile.subject_variable_requirements {
        let before = variables.len();
        let fitting = parts.iter().filter(|(kind, _)| kind.eq_ignore_ascii_case(&wanted.name));
        variables.extend(fitting.map(|(_, value)| Typed { kind: wanted.name.clone(), value: value.clone() }));
        if wanted.required && variables.len() == before {
            let detail =
                format!("the profile {} wants {}, which the subject does not have", profile.id, wanted.name);
            return Err(CaError::Settings { detail });
        }
    }
    Ok((variables, None))
}

/// Short names of the parts of a subject with their values, unescaped.
pub(super) fn parts(subject: &str) -> Result<Vec<(String, String)>, CaError> {
    let wrong = |_| CaError::Settings { detail: "the subject of the order cannot be read".to_owned() };
    let name = Name::parse(subject).map_err(wrong)?;
    let part = |attribute: &causeway_protocol::pkix::Attribute| {
        // A name of one part is written as that part.
        let alone = Name::of([(attribute.kind, attribute.value.clone())]).to_string();
        let kind = alone.split('=').next().unwrap_or_default().to_owned();
        let kind = if kind.eq_ignore_ascii_case("emailAddress") { "mail".to_owned() } else { kind };
        (kind, attribute.value.clone())
    };
    Ok(name.attributes().map(part).collect())
}

/// An alternative name by the gateway's word for its kind (that of a user principal name is not verified).
fn alternative(name: &str) -> Result<Typed, CaError> {
    let (kind, value) = name.split_once(':').unwrap_or_default();
    let kind = match kind {
        "email" => "rfc822Name",
        "dns" => "dNSName",
        "uri" => "uniformResourceIdentifier",
        "ip" => "iPAddress",
        "upn" => "userPrincipalName",
        _ => {
            let detail = format!("the gateway takes no alternative names of the kind {kind}");
            return Err(CaError::Settings { detail });
        }
    };
    Ok(Typed { kind: kind.to_owned(), value: value.to_owned() })
}

impl Authority for Gateway {
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.front_ends.look(move |server| {
            Box::pin(async move {
                let base = server.endpoint();
                let chain = issued::upwards(base, &self.settings, &self.authority(net, base).await?)?;
                let Profiles { profiles, .. } = self.get(net, &self.resource(base, "/profiles")).await?;
                let names: Vec<&str> = profiles.iter().map(|profile| profile.id.as_str()).collect();
                let facts = vec![("profiles".to_owned(), issued::shortened(&names.join(", ")))];
                Ok(Seen { ends: issued::ends(&chain), chain, facts, ..Seen::default() })
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
            Box::pin(async move { self.submitted(net, server.endpoint(), order, keep).await })
        }))
    }

    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(async move {
            let ticket = Ticket::read(ticket)?;
            match ticket.id {
                Some(_) => self.asked(net, order, &ticket).await,
                None if !ticket.sent => Ok(Answer::Unknown),
                None => {
                    let lost = |server: std::sync::Arc<crate::web::servers::Server>| {
                        let ticket = ticket.clone();
                        Box::pin(async move { self.lost(net, server.endpoint(), order, ticket).await })
                            as BoxFuture<'_, _>
                    };
                    self.front_ends.first(true, lost).await
                }
            }
        })
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
