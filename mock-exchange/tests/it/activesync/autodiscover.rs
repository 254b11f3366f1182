//! Autodiscover in plain XML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_mock_exchange::MockExchange;
use causeway_mock_exchange::phone::http::{Answer, Http, Target};
use causeway_mock_kit::fault::{Fault, Rule};
use http::Request;
use http_body_util::Full;
use serde_json::json;

use super::{USER, WITHIN, mock};

const MOBILE: &str = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/";
const OUTLOOK: &str = "http://schemas.microsoft.com/exchange/autodiscover/outlook/";

async fn ask(mock: &MockExchange, password: &str, body: String) -> Answer {
    let target = Target::parse(mock.url("autodiscover")).unwrap();
    let request = Request::post("/AutoDiscover/AutoDiscover.xml")
        .header("Host", target.authority())
        .header("Authorization", format!("Basic {}", STANDARD.encode(format!("{USER}:{password}"))))
        .header("Content-Type", "text/xml")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    Http::new(mock.ca().client_config()).send(&target, request, WITHIN).await.unwrap()
}

fn wanted(request: &str, response: &str, address: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"{request}\"><Request><EMailAddress>{address}\
         </EMailAddress><AcceptableResponseSchema>{response}</AcceptableResponseSchema></Request></Autodiscover>"
    )
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn phones_and_outlook_find_their_server() {
    let mock = mock().await;
    let password = mock.world().password_of(USER).unwrap();
    let address = mock.world().company().person(USER).unwrap().mail.to_string();
    let mobile = |address: &str| {
        wanted(&format!("{MOBILE}requestschema/2006"), &format!("{MOBILE}responseschema/2006"), address)
    };
    let found = text(&ask(&mock, &password, mobile(&address)).await);
    assert!(found.contains("<Type>MobileSync</Type>") && found.contains(mock.url("activesync")), "{found}");
    assert!(found.contains(&format!("<EMailAddress>{address}</EMailAddress>")), "{found}");

    let request = format!("{OUTLOOK}requestschema/2006");
    let outlook = wanted(&request, &format!("{OUTLOOK}responseschema/2006a"), &address);
    let found = text(&ask(&mock, &password, outlook).await);
    assert!(found.contains("<Type>EXCH</Type>") && found.contains(".acme.example</Server>"), "{found}");

    let unknown = text(&ask(&mock, &password, mobile("nobody@acme.example")).await);
    assert!(unknown.contains("<ErrorCode>500</ErrorCode>"), "{unknown}");
    let schema = text(&ask(&mock, &password, wanted(&request, "urn:other", &address)).await);
    assert!(schema.contains("<ErrorCode>601</ErrorCode>"), "{schema}");
    let dtd = "<!DOCTYPE a [<!ENTITY x \"y\">]><Autodiscover/>".to_owned();
    for broken in [String::new(), "<Autodiscover>".to_owned(), dtd] {
        let broken = text(&ask(&mock, &password, broken).await);
        assert!(broken.contains("<ErrorCode>600</ErrorCode>"), "{broken}");
    }
    assert_eq!(ask(&mock, "wrong", mobile(&address)).await.status, 401);

    let rule = |word: &str, args| {
        Rule::new(Fault::Custom { word: word.to_owned(), args }).on_front("autodiscover").times(1)
    };
    mock.faults().add(rule("redirect", json!({ "url": "https://autodiscover.other.example/" })));
    let answer = ask(&mock, &password, mobile(&address)).await;
    assert_eq!(
        (answer.status, answer.header("Location")),
        (302, Some("https://autodiscover.other.example/"))
    );
    mock.faults().add(rule("redirect_address", json!({ "address": "ada@other.example" })));
    let answer = text(&ask(&mock, &password, mobile(&address)).await);
    assert!(answer.contains("<Redirect>ada@other.example</Redirect>"), "{answer}");
}
