//! Headless Chromium through `chromedriver`, by plain WebDriver calls (W3C WebDriver; JSON over HTTP). A client of a
//! hundred lines instead of a crate: the tests need ten of its commands.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_scenarios::http::Client;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::program;

/// How long a page may take to show what a test waits for.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);

/// chromedriver is up within a second; a loaded machine takes longer.
const DRIVER_WITHIN: Duration = Duration::from_secs(30);

/// Lines of its output looked at for the port.
const LINES_MAX: usize = 20;

/// Starts of chromedriver until one gets its ports.
const DRIVER_STARTS_MAX: usize = 3;

/// Key of an element's reference (W3C WebDriver §12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub struct Browser {
    driver: Child,
    http: Client,
    session: String,
}

/// Something on the page.
pub struct Element {
    id: String,
}

impl Browser {
    /// Starts one; `None` after a counted skip.
    ///
    /// # Errors
    /// When Chromium or its driver do not start.
    pub async fn start() -> Result<Option<Self>> {
        let Some(chromium) = program::find("chromium", "chromium") else { return Ok(None) };
        let Some(driver) = program::find("chromedriver", "chromium-driver") else { return Ok(None) };
        let (child, port) = start_driver(&driver).await?;
        let http = Client::new(&format!("http://127.0.0.1:{port}"), None, None)?;
        let options = json!({
            "binary": chromium,
            // No sandbox: CI runs as root in a container, where Chromium's own cannot be set up. /dev/shm is small there.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server",
                     "--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1280,900"],
        });
        let wanted =
            json!({ "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options });
        let answer = http.post("/session", &json!({ "capabilities": { "alwaysMatch": wanted } })).await?;
        ensure!(answer.status.is_success(), "no browser session: {}", answer.body["value"]["message"]);
        let session = answer.body["value"]["sessionId"].as_str().context("a session has an id")?.to_owned();
        Ok(Some(Self { driver: child, http, session }))
    }

    /// Ends it. Killing the driver alone would leave the browser behind.
    ///
    /// # Errors
    /// When it does not answer any more.
    pub async fn quit(mut self) -> Result<()> {
        self.command(Method::DELETE, "", None).await?;
        self.driver.kill().await.context("end chromedriver")
    }

    /// # Errors
    /// When the page cannot be loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.command(Method::POST, "/url", Some(json!({ "url": url }))).await.map(drop)
    }

    /// # Errors
    /// When the browser does not say.
    pub async fn url(&self) -> Result<String> {
        let value = self.command(Method::GET, "/url", None).await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for an element.
    ///
    /// # Errors
    /// When it does not appear; with the page's address and text.
    pub async fn find(&self, css: &str) -> Result<Element> {
        let started = Instant::now();
        loop {
            let asked = json!({ "using": "css selector", "value": css });
            let found = self.command(Method::POST, "/element", Some(asked)).await;
            if let Ok(value) = &found
                && let Some(id) = value[ELEMENT].as_str()
            {
                return Ok(Element { id: id.to_owned() });
            }
            if started.elapsed() > SHOWN_WITHIN {
                let (url, text) = (self.url().await?, self.body_text().await.unwrap_or_default());
                bail!("{css} is not on {url} after {SHOWN_WITHIN:?}; the page says\n{text}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an element's text contains `wanted`; gives the text.
    ///
    /// # Errors
    /// When it does not; with the last text.
    pub async fn shows(&self, css: &str, wanted: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            // The page may be replaced between finding and reading.
            let text = match self.find(css).await {
                Ok(element) => self.text(&element).await.unwrap_or_default(),
                Err(error) => return Err(error),
            };
            if text.contains(wanted) {
                return Ok(text);
            }
            ensure!(started.elapsed() < SHOWN_WITHIN, "{css} says {text:?}, never {wanted:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// # Errors
    /// When it cannot be clicked.
    pub async fn click(&self, css: &str) -> Result<()> {
        let element = self.find(css).await?;
        let path = format!("/element/{}/click", element.id);
        self.command(Method::POST, &path, Some(json!({})))
            .await
            .with_context(|| format!("click {css}"))
            .map(drop)
    }

    /// # Errors
    /// When nothing can be typed there.
    pub async fn type_into(&self, css: &str, text: &str) -> Result<()> {
        let element = self.find(css).await?;
        self.command(Method::POST, &format!("/element/{}/clear", element.id), Some(json!({}))).await?;
        let path = format!("/element/{}/value", element.id);
        self.command(Method::POST, &path, Some(json!({ "text": text })))
            .await
            .with_context(|| css.to_owned())
            .map(drop)
    }

    /// # Errors
    /// When the element is gone.
    pub async fn text(&self, element: &Element) -> Result<String> {
        let value = self.command(Method::GET, &format!("/element/{}/text", element.id), None).await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a script's body in the page.
    ///
    /// # Errors
    /// What the script throws.
    pub async fn script(&self, body: &str) -> Result<Value> {
        self.command(Method::POST, "/execute/sync", Some(json!({ "script": body, "args": [] }))).await
    }

    /// Size of the page in CSS pixels; smaller than a window can be.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn set_size(&self, width: u32, height: u32, mobile: bool) -> Result<()> {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        let order = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": params });
        self.command(Method::POST, "/goog/cdp/execute", Some(order)).await.map(drop)
    }

    /// What is to be seen, as PNG.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let value = self.command(Method::GET, "/screenshot", None).await?;
        STANDARD.decode(value.as_str().unwrap_or_default()).context("a picture comes in Base64")
    }

    async fn body_text(&self) -> Result<String> {
        let value = self.script("return document.body.innerText").await?;
        Ok(value.as_str().unwrap_or_default().chars().take(2_000).collect())
    }

    async fn command(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let path = format!("/session/{}{path}", self.session);
        let answer = self.http.call(method, &path, body.as_ref()).await?;
        let value = answer.body["value"].clone();
        ensure!(answer.status.is_success(), "the browser answers {}: {}", value["error"], value["message"]);
        Ok(value)
    }
}

/// Starts chromedriver on a port of its choice. It takes a free port of IPv4 and then wants the same one of IPv6, which
/// somebody else may have; it then ends, and another try finds another port.
async fn start_driver(driver: &Path) -> Result<(Child, u16)> {
    let mut last = None;
    for _ in 0..DRIVER_STARTS_MAX {
        let mut child = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start chromedriver")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        match tokio::time::timeout(DRIVER_WITHIN, read_port(stdout))
            .await
            .context("chromedriver is silent")?
        {
            Ok(port) => return Ok((child, port)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("chromedriver was never started")?)
}

/// The port is in a line such as `ChromeDriver was started successfully on port 40123.`
async fn read_port(stdout: impl tokio::io::AsyncRead + Unpin) -> Result<u16> {
    let mut lines = BufReader::new(stdout).lines();
    for _ in 0..LINES_MAX {
        let Some(line) = lines.next_line().await? else { break };
        if let Some((_, port)) = line.rsplit_once("successfully on port ") {
            return port.trim_end_matches('.').parse().with_context(|| format!("read a port from {line:?}"));
        }
    }
    bail!("chromedriver did not say its port")
}
