//! Autodiscover, the plain XML kind (MS-OXDSCLI, and MS-ASCMD 2.2.1.1 for phones): where a mailbox's server is.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::fault::{Fault, Point};
use causeway_mock_kit::listen::FaultStream;
use causeway_protocol::xml::{self, Element, Writer};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Current;
use super::http::{self as front, Closed, Outcome};
use super::limits::AUTODISCOVER_BODY_MAX_BYTES;
use super::request::put_header;
use crate::world::{MailboxId, Organisation};

/// Namespace of the frame of every answer.
const RESPONSE: &str = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006";
/// What phones ask for, and the namespace of what they get.
const MOBILE: &str = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006";
const MOBILE_REQUEST: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/requestschema/2006";
/// The same for Outlook.
const OUTLOOK: &str = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";
const OUTLOOK_REQUEST: &str = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006";

/// The path, whatever the case.
const PATH: &str = "/autodiscover/autodiscover.xml";

/// Codes of an error answer (MS-OXDSCLI 2.2.4.1.1.2.3.1).
const NO_SUCH_ADDRESS: u32 = 500;
const INVALID_REQUEST: u32 = 600;
const NO_PROVIDER: u32 = 601;

/// The autodiscover front end.
pub struct Autodiscover {
    cx: KitContext,
    organisation: Current,
    /// URL of the ActiveSync front end.
    activesync: String,
    tls: TlsAcceptor,
}

/// An answer, and a word for the journal.
type Told = (Response<Full<Bytes>>, &'static str);

/// What a client asks for.
struct Wanted {
    address: String,
    schema: String,
}

impl Autodiscover {
    /// A front end that sends phones to `activesync`.
    pub fn new(cx: KitContext, organisation: Current, activesync: String, tls: Arc<ServerConfig>) -> Self {
        Self { cx, organisation, activesync, tls: TlsAcceptor::from(tls) }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, stream: FaultStream, _peer: SocketAddr) {
        let tls = self.tls.clone();
        let stop = self.cx.stop.clone();
        let service = move |request| {
            let front = Arc::clone(&self);
            async move { front.answer(request).await }
        };
        front::serve(&tls, stream, stop, service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Outcome {
        let (head, incoming) = request.into_parts();
        if !head.uri.path().eq_ignore_ascii_case(PATH) {
            return Ok(front::empty(StatusCode::NOT_FOUND));
        }
        let organisation = (self.organisation)();
        let account =
            front::basic(&head.headers).map(|(user, password)| organisation.sign_in(&user, &password));
        let Some(Ok(account)) = account else { return Ok(front::unauthorized(&organisation.facts().domain)) };
        let body = match (head.method, front::body(incoming, AUTODISCOVER_BODY_MAX_BYTES).await) {
            (Method::POST, Ok(body)) => body,
            // A look with a browser gets the error every such look gets.
            (Method::GET, Ok(_)) => Bytes::new(),
            (Method::POST | Method::GET, Err(status)) => return Ok(front::empty(status)),
            _ => return Ok(front::empty(StatusCode::METHOD_NOT_ALLOWED)),
        };
        let wanted = read(&body);
        let address = wanted.as_ref().map_or("", |wanted| wanted.address.as_str());
        let point = Point { front: "autodiscover", operation: "discover", subject: address };
        let fault = self.cx.faults.meet(&point).await;
        let (answer, outcome) = match (fault.and_then(|fault| redirect(&fault, wanted.is_some())), &wanted) {
            (Some(outcome), _) => outcome?,
            (None, None) => (document(&failed(INVALID_REQUEST, "Invalid Request")), "600"),
            (None, Some(wanted)) => self.tell(&organisation, wanted),
        };
        self.cx.journal.record(
            "autodiscover",
            "discover",
            &account.login,
            outcome,
            json!({ "address": point.subject }),
        );
        Ok(answer)
    }

    fn tell(&self, organisation: &Organisation, wanted: &Wanted) -> Told {
        let Some(mailbox) = organisation.mailbox(&wanted.address) else {
            return (document(&failed(NO_SUCH_ADDRESS, "The email address can't be found.")), "500");
        };
        let name = organisation
            .read(None, |reader| reader.mailbox(mailbox).map(|it| it.person.display_name.to_string()))
            .unwrap_or_default();
        match wanted.schema.as_str() {
            MOBILE => (document(&self.for_phone(&name, &wanted.address)), "mobilesync"),
            OUTLOOK => (document(&for_outlook(organisation, mailbox, &name)), "outlook"),
            _ => (document(&failed(NO_PROVIDER, "Provider is not available")), "601"),
        }
    }

    fn for_phone(&self, name: &str, address: &str) -> String {
        let mut xml = Writer::new();
        xml.start("Autodiscover", &[("xmlns", RESPONSE)]).start("Response", &[("xmlns", MOBILE)]);
        xml.element("Culture", &[], "en:us");
        xml.start("User", &[]).element("DisplayName", &[], name).element("EMailAddress", &[], address).end();
        xml.start("Action", &[]).start("Settings", &[]).start("Server", &[]);
        xml.element("Type", &[], "MobileSync");
        xml.element("Url", &[], &self.activesync).element("Name", &[], &self.activesync);
        xml.end().end().end().end().end();
        xml.finish()
    }
}

/// What Outlook gets: which server it is, no more.
fn for_outlook(organisation: &Organisation, mailbox: MailboxId, name: &str) -> String {
    let server = organisation
        .read(None, |reader| reader.mailbox(mailbox).map(|it| it.database.server.clone()))
        .unwrap_or_default();
    let mut xml = Writer::new();
    xml.start("Autodiscover", &[("xmlns", RESPONSE)]).start("Response", &[("xmlns", OUTLOOK)]);
    xml.start("User", &[]).element("DisplayName", &[], name).end();
    xml.start("Account", &[]).element("AccountType", &[], "email").element("Action", &[], "settings");
    xml.start("Protocol", &[]).element("Type", &[], "EXCH");
    xml.element("Server", &[], &format!("{server}.{}", organisation.facts().domain));
    xml.end().end().end().end();
    xml.finish()
}

fn failed(code: u32, message: &str) -> String {
    let mut xml = Writer::new();
    xml.start("Autodiscover", &[("xmlns", RESPONSE)]).start("Response", &[]);
    xml.start("Error", &[]);
    xml.element("ErrorCode", &[], &code.to_string()).element("Message", &[], message).element(
        "DebugData",
        &[],
        "",
    );
    xml.end().end().end();
    xml.finish()
}

fn document(xml: &str) -> Response<Full<Bytes>> {
    let mut answer =
        Response::new(Full::new(Bytes::from(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>{xml}"))));
    put_header(&mut answer, "Content-Type", "text/xml; charset=utf-8");
    answer
}

/// Address and schema of a request; `None` when it is not one.
fn read(body: &[u8]) -> Option<Wanted> {
    let root = xml::read(body, AUTODISCOVER_BODY_MAX_BYTES).ok()?;
    [MOBILE_REQUEST, OUTLOOK_REQUEST].into_iter().find_map(|namespace| {
        let request: &Element = root.child(namespace, "Request")?;
        let text = |name| request.child_text(namespace, name).map(|text| text.trim().to_owned());
        Some(Wanted { address: text("EMailAddress")?, schema: text("AcceptableResponseSchema")? })
    })
}

/// Faults: `status` answers with HTTP, `close` closes, `custom redirect {url}` sends elsewhere with 302,
/// `custom redirect_address {address}` says that the mailbox has another address.
fn redirect(fault: &Fault, understood: bool) -> Option<Result<Told, Closed>> {
    match fault {
        Fault::Close {} => Some(Err(Closed)),
        Fault::Status { .. } => {
            let number = u16::try_from(fault.status_number()?).ok()?;
            Some(Ok((front::empty(StatusCode::from_u16(number).ok()?), "fault")))
        }
        Fault::Custom { word, args } if word == "redirect" => {
            let mut answer = front::empty(StatusCode::FOUND);
            put_header(&mut answer, "Location", args["url"].as_str()?);
            Some(Ok((answer, "302")))
        }
        Fault::Custom { word, args } if word == "redirect_address" && understood => {
            let mut xml = Writer::new();
            xml.start("Autodiscover", &[("xmlns", RESPONSE)]).start("Response", &[("xmlns", MOBILE)]);
            xml.start("Action", &[]).element("Redirect", &[], args["address"].as_str()?).end();
            xml.end().end();
            Some(Ok((document(&xml.finish()), "redirect")))
        }
        _ => None,
    }
}
