//! `InvokeCommand`: a cmdlet in, pages of objects out.

use std::sync::Arc;

use bytes::Bytes;
use causeway_protocol::cmdlet::{Cmdlet, ErrorRecord};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value as Json, json};

use super::{
    Outcome, Request, batch, held, json as values, later, plain, query_value, refuse, respond, token,
};
use crate::cmdlets::{self, Caller, Output, Running, Via};
use crate::limits::{REST_CURSORS_MAX, REST_PAGE_MAX};
use crate::server::Shared;
use crate::world::Account;

/// A list that is not read to its end.
pub(super) struct Cursor {
    id: String,
    /// The body the list was asked for with: a next page is asked for with the same one.
    body: Json,
    next: Next,
}

/// The page a cursor stands for.
enum Next {
    /// Not made yet.
    Fresh(Box<Running>),
    /// Given once already, kept in case the answer got lost.
    Given(Json),
}

/// A page that has been asked for.
struct Page {
    body: Json,
    select: Vec<String>,
    size: usize,
    /// The URL of this request, to which the mark of the next page is added.
    url: String,
}

pub(super) async fn answer(shared: &Arc<Shared>, request: &Request) -> Outcome {
    let organisation = shared.organisation();
    let facts = organisation.facts();
    let Some(rest) = request.path.strip_prefix("/adminapi/beta/") else {
        return Ok(refuse(StatusCode::NOT_FOUND, "NotFound", "There is no such resource."));
    };
    let (tenant, resource) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(app) = token::bearer(&shared.rest, request.header("authorization"), shared.cx.clock.now_ms())
    else {
        shared.cx.journal.record("rest", resource, tenant, "401 invalid token", Json::Null);
        return Ok(token::unauthorized());
    };
    if app != facts.client_id
        || !(tenant.eq_ignore_ascii_case(&facts.tenant) || tenant.eq_ignore_ascii_case(&facts.domain))
    {
        return Ok(refuse(StatusCode::FORBIDDEN, "Forbidden", "The token is for another organisation."));
    }
    if request.method != Method::POST {
        return Ok(refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Only POST is offered here."));
    }
    let json_body =
        request.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    let body = serde_json::from_slice::<Json>(&request.body).ok().filter(|_| json_body);
    let Some(body) = body else {
        return Ok(refuse(StatusCode::BAD_REQUEST, "BadRequest", "The body is no JSON document."));
    };
    let size = page_size(request.header("prefer"));
    match resource.trim_end_matches('/') {
        "InvokeCommand" => {
            let (status, body, secs) =
                invoke(shared, &body, &request.query, size, &base(shared, request)).await?;
            Ok(finish(status, &body, secs))
        }
        "$batch" | "%24batch" => batch::answer(shared, &body, &base(shared, request)).await,
        _ => Ok(refuse(StatusCode::NOT_FOUND, "NotFound", "The mock offers InvokeCommand and $batch.")),
    }
}

fn finish(status: StatusCode, body: &Json, retry_after_secs: Option<u64>) -> Response<Full<Bytes>> {
    match (retry_after_secs, body) {
        (Some(secs), _) => later(status, secs, body["error"]["message"].as_str().unwrap_or_default()),
        // What a fault rule broke goes out as it is.
        (None, Json::String(text)) => {
            let mut response = plain(status);
            *response.body_mut() = Full::new(text.clone().into());
            response
        }
        (None, _) => respond(status, body),
    }
}

/// Where the client reaches the organisation: the beginning of links.
fn base(shared: &Shared, request: &Request) -> String {
    let organisation = shared.organisation();
    let host = request.header("host").or_else(|| shared.authority("rest")).unwrap_or_default();
    format!("https://{host}/adminapi/beta/{}", organisation.facts().tenant)
}

/// `odata.maxpagesize=100`
fn page_size(prefer: Option<&str>) -> usize {
    let wanted = prefer.into_iter().flat_map(|prefer| prefer.split([',', ';']));
    let wanted = wanted.filter_map(|part| part.trim().strip_prefix("odata.maxpagesize="));
    wanted
        .filter_map(|number| number.trim().parse().ok())
        .next()
        .unwrap_or(REST_PAGE_MAX)
        .clamp(1, REST_PAGE_MAX)
}

/// What one answer consists of: status, document, seconds of Retry-After.
pub(super) type Parts = (StatusCode, Json, Option<u64>);

/// Runs the cmdlet of a body, or goes on with the list the query names.
///
/// # Errors
/// [`super::Closed`] when a fault rule says so.
pub(super) async fn invoke(
    shared: &Arc<Shared>,
    body: &Json,
    query: &str,
    size: usize,
    base: &str,
) -> Result<Parts, super::Closed> {
    let cmdlet = match cmdlet(body) {
        Ok(cmdlet) => cmdlet,
        Err(why) => return Ok((StatusCode::BAD_REQUEST, error("BadRequest", why), None)),
    };
    let subject =
        cmdlet.parameter("Identity").and_then(|value| value.text()).unwrap_or_default().into_owned();
    if let Some(Err(outcome)) = super::fault(shared, "rest", &cmdlet.name, &subject).await {
        return given(outcome?).await;
    }
    let organisation = shared.organisation();
    let account = organisation.app();
    if let Err(wait) = organisation.charge_request(&account) {
        record(shared, &cmdlet, &subject, "429");
        let secs = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(60);
        return Ok((
            StatusCode::TOO_MANY_REQUESTS,
            error("TooManyRequests", "The budget is used up."),
            Some(secs),
        ));
    }
    let select = query_value(query, "$select").unwrap_or_default();
    let select: Vec<String> =
        select.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let mut url = format!("{base}/InvokeCommand?");
    if !select.is_empty() {
        url.push_str(&format!("$select={}&", select.join(",")));
    }
    let page = Page { body: body.clone(), select, size, url };
    let parts = match query_value(query, "$skiptoken") {
        Some(id) => go_on(shared, &id, page),
        None => start(shared, account, &cmdlet, page).await,
    };
    record(shared, &cmdlet, &subject, parts.0.as_str());
    Ok(parts)
}

/// Takes an answer apart again for a batch.
async fn given(response: Response<Full<Bytes>>) -> Result<Parts, super::Closed> {
    use http_body_util::BodyExt as _;
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let secs =
        parts.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match serde_json::from_slice(&bytes) {
        Ok(body) => Ok((parts.status, body, secs)),
        Err(_) => Ok((parts.status, Json::String(String::from_utf8_lossy(&bytes).into_owned()), secs)),
    }
}

fn record(shared: &Shared, cmdlet: &Cmdlet, subject: &str, outcome: &str) {
    let names: Vec<&str> = cmdlet.parameters.iter().map(|(name, _)| name.as_str()).collect();
    shared.cx.journal.record("rest", &cmdlet.name, subject, outcome, json!({ "parameters": names }));
}

fn cmdlet(body: &Json) -> Result<Cmdlet, &'static str> {
    let input = body.get("CmdletInput").ok_or("CmdletInput is missing.")?;
    let name =
        input["CmdletName"].as_str().filter(|name| !name.is_empty()).ok_or("CmdletName is missing.")?;
    let mut cmdlet = Cmdlet::new(name);
    match input.get("Parameters") {
        None | Some(Json::Null) => {}
        Some(Json::Object(parameters)) => {
            for (name, value) in parameters {
                let value = values::parameter(value).ok_or("A parameter is an object of an unknown type.")?;
                cmdlet.parameters.push((name.clone(), value));
            }
        }
        Some(_) => return Err("Parameters is no object."),
    }
    Ok(cmdlet)
}

async fn start(shared: &Arc<Shared>, account: Account, cmdlet: &Cmdlet, page: Page) -> Parts {
    let organisation = shared.organisation();
    let caller = Caller { account, via: Via::Rest };
    let mut running = cmdlets::run(&organisation, &caller, cmdlet);
    // The module in the administrator's shell asks before it sends anything; what arrives here is confirmed.
    if running.question().is_some() {
        running.answer(true);
    }
    let delay_ms = i64::try_from(running.delay().as_millis()).unwrap_or(i64::MAX);
    if delay_ms > 0 {
        shared.cx.clock.sleep_until_ms(shared.cx.clock.now_ms().saturating_add(delay_ms)).await;
    }
    take(shared, Box::new(running), page)
}

/// Takes one page out of a running cmdlet.
fn take(shared: &Shared, mut running: Box<Running>, page: Page) -> Parts {
    let (mut objects, mut warnings) = (Vec::new(), Vec::new());
    let mut more = false;
    while let Some(output) = running.next() {
        match output {
            Output::Object(object) => objects.push(values::object(&object, &page.select)),
            Output::Warning(text) => warnings.push(Json::String(text)),
            Output::Error(record) | Output::Failed(record) => return refused(&record),
        }
        if objects.len() >= page.size {
            more = running.has_more();
            break;
        }
    }
    // A warning that stands at the very end belongs to this page.
    while !more && let Some(Output::Warning(text)) = running.next() {
        warnings.push(Json::String(text));
    }
    let mut document = json!({ "@odata.context": format!("{}$metadata#Exchange.GenericHashTable", page.url.split("InvokeCommand").next().unwrap_or_default()) });
    if !warnings.is_empty() {
        document["@adminapi.warnings"] = Json::Array(warnings);
    }
    document["value"] = Json::Array(objects);
    if more {
        let id = uuid::Uuid::new_v4().simple().to_string();
        document["@odata.nextLink"] = Json::String(format!("{}$skiptoken={id}", page.url));
        let mut cursors = held(&shared.rest.cursors);
        if cursors.len() >= REST_CURSORS_MAX {
            cursors.pop_front();
        }
        cursors.push_back(Cursor { id, body: page.body, next: Next::Fresh(running) });
    }
    (StatusCode::OK, document, None)
}

/// The next page of a list. The same link gives the same page again, until the page after it has been asked for.
fn go_on(shared: &Shared, id: &str, page: Page) -> Parts {
    let cursor = {
        let mut cursors = held(&shared.rest.cursors);
        let at = cursors.iter().position(|cursor| cursor.id == id);
        at.and_then(|at| cursors.remove(at))
    };
    let Some(cursor) = cursor else {
        return (
            StatusCode::BAD_REQUEST,
            error("BadRequest", "The skip token is unknown or has expired."),
            None,
        );
    };
    if cursor.body != page.body {
        let why = "A next page must be asked for with the body of the first one.";
        held(&shared.rest.cursors).push_back(cursor);
        return (StatusCode::BAD_REQUEST, error("BadRequest", why), None);
    }
    let Cursor { id, body, next } = cursor;
    let document = match next {
        Next::Given(document) => document,
        Next::Fresh(running) => {
            let (status, document, secs) = take(shared, running, page);
            if status != StatusCode::OK {
                return (status, document, secs);
            }
            document
        }
    };
    let mut cursors = held(&shared.rest.cursors);
    // Only one answer is kept for each list: what was asked for with the same body before has arrived.
    cursors.retain(|known| !(matches!(known.next, Next::Given(_)) && known.body == body));
    cursors.push_back(Cursor { id, body, next: Next::Given(document.clone()) });
    (StatusCode::OK, document, None)
}

fn error(code: &str, message: &str) -> Json {
    json!({ "error": { "code": code, "message": message } })
}

/// An error record as the admin API words it.
fn refused(record: &ErrorRecord) -> Parts {
    let status = match record.reason.as_str() {
        "ManagementObjectNotFoundException" => StatusCode::NOT_FOUND,
        "OverBudgetException" => return over_budget(record),
        "CommandNotFoundException" => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let code = match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "BadRequest",
    };
    let class = match record.reason.as_str() {
        name if name.starts_with("ParameterBinding") || name == "CommandNotFoundException" => {
            format!("System.Management.Automation.{name}")
        }
        name if name.starts_with("AD") => format!("Microsoft.Exchange.Data.Directory.{name}"),
        name => format!("Microsoft.Exchange.Configuration.Tasks.{name}"),
    };
    let number =
        record.fully_qualified_id.split(']').next_back().and_then(|rest| rest.trim().split(',').next());
    let detail = format!("Ex{}|{class}|{}", number.unwrap_or("000000"), record.message);
    let body = json!({
        "error": {
            "code": code,
            "message": "Error executing cmdlet",
            "details": [{ "code": "Context", "target": record.target, "message": detail }],
            "innererror": {
                "message": "Error executing cmdlet",
                "type": "Microsoft.Exchange.Admin.OData.Core.ODataServiceException",
                "internalexception": { "message": detail, "type": class },
            },
        }
    });
    (status, body, None)
}

fn over_budget(record: &ErrorRecord) -> Parts {
    let secs = record.message.split(' ').filter_map(|word| word.parse().ok()).next_back().unwrap_or(60);
    (StatusCode::TOO_MANY_REQUESTS, error("TooManyRequests", &record.message), Some(secs))
}
