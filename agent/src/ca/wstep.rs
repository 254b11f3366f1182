//! The web services of Active Directory Certificate Services: the enrolment policy service says which templates there
//! are and who issues them (MS-XCEP), the enrolment service issues (MS-WSTEP).
//!
//! A URL that ends in `/CEP` is a policy service, any other one an enrolment service. Neither knows repeats nor search, so
//! a request whose answer was lost is never sent again. They cannot revoke.

use causeway_protocol::Secret;
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::enrol::soap::{Fault, Head, Message, Version};
use causeway_protocol::enrol::wstep::{Detail, Request, Response, Wrapping};
use causeway_protocol::enrol::xcep::{self, Authentication, Policies, Uri};
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use super::http::{Endpoint, FrontEnds, Who};
use super::once::{Failed, Ticket};
use super::settings::CaSettings;
use super::soap::{self, Reply};
use super::{Answer, Authority, CaError, Keep, Order, Revocation, Seen, issued};
use crate::directory::Net;
use crate::secrets::SecretStore;

/// Enrolment services of one authority.
pub struct Wstep {
    name: String,
    settings: CaSettings,
    secrets: SecretStore,
    front_ends: FrontEnds,
}

/// Where an enrolment goes.
struct Service {
    endpoint: Endpoint,
    authentication: Authentication,
    /// The authority's certificate, where the policy service gave it.
    authority: Option<Vec<u8>>,
}

impl Wstep {
    /// Connects to nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        let front_ends = FrontEnds::new(name, &settings, secrets.clone());
        Self { name: name.to_owned(), settings, secrets, front_ends }
    }

    /// Asks a service, showing who we are the way it wants it.
    async fn call(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        authentication: Authentication,
        write: impl FnOnce(Head<'_>) -> String,
    ) -> Result<Message, Failed> {
        let token = authentication == Authentication::UserName;
        let password = if token { Some(self.password(endpoint)?) } else { None };
        let user = self.settings.user.as_deref().unwrap_or_default();
        let id = format!("urn:uuid:{}", Uuid::new_v4());
        let envelope = write(Head {
            message_id: Some(&id),
            to: Some(&endpoint.url),
            user: password.as_ref().map(|password| (user, password)),
            ..Head::default()
        });
        let who = if token { Who::Nobody } else { Who::Account };
        match soap::call(&self.front_ends, net, endpoint, Version::V12, None, envelope, who).await? {
            Reply::Message(message) => match message.relates_to() {
                Some(other) if other != id => {
                    let detail = "the answer belongs to another message".to_owned();
                    Err(CaError::Answer { host: endpoint.to_string(), detail }.into())
                }
                _ => Ok(message),
            },
            Reply::Fault(fault) => Err(self.judged(endpoint, &fault, password.as_ref())),
        }
    }

    /// The password for a user name token; one that was refused is not shown again.
    fn password(&self, endpoint: &Endpoint) -> Result<Secret, CaError> {
        let host = endpoint.to_string();
        let secret = CaSettings::password_name(&self.name);
        let user = self.settings.user.as_deref().unwrap_or_default();
        let Some(password) = self.secrets.newest(&secret).filter(|password| !password.is_empty()) else {
            let detail = format!("the secret {secret} with the password of {user} is not stored");
            return Err(CaError::Credentials { host, detail });
        };
        if !endpoint.tls && !endpoint.is_loopback() {
            let detail = format!("{} would show the password to everybody", endpoint.url);
            return Err(CaError::Settings { detail });
        }
        if self.secrets.is_refused(user, &password) {
            let detail = format!("{user} was refused before; store the password again once it is right");
            return Err(CaError::Credentials { host, detail });
        }
        Ok(password)
    }

    /// What a fault means: nothing was issued.
    fn judged(&self, endpoint: &Endpoint, fault: &Fault, password: Option<&Secret>) -> Failed {
        let host = endpoint.to_string();
        let reason = issued::shortened(&fault.reason);
        let error = match fault.code.as_str() {
            // WS-Security 1.0 section 12.
            "FailedAuthentication" | "InvalidSecurityToken" | "InvalidSecurity" => {
                if let (Some(user), Some(password)) = (&self.settings.user, password) {
                    self.secrets.note_refused(user, password);
                }
                CaError::Credentials { host, detail: reason }
            }
            "AccessDenied" => CaError::Forbidden { host, detail: reason },
            _ => {
                let detail = fault.detail.as_ref().map(Detail::read).unwrap_or_default();
                // HRESULTs are written as signed numbers; people know them as 0x8009....
                let code = detail.error_code.map(|code| format!("{:#010x}", code & 0xffff_ffff));
                CaError::Refused { host, code: code.unwrap_or_else(|| fault.code.clone()), detail: reason }
            }
        };
        Failed { error, acted: false }
    }

    /// What a configured URL says about who we have to be.
    fn authentication_of(&self, endpoint: &Endpoint) -> Authentication {
        let path = endpoint.path.to_ascii_lowercase();
        if path.contains("_usernamepassword") {
            Authentication::UserName
        } else if path.contains("_certificate") {
            Authentication::Certificate
        } else {
            Authentication::Kerberos
        }
    }

    async fn policies(&self, net: &Net, endpoint: &Endpoint) -> Result<Policies, CaError> {
        let authentication = self.authentication_of(endpoint);
        let message = self
            .call(net, endpoint, authentication, xcep::write_request)
            .await
            .map_err(|failed| failed.error)?;
        Policies::read(&message).map_err(|error| soap::misshapen(endpoint, &error))
    }

    /// The enrolment service for an order: the configured one, or the one that the policy service names.
    async fn service(&self, net: &Net, endpoint: &Endpoint, order: &Order) -> Result<Service, CaError> {
        if !is_policy_service(endpoint) {
            let authentication = self.authentication_of(endpoint);
            return Ok(Service { endpoint: endpoint.clone(), authentication, authority: None });
        }
        let host = || endpoint.to_string();
        let policies = self.policies(net, endpoint).await?;
        let cas = match &order.template {
            None => None,
            Some(template) => {
                let mut all = policies.policies.iter();
                let policy = all
                    .find(|policy| policy.common_name.eq_ignore_ascii_case(template))
                    .ok_or_else(|| {
                        let offered: Vec<&str> = policies
                            .policies
                            .iter()
                            .map(|policy| policy.common_name.as_str())
                            .take(10)
                            .collect();
                        let detail = format!("it offers no template {template}, but {}", offered.join(", "));
                        CaError::Refused { host: host(), code: "no_template".to_owned(), detail }
                    })?;
                if !policy.may_enroll {
                    let detail = format!(
                        "the account may not enrol for {template}; allow it in the template's security"
                    );
                    return Err(CaError::Forbidden { host: host(), detail });
                }
                Some(&policy.cas)
            }
        };
        let usable = policies
            .cas
            .iter()
            .filter(|ca| ca.may_enroll && cas.is_none_or(|cas| cas.contains(&ca.reference)));
        let uris = usable.flat_map(|ca| ca.uris.iter().map(move |uri| (ca, uri)));
        let ours = uris.filter(|(_, uri)| !uri.renewal_only && self.can(uri.authentication));
        let best = ours.min_by_key(|(_, uri): &(_, &Uri)| uri.priority);
        let (ca, uri) = best.ok_or_else(|| {
            let detail =
                "it names no enrolment service that takes the account or certificate we have".to_owned();
            CaError::Refused { host: host(), code: "no_service".to_owned(), detail }
        })?;
        let at = Endpoint::read(&uri.uri).map_err(|problem| CaError::Answer {
            host: host(),
            detail: format!("it names an enrolment service, but {problem}"),
        })?;
        Ok(Service {
            endpoint: at,
            authentication: uri.authentication,
            authority: Some(ca.certificate.clone()),
        })
    }

    /// Whether we have what it takes.
    fn can(&self, authentication: Authentication) -> bool {
        match authentication {
            Authentication::Anonymous => true,
            Authentication::Certificate => self.settings.certificate_file.is_some(),
            Authentication::UserName => self.settings.user.is_some(),
            // The account signs in by HTTP.
            Authentication::Kerberos => self.settings.user.is_some(),
        }
    }

    async fn request(&self, net: &Net, service: &Service, request: Request) -> Result<Response, Failed> {
        let endpoint = &service.endpoint;
        let message = self.call(net, endpoint, service.authentication, |head| request.write(head)).await?;
        Ok(Response::read(&message).map_err(|error| soap::misshapen(endpoint, &error))?)
    }

    /// What an answer leads to.
    fn answered(
        &self,
        service: &Service,
        order: &Order,
        mut ticket: Ticket,
        response: Response,
    ) -> Result<Answer, CaError> {
        let endpoint = &service.endpoint;
        if response.request_id.is_some() {
            ticket.id = response.request_id;
        }
        let mut bag = match &response.bag {
            Some(bytes) => issued::bag(endpoint, bytes)?,
            None => Vec::new(),
        };
        match response.certificate {
            Some(certificate) => {
                bag.push(certificate);
                bag.extend(service.authority.clone());
                issued::answer(endpoint, &self.settings, order, &bag)
            }
            None if ticket.id.is_some() => Ok(Answer::Pending { ticket: ticket.value(), ask_after: None }),
            None => {
                let detail = "it neither issues nor says under which number the request waits".to_owned();
                Err(CaError::Answer { host: endpoint.to_string(), detail })
            }
        }
    }

    async fn submitted(&self, net: &Net, order: &Order, keep: &dyn Keep) -> Result<Answer, CaError> {
        let (service, ticket, response) = self
            .front_ends
            .first(false, |server| {
                Box::pin(async move {
                    let service = self.service(net, server.endpoint(), order).await?;
                    let template =
                        order.template.iter().map(|name| ("CertificateTemplate".to_owned(), name.clone()));
                    let request = Request::Issue {
                        wrapping: Wrapping::Pkcs10,
                        request: order.csr.clone(),
                        attributes: template.collect(),
                    };
                    let url = server.endpoint().url.clone();
                    let ticket = Ticket { url, at_ms: net.clock.now_ms(), ..Ticket::default() };
                    let response = ticket.clone().send(keep, self.request(net, &service, request)).await?;
                    Ok((service, ticket, response))
                })
            })
            .await?;
        if let Some(id) = &response.request_id {
            let known = Ticket { sent: true, id: Some(id.clone()), ..ticket.clone() };
            keep.keep(known.value()).await?;
        }
        self.answered(&service, order, Ticket { sent: true, ..ticket }, response)
    }

    /// Asks what became of a request whose number is known.
    async fn asked(&self, net: &Net, order: &Order, ticket: &Ticket) -> Result<Answer, CaError> {
        let server = self.front_ends.named(&ticket.url).ok_or_else(|| CaError::Settings {
            detail: format!(
                "{} has the request, but is not among the URLs any more; put it back",
                ticket.url
            ),
        })?;
        let service = self.service(net, server.endpoint(), order).await?;
        let request = Request::Query { request_id: ticket.id.clone().unwrap_or_default() };
        let response = self.request(net, &service, request).await.map_err(|failed| failed.error)?;
        self.answered(&service, order, ticket.clone(), response)
    }

    async fn seen(&self, net: &Net, endpoint: &Endpoint) -> Result<Seen, CaError> {
        let policies = self.policies(net, endpoint).await?;
        let ours: Vec<Vec<u8>> =
            policies.cas.iter().filter(|ca| ca.may_enroll).map(|ca| ca.certificate.clone()).take(1).collect();
        let chain = issued::upwards(endpoint, &self.settings, &ours)?;
        let names: Vec<&str> = policies
            .policies
            .iter()
            .filter(|policy| policy.may_enroll)
            .map(|policy| policy.common_name.as_str())
            .collect();
        let facts = vec![
            ("policy server".to_owned(), issued::shortened(&policies.friendly_name)),
            ("templates we may use".to_owned(), issued::shortened(&names.join(", "))),
        ];
        Ok(Seen { ends: issued::ends(&chain), chain, facts, ..Seen::default() })
    }
}

fn is_policy_service(endpoint: &Endpoint) -> bool {
    let path = endpoint.path.split('?').next().unwrap_or_default();
    path.trim_end_matches('/').to_ascii_uppercase().ends_with("/CEP")
}

impl Authority for Wstep {
    /// An enrolment service has nothing to look at: it is asked for a request that does not exist, which shows whether it
    /// is there and lets us in.
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.front_ends.look(move |server| {
            Box::pin(async move {
                let endpoint = server.endpoint();
                if is_policy_service(endpoint) {
                    return self.seen(net, endpoint).await;
                }
                let authentication = self.authentication_of(endpoint);
                let service = Service { endpoint: endpoint.clone(), authentication, authority: None };
                match self.request(net, &service, Request::Query { request_id: "0".to_owned() }).await {
                    Ok(_) | Err(Failed { error: CaError::Refused { .. }, .. }) => Ok(Seen::default()),
                    Err(failed) => Err(failed.error),
                }
            })
        }))
    }

    fn submit<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        keep: &'a dyn Keep,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.submitted(net, order, keep))
    }

    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(async move {
            match Ticket::read(ticket)? {
                ticket if ticket.id.is_some() => self.asked(net, order, &ticket).await,
                ticket if ticket.sent => Err(ticket.unclear()),
                _ => Ok(Answer::Unknown),
            }
        })
    }

    fn revoke<'a>(
        &'a self,
        _net: &'a Net,
        id: &'a CertificateId,
        reason: RevocationReason,
    ) -> BoxFuture<'a, Result<Revocation, CaError>> {
        Box::pin(async move { Ok(issued::by_certutil(id, reason)) })
    }
}
