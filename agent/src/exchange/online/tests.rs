//! The REST backend against a scripted service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use causeway_protocol::Secret;
use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::directory::Net;
use crate::exchange::{Exchange, ExchangeError, Organisation, Urgency};
use crate::modules::ModuleSettings;
use crate::modules::testing::LoopbackDial;
use crate::secrets::SecretStore;

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    head: String,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|line| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name)))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

type Script = Box<dyn FnMut(&Asked) -> (u16, Vec<(&'static str, String)>, Value) + Send>;

/// Token service and API at once: `/token` and everything else.
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    folder: TempDir,
    key: String,
}

impl Service {
    async fn start(
        script: impl FnMut(&Asked) -> (u16, Vec<(&'static str, String)>, Value) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, noted.clone(), script.clone()));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("app.pem"), certificate.pem()).unwrap();
        Self { url, asked, folder, key: key.serialize_pem() }
    }

    fn organisation(&self) -> (Organisation, SecretStore) {
        let secrets = SecretStore::new([("exchange.default.key".to_owned(), Secret::new(self.key.clone()))]);
        let exchange = json!({
            "kind": "online", "tenant": "acme.example", "client_id": "app-1",
            "certificate_file": self.folder.path().join("app.pem"),
            "token_url": format!("{}/token", self.url), "rest_url": format!("{}/adminapi/beta", self.url),
            "ca_file": self.folder.path().join("app.pem"),
        });
        let settings = ModuleSettings {
            exchanges: BTreeMap::from([("default".to_owned(), exchange)]),
            secrets: secrets.clone(),
            ..ModuleSettings::default()
        };
        (Organisation::new("default", &settings).unwrap(), secrets)
    }

    fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.contains(path)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, noted: Arc<Mutex<Vec<Asked>>>, script: Arc<Mutex<Script>>) {
    let mut bytes = Vec::new();
    loop {
        let head_end = loop {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 => return,
                None => {}
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let mut asked = Asked { path, head, body: String::new() };
        let length: usize = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < head_end + length {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        asked.body = String::from_utf8(bytes[head_end..head_end + length].to_vec()).unwrap();
        bytes.drain(..head_end + length);
        noted.lock().unwrap().push(asked.clone());
        let (status, headers, body) = (script.lock().unwrap())(&asked);
        let body = body.to_string();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn net() -> Net {
    Net { dial: Arc::new(LoopbackDial::default()), clock: Clock::system() }
}

fn granted(token: &str, expires_in: u64) -> (u16, Vec<(&'static str, String)>, Value) {
    (200, Vec::new(), json!({ "token_type": "Bearer", "access_token": token, "expires_in": expires_in }))
}

async fn run(
    organisation: &Organisation,
    cmdlet: &Cmdlet,
) -> Result<(Vec<Object>, Completed), ExchangeError> {
    let mut session = organisation.open(net(), Urgency::Background).await?;
    let (objects, mut taken) = mpsc::channel(1);
    let take = async {
        let mut all = Vec::new();
        while let Some(object) = taken.recv().await {
            all.push(object);
        }
        all
    };
    let (completed, all) = tokio::join!(session.run(cmdlet, objects), take);
    Ok((all, completed?))
}

#[tokio::test]
async fn pages_are_asked_for_with_the_same_body_until_there_are_no_more() {
    let url: Arc<Mutex<String>> = Arc::default();
    let next = url.clone();
    let service = Service::start(move |asked| match asked.path.as_str() {
        "/token" => granted("t1", 3600),
        path => {
            let page = path.split("page=").nth(1).map_or(0, |page| page.parse::<u32>().unwrap());
            let mut body =
                json!({ "value": [{ "DeviceId": format!("d{page}"), "DeviceId@odata.type": "x" }] });
            body["@adminapi.warnings"] = json!([format!("warning {page}")]);
            if page < 2 {
                let link = format!(
                    "{}/adminapi/beta/acme.example/InvokeCommand?page={}",
                    next.lock().unwrap(),
                    page + 1
                );
                body["@odata.nextLink"] = json!(link);
            }
            (200, Vec::new(), body)
        }
    })
    .await;
    url.lock().unwrap().clone_from(&service.url);
    let (organisation, _) = service.organisation();
    let cmdlet = Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited");
    let (objects, completed) = run(&organisation, &cmdlet).await.unwrap();
    let ids: Vec<_> = objects.iter().map(|object| object.text("DeviceId").unwrap().into_owned()).collect();
    assert_eq!(ids, ["d0", "d1", "d2"]);
    assert_eq!(completed.warnings, ["warning 0", "warning 1", "warning 2"]);
    let asked = service.asked("InvokeCommand");
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|page| page.body == asked[0].body && page.head.starts_with("POST ")),
        "{asked:?}"
    );
    assert_eq!(asked[0].header("authorization"), Some("Bearer t1"));
    assert_eq!(asked[0].header("prefer"), Some("odata.maxpagesize=1000"));
    assert_eq!(
        asked[0].header("x-anchormailbox"),
        Some("APP:SystemMailbox{bb558c35-97f1-4cb9-8ff7-d53741dc928c}@acme.example")
    );
    assert_eq!(service.asked("token").len(), 1);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_scan_is_renewed() {
    let url: Arc<Mutex<String>> = Arc::default();
    let next = url.clone();
    let (mut tokens, mut pages) = (0, 0);
    let service = Service::start(move |asked| {
        if asked.path == "/token" {
            tokens += 1;
            return granted(&format!("t{tokens}"), 3600);
        }
        // The second page is asked for with a token that has just ended.
        if pages == 1 && asked.header("authorization") == Some("Bearer t1") {
            return (401, Vec::new(), json!({}));
        }
        pages += 1;
        let mut body = json!({ "value": [{ "A": pages }] });
        if pages < 2 {
            let link = format!("{}/adminapi/beta/acme.example/InvokeCommand?page=1", next.lock().unwrap());
            body["@odata.nextLink"] = json!(link);
        }
        (200, Vec::new(), body)
    })
    .await;
    url.lock().unwrap().clone_from(&service.url);
    let (organisation, _) = service.organisation();
    let (objects, _) = run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap();
    assert_eq!((objects.len(), service.asked("token").len()), (2, 2));
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_the_applications_fault() {
    let service = Service::start(|asked| match asked.path.as_str() {
        "/token" => granted("t", 3600),
        _ => (401, Vec::new(), json!({})),
    })
    .await;
    let (organisation, _) = service.organisation();
    let error = run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap_err();
    assert!(
        matches!(&error, ExchangeError::Credentials { detail } if detail.contains("ManageAsApp")),
        "{error}"
    );
    assert_eq!((service.asked("token").len(), service.asked("InvokeCommand").len()), (2, 2));
}

#[tokio::test]
async fn a_refused_application_is_not_shown_again_until_its_key_is_stored_again() {
    let service = Service::start(|_| {
        (401, Vec::new(), json!({ "error": "invalid_client", "error_description": "AADSTS700027: no" }))
    })
    .await;
    let (organisation, secrets) = service.organisation();
    for _ in 0..3 {
        let error = run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Credentials { .. }), "{error}");
    }
    assert_eq!(service.asked("token").len(), 1);
    secrets.renew(&secrets.clone());
    run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap_err();
    assert_eq!(service.asked("token").len(), 2);
    let claims = service.asked("token")[0].body.clone();
    assert!(claims.contains("client_assertion_type=urn%3Aietf") && !claims.contains("PRIVATE"), "{claims}");
}

#[tokio::test]
async fn busy_pages_are_waited_for_and_long_waits_are_handed_on() {
    let mut tries = 0;
    let service = Service::start(move |asked| {
        if asked.path == "/token" {
            return granted("t", 3600);
        }
        tries += 1;
        match tries {
            1 => (429, vec![("Retry-After", "0".to_owned())], json!({})),
            2 => (200, Vec::new(), json!({ "value": [] })),
            _ => (503, vec![("Retry-After", "900".to_owned())], json!({})),
        }
    })
    .await;
    let (organisation, _) = service.organisation();
    run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap();
    let error = run(&organisation, &Cmdlet::new("Get-MobileDevice")).await.unwrap_err();
    let told =
        matches!(&error, ExchangeError::Throttled { retry_after: Some(after), .. } if after.as_secs() == 900);
    assert!(told, "{error:?}");
}

#[tokio::test]
async fn refusals_of_cmdlets_are_records_and_those_of_the_service_are_errors() {
    let mut answers = vec![
        (
            404,
            json!({ "error": { "code": "NotFound", "message": "outer", "details": [{ "message":
            "Ex1|Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException|not there" }] } }),
        ),
        (403, json!({ "error": { "code": "Forbidden", "message": "no role" } })),
        (500, json!("no error of the API")),
        (200, json!({ "value": 7 })),
        (200, json!({ "value": [], "@odata.nextLink": "https://evil.example/" })),
    ]
    .into_iter();
    let service = Service::start(move |asked| match asked.path.as_str() {
        "/token" => granted("t", 3600),
        _ => {
            let (status, body) = answers.next().unwrap();
            (status, Vec::new(), body)
        }
    })
    .await;
    let (organisation, _) = service.organisation();
    let cmdlet = Cmdlet::new("Get-MobileDevice");
    let (_, completed) = run(&organisation, &cmdlet).await.unwrap();
    assert_eq!(completed.failure.unwrap().reason, "ManagementObjectNotFoundException");
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(run(&organisation, &cmdlet).await.unwrap_err());
    }
    assert!(
        matches!(&errors[0], ExchangeError::Forbidden { detail } if detail.contains("no role")),
        "{errors:?}"
    );
    assert!(matches!(&errors[1], ExchangeError::Unreachable { .. }), "{errors:?}");
    assert!(matches!(&errors[2], ExchangeError::Protocol { .. }), "{errors:?}");
    assert!(
        matches!(&errors[3], ExchangeError::Protocol { detail } if detail.contains("evil")),
        "{errors:?}"
    );
}

#[tokio::test]
async fn nobody_there_to_take_objects_ends_the_cmdlet() {
    let service = Service::start(|asked| match asked.path.as_str() {
        "/token" => granted("t", 3600),
        _ => (200, Vec::new(), json!({ "value": [{ "A": 1 }, { "A": 2 }] })),
    })
    .await;
    let (organisation, _) = service.organisation();
    let mut session = organisation.open(net(), Urgency::Urgent).await.unwrap();
    let (objects, nobody) = mpsc::channel(1);
    drop(nobody);
    let stopped = session.run(&Cmdlet::new("Get-MobileDevice"), objects).await;
    assert!(matches!(stopped, Err(ExchangeError::Stopped)), "{stopped:?}");
    assert!(ExchangeError::Stopped.session_lives());
}
