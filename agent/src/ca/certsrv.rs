//! The web pages of Active Directory Certificate Services (`/certsrv`): forms and HTML, made for people.
//!
//! The pages know no repeats and no search, so a request whose answer was lost is never sent again. They cannot revoke.

use std::borrow::Cow;

use bytes::Bytes;
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::enrol::pem;
use futures_util::future::BoxFuture;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use serde_json::Value;

use super::http::{self as web, Ask, Endpoint, FrontEnds, Who};
use super::issued::{self, Chain};
use super::once::{Failed, Ticket};
use super::percent::form;
use super::settings::CaSettings;
use super::{Answer, Authority, CaError, Keep, Order, Revocation, Seen};
use crate::directory::Net;
use crate::secrets::SecretStore;

/// With another one, certificates come as `text/html`.
const BROWSER: &str = "Mozilla/5.0 (compatible; Causeway)";
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// One web enrolment service, or several before one authority.
pub struct Certsrv {
    settings: CaSettings,
    front_ends: FrontEnds,
    chain: Chain,
}

impl Certsrv {
    /// Connects to nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        Self { front_ends: FrontEnds::new(name, &settings, secrets), settings, chain: Chain::default() }
    }

    async fn get(&self, net: &Net, base: &Endpoint, page: &str) -> Result<(Endpoint, web::Answer), CaError> {
        let endpoint = page_of(base, page);
        let headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(BROWSER))]);
        let ask = Ask { method: Method::GET, headers, body: Bytes::new() };
        let answer = self.front_ends.send(net, &endpoint, ask, Who::Account).await?;
        Ok((endpoint.clone(), web::success(&endpoint, answer)?))
    }

    /// The authority's certificates, newest renewal: from the issuer upwards, and how often it was renewed.
    async fn authorities(&self, net: &Net, base: &Endpoint) -> Result<(u32, Vec<Vec<u8>>), CaError> {
        let (endpoint, page) = self.get(net, base, "certcarc.asp").await?;
        let text = String::from_utf8_lossy(&page.body);
        let renewals = number_after(&text, "var nRenewals=").ok_or_else(|| {
            let detail = format!("{} is no page of the web enrolment service", endpoint.path);
            CaError::Answer { host: endpoint.to_string(), detail }
        })?;
        let bag = format!("certnew.p7b?ReqID=CACert&Renewal={renewals}&Enc=bin");
        let (endpoint, bag) = self.get(net, base, &bag).await?;
        if !is_type(&bag, "application/x-pkcs7-certificates") {
            return Err(self.no_certificate(&endpoint, &bag));
        }
        Ok((renewals, issued::bag(&endpoint, &bag.body)?))
    }

    /// Hands in the request and reads the page that follows.
    async fn post(&self, net: &Net, base: &Endpoint, order: &Order) -> Result<Page, Failed> {
        let endpoint = page_of(base, "certfnsh.asp");
        let template = order.template.as_deref().map(|name| format!("CertificateTemplate:{name}\r\n"));
        let body = form(&[
            ("Mode", "newreq"),
            ("CertRequest", &pem("CERTIFICATE REQUEST", &order.csr)),
            ("CertAttrib", template.as_deref().unwrap_or_default()),
            ("FriendlyType", "Saved-Request Certificate"),
            ("ThumbPrint", ""),
            ("TargetStoreFlags", "0"),
            ("SaveCert", "yes"),
        ]);
        let headers =
            HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(BROWSER)), (CONTENT_TYPE, FORM)]);
        let ask = Ask { method: Method::POST, headers, body: body.into() };
        let answer = self.front_ends.send(net, &endpoint, ask, Who::Account).await?;
        if !answer.status.is_success() {
            return Err(Failed::of_status(&endpoint, &answer));
        }
        Ok(Page::read(&endpoint, &answer.body)?)
    }

    /// Fetches what was issued under a number.
    async fn fetch(&self, net: &Net, order: &Order, ticket: &Ticket) -> Result<Answer, CaError> {
        let base = self.front_end(ticket)?;
        let id = ticket.id.as_deref().unwrap_or_default();
        let (endpoint, answer) = self.get(net, &base, &format!("certnew.cer?ReqID={id}&Enc=bin")).await?;
        if !is_type(&answer, "application/pkix-cert") {
            let text = String::from_utf8_lossy(&answer.body);
            if text.contains("Taken Under Submission") {
                return Ok(Answer::Pending { ticket: ticket.value(), ask_after: None });
            }
            return Err(self.no_certificate(&endpoint, &answer));
        }
        let certificate = answer.body.to_vec();
        let read = self.chain.with(&certificate, || async { Ok(self.authorities(net, &base).await?.1) });
        let mut bag = vec![certificate.clone()];
        bag.extend(read.await?);
        issued::answer(&endpoint, &self.settings, order, &bag)
    }

    fn front_end(&self, ticket: &Ticket) -> Result<Endpoint, CaError> {
        match self.front_ends.named(&ticket.url) {
            Some(server) => Ok(server.endpoint().clone()),
            None => Err(CaError::Settings {
                detail: format!(
                    "{} has the request, but is not among the URLs any more; put it back",
                    ticket.url
                ),
            }),
        }
    }

    /// A page where a certificate should be.
    fn no_certificate(&self, endpoint: &Endpoint, answer: &web::Answer) -> CaError {
        let host = endpoint.to_string();
        let text = plain(&answer.body);
        if let Some(code) = hresult(&text) {
            return CaError::Refused { host, code, detail: disposition(&text) };
        }
        if text.contains("The requested property value is empty") {
            let detail =
                "the authority does not know the request any more; its database may have been restored";
            return CaError::Refused { host, code: "unknown_request".to_owned(), detail: detail.to_owned() };
        }
        if text.contains("Disposition message:") {
            return CaError::Refused { host, code: "denied".to_owned(), detail: disposition(&text) };
        }
        let detail =
            format!("{} gives a page where a certificate should be; look at it in a browser", endpoint.path);
        CaError::Answer { host, detail }
    }

    async fn submitted(&self, net: &Net, order: &Order, keep: &dyn Keep) -> Result<Answer, CaError> {
        let (page, mut ticket) = self
            .front_ends
            .first(false, |server| {
                Box::pin(async move {
                    let base = server.endpoint();
                    let at_ms = net.clock.now_ms();
                    let ticket = Ticket { url: base.url.clone(), at_ms, ..Ticket::default() };
                    let page = ticket.clone().send(keep, self.post(net, base, order)).await?;
                    Ok((page, ticket))
                })
            })
            .await?;
        ticket.sent = true;
        match page {
            Page::Issued(id) => {
                ticket.id = Some(id);
                keep.keep(ticket.value()).await?;
                self.fetch(net, order, &ticket).await
            }
            Page::Pending(id) => {
                ticket.id = Some(id);
                keep.keep(ticket.value()).await?;
                Ok(Answer::Pending { ticket: ticket.value(), ask_after: None })
            }
        }
    }
}

impl Authority for Certsrv {
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.front_ends.look(move |server| {
            Box::pin(async move {
                let (renewals, chain) = self.authorities(net, server.endpoint()).await?;
                let chain = issued::upwards(server.endpoint(), &self.settings, &chain)?;
                let facts = vec![("renewals of the authority".to_owned(), renewals.to_string())];
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
                ticket if ticket.id.is_some() => self.fetch(net, order, &ticket).await,
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

/// What the page after a request says.
#[derive(Debug, PartialEq, Eq)]
enum Page {
    /// Issued, under this number.
    Issued(String),
    /// Waits for a person, under this number.
    Pending(String),
}

impl Page {
    fn read(endpoint: &Endpoint, body: &[u8]) -> Result<Self, CaError> {
        let host = endpoint.to_string();
        let raw = String::from_utf8_lossy(body);
        if let Some(id) = digits_after(&raw, "certnew.cer?ReqID=") {
            return Ok(Self::Issued(id));
        }
        let text = plain(body);
        if text.contains("template that is not supported") {
            let code = hresult(&text).unwrap_or_else(|| "0x80094800".to_owned());
            return Err(CaError::Refused { host, code, detail: disposition(&text) });
        }
        if text.contains("Certificate Pending")
            && let Some(id) = digits_after(&text, "Your Request Id is ")
        {
            return Ok(Self::Pending(id));
        }
        if let Some(code) = hresult(&text) {
            return Err(CaError::Refused { host, code, detail: disposition(&text) });
        }
        if text.contains("disposition message is") {
            return Err(CaError::Refused { host, code: "denied".to_owned(), detail: disposition(&text) });
        }
        let detail = format!(
            "{} says neither issued, pending nor denied; the pages must be in English, and the URL that of /certsrv",
            endpoint.path
        );
        Err(CaError::Answer { host, detail })
    }
}

/// A page beside the configured one, which is the service's directory or its first page.
fn page_of(base: &Endpoint, page: &str) -> Endpoint {
    let path = base.path.split('?').next().unwrap_or_default();
    let path = match path.rsplit_once('/') {
        Some((directory, last)) if last.contains('.') => directory,
        _ => path.trim_end_matches('/'),
    };
    let path = if path.is_empty() { "/certsrv" } else { path };
    base.at(format!("{path}/{page}"))
}

fn is_type(answer: &web::Answer, expected: &str) -> bool {
    let given = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

fn number_after(text: &str, mark: &str) -> Option<u32> {
    digits_after(text, mark)?.parse().ok()
}

/// The digits right behind a mark. Request numbers of AD CS have 32 bits.
fn digits_after(text: &str, mark: &str) -> Option<String> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (1..=10).contains(&end).then(|| rest[..end].to_owned())
}

/// The HRESULT of a refusal.
fn hresult(text: &str) -> Option<String> {
    let at = text.find("0x8")?;
    let code = text.get(at..at + 10)?;
    code[2..].chars().all(|c| c.is_ascii_hexdigit()).then(|| code.to_ascii_lowercase())
}

/// What the authority says about a refusal, short enough for an error.
fn disposition(text: &str) -> String {
    let said = match text.split_once("disposition message is \"") {
        Some((_, rest)) => rest.split('"').next().unwrap_or_default(),
        None => text.split_once("Disposition message:").map_or(text, |(_, rest)| rest),
    };
    issued::shortened(said)
}

/// The text of a page without its tags.
fn plain(body: &[u8]) -> String {
    let raw = String::from_utf8_lossy(body);
    let mut text = String::new();
    let mut rest: &str = &raw;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let mut text: Cow<'_, str> = text.into();
    for (entity, letter) in
        [("&quot;", "\""), ("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&amp;", "&")]
    {
        if text.contains(entity) {
            text = text.replace(entity, letter).into();
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Result<Page, CaError> {
        Page::read(&Endpoint::read("https://ca1/certsrv/").unwrap(), page.as_bytes())
    }

    #[test]
    fn pages_are_told_apart() {
        let issued =
            r#"<A Href="certnew.cer?ReqID=17&amp;Enc=b64">x</A> <A Href="certnew.cer?ReqID=17&Enc=bin">"#;
        assert_eq!(read(issued).unwrap(), Page::Issued("17".into()));
        let pending = "<P ID=locPageTitle><B>Certificate Pending</B>\r\n<P>... Your\r\nRequest Id is 42.";
        assert_eq!(read(pending).unwrap(), Page::Pending("42".into()));
        let denied = "<P>The disposition message is &quot;Denied by Policy Module  0x80094800, The request was for a \
                      certificate template that is not supported by the policy: X.&quot;";
        match read(denied).unwrap_err() {
            CaError::Refused { code, detail, .. } => {
                assert_eq!(code, "0x80094800");
                assert!(detail.starts_with("Denied by Policy Module") && detail.ends_with("X."), "{detail}");
            }
            other => panic!("{other:?}"),
        }
        for page in
            ["", "<html>Sign in here</html>", "certnew.cer?ReqID=&x", "certnew.cer?ReqID=99999999999&"]
        {
            assert!(matches!(read(page), Err(CaError::Answer { .. })), "{page}");
        }
    }

    #[test]
    fn the_configured_url_may_be_directory_or_page() {
        for (url, expected) in [
            ("https://ca1/certsrv", "https://ca1/certsrv/certfnsh.asp"),
            ("https://ca1:8443/certsrv/", "https://ca1:8443/certsrv/certfnsh.asp"),
            ("https://ca1/certsrv/Default.asp", "https://ca1/certsrv/certfnsh.asp"),
            ("https://ca1", "https://ca1/certsrv/certfnsh.asp"),
        ] {
            assert_eq!(page_of(&Endpoint::read(url).unwrap(), "certfnsh.asp").url, expected);
        }
    }
}
