//! Entrust's older administration services, behind an adapter that speaks a contract of our own: their interface is not
//! public. An issue is named by the order for ever, so repeating one leads to the same certificate.

use causeway_protocol::Secret;
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::enrol::ShapeError;
use causeway_protocol::enrol::digital_id::{self, Create, Created, DigitalId, REPLACE, Request};
use causeway_protocol::enrol::soap::{Message, Version};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::gateway::parts;
use crate::ca::http::{Endpoint, FrontEnds, Who};
use crate::ca::settings::{CaSettings, RevocationKind};
use crate::ca::soap::{self, Reply};
use crate::ca::{Answer, Authority, CaError, Keep, Order, Revocation, Seen, issued};
use crate::directory::Net;
use crate::secrets::SecretStore;

/// One adapter, or several before one authority.
pub struct DigitalIds {
    name: String,
    settings: CaSettings,
    secrets: SecretStore,
    front_ends: FrontEnds,
}

impl DigitalIds {
    /// Connects to nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        let front_ends = FrontEnds::new(name, &settings, secrets.clone());
        Self { name: name.to_owned(), settings, secrets, front_ends }
    }

    async fn call<T>(
        &self,
        net: &Net,
        endpoint: &Endpoint,
        request: &Request,
        read: impl FnOnce(&Message) -> Result<T, ShapeError>,
    ) -> Result<T, CaError> {
        let host = endpoint.to_string();
        let user = self.settings.user.as_deref().unwrap_or_default();
        let password = self.password(&host, user)?;
        let envelope = request.write(user, &password);
        let action = request.soap_action();
        let called =
            soap::call(&self.front_ends, net, endpoint, Version::V11, Some(&action), envelope, Who::Nobody);
        match called.await.map_err(|failed| failed.error)? {
            Reply::Message(message) => read(&message).map_err(|error| soap::misshapen(endpoint, &error)),
            Reply::Fault(fault) => {
                let detail = issued::shortened(&fault.reason);
                Err(match fault.code.as_str() {
                    "FailedAuthentication" => {
                        self.secrets.note_refused(user, &password);
                        CaError::Credentials { host, detail }
                    }
                    "AccessDenied" => CaError::Forbidden { host, detail },
                    "Server" | "Busy" => CaError::Busy { host, detail, retry_after: None },
                    code => CaError::Refused { host, code: code.to_owned(), detail },
                })
            }
        }
    }

    fn password(&self, host: &str, user: &str) -> Result<Secret, CaError> {
        let secret = CaSettings::password_name(&self.name);
        let host = host.to_owned();
        let Some(password) = self.secrets.newest(&secret).filter(|password| !password.is_empty()) else {
            let detail = format!("the secret {secret} with the password of {user} is not stored");
            return Err(CaError::Credentials { host, detail });
        };
        if self.secrets.is_refused(user, &password) {
            let detail = format!("{user} was refused before; store the password again once it is right");
            return Err(CaError::Credentials { host, detail });
        }
        Ok(password)
    }

    async fn list(&self, net: &Net, endpoint: &Endpoint) -> Result<Vec<DigitalId>, CaError> {
        let request = Request::List { group: self.settings.group.clone() };
        self.call(net, endpoint, &request, digital_id::read_list).await
    }

    async fn create(&self, net: &Net, endpoint: &Endpoint, order: &Order) -> Result<Created, CaError> {
        let name = order.template.clone().ok_or_else(|| CaError::Settings {
            detail: "the profile names no template; write the name of a Digital ID".to_owned(),
        })?;
        let ids = self.list(net, endpoint).await?;
        let id = ids.iter().find(|id| id.name == name).ok_or_else(|| {
            let known: Vec<&str> = ids.iter().map(|id| id.name.as_str()).take(10).collect();
            let detail = format!("it has no Digital ID {name}, but {}", known.join(", "));
            CaError::Refused { host: endpoint.to_string(), code: "unknown_digital_id".to_owned(), detail }
        })?;
        let create = Create {
            request: order.request.clone(),
            name: id.name.clone(),
            values: values(id, order)?,
            csr: order.csr.clone(),
        };
        self.call(net, endpoint, &Request::Create(create), Created::read).await
    }

    async fn at(&self, net: &Net, endpoint: &Endpoint, order: &Order) -> Result<Answer, CaError> {
        match self.create(net, endpoint, order).await? {
            Created::Pending => {
                Ok(Answer::Pending { ticket: json!({ "request": order.request }), ask_after: None })
            }
            Created::Issued { certificate, chain } => {
                let mut bag = vec![certificate];
                bag.extend(chain);
                issued::answer(endpoint, &self.settings, order, &bag)
            }
        }
    }
}

/// Values of the parts that the caller fills in: from the subject of the order, else from its variables.
fn values(id: &DigitalId, order: &Order) -> Result<Vec<(String, String)>, CaError> {
    let subject = parts(&order.subject)?;
    let open = id.subject.iter().filter(|(_, value)| value == REPLACE);
    open.map(|(field, _)| {
        let in_subject =
            subject.iter().find(|(kind, _)| kind.eq_ignore_ascii_case(field)).map(|(_, value)| value);
        let value = in_subject.or_else(|| order.variables.get(field)).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| CaError::Settings {
            detail: format!("the Digital ID {} wants {field}, which this order does not have", id.name),
        })?;
        Ok((field.clone(), value.clone()))
    })
    .collect()
}

impl Authority for DigitalIds {
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.front_ends.look(move |server| {
            Box::pin(async move {
                let ids = self.list(net, server.endpoint()).await?;
                let names: Vec<&str> = ids.iter().map(|id| id.name.as_str()).collect();
                let facts = vec![("Digital IDs".to_owned(), issued::shortened(&names.join(", ")))];
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
        Box::pin(async move {
            keep.keep(json!({ "request": order.request })).await?;
            // Repeats are safe at one adapter; another one may know nothing of them.
            self.front_ends
                .first(false, move |server| {
                    Box::pin(async move { self.at(net, server.endpoint(), order).await })
                })
                .await
        })
    }

    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        _ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(
            self.front_ends.first(true, move |server| {
                Box::pin(async move { self.at(net, server.endpoint(), order).await })
            }),
        )
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
        let reason = match reason {
            RevocationReason::Unspecified => "unspecified",
            RevocationReason::KeyCompromise => "keyCompromise",
            RevocationReason::Superseded => "superseded",
            RevocationReason::CessationOfOperation => "cessationOfOperation",
        };
        Box::pin(self.front_ends.first(true, move |server| {
            Box::pin(async move {
                let endpoint = server.endpoint();
                let request = Request::Revoke { serial: id.serial.clone(), reason: reason.to_owned() };
                let status = self.call(net, endpoint, &request, digital_id::read_revoked).await?;
                if status.eq_ignore_ascii_case("REVOKED") {
                    return Ok(Revocation::Done);
                }
                let detail = format!("it says the certificate is {}", issued::shortened(&status));
                Err(CaError::Answer { host: endpoint.to_string(), detail })
            })
        }))
    }
}
