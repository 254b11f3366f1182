//! The corpus, and scripts that mean harm.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::engine::Lookup;
use super::limits::{ANSWER_MAX_BYTES, LOOKUPS_MAX, LOOKUPS_WITHIN};
use super::*;

/// Friday, 14 August 2026, 13:45:30 GMT.
const NOW_MS: i64 = 1_786_715_130_000;

/// Stopping a script, measured from outside. The goal is 600 ms; a loaded machine gets some more in a test.
const STOPPED_WITHIN: Duration = Duration::from_millis(1_900);

#[derive(Deserialize)]
struct Corpus {
    call: Vec<Call>,
    script: Vec<Whole>,
}

#[derive(Deserialize)]
struct Call {
    expr: String,
    gives: String,
}

#[derive(Deserialize)]
struct Whole {
    name: String,
    text: String,
    answers: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    url: String,
    gives: String,
}

/// The corpus' name servers; `slow` names answer after the given time.
#[derive(Default)]
struct Zone {
    asked: AtomicUsize,
    slow: Duration,
}

impl Lookup for Zone {
    fn addresses(&self, host: &str, within: Duration) -> Vec<IpAddr> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !self.slow.is_zero() {
            // Nobody ever sends: this is a wait that ends by itself, as a silent name server's.
            let (_held, never) = std::sync::mpsc::sync_channel::<()>(1);
            let _ = never.recv_timeout(self.slow.min(within));
        }
        let texts: &[&str] = match host {
            "www.corp.example" => &["192.0.2.10"],
            "two.corp.example" => &["192.0.2.20", "2001:db8::20"],
            "six.corp.example" => &["2001:db8::6"],
            _ => &[],
        };
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn own(&self) -> Vec<IpAddr> {
        vec!["2001:db8::99".parse().unwrap(), "192.0.2.99".parse().unwrap()]
    }
}

fn host(zone: &Arc<Zone>) -> ScriptHost {
    ScriptHost { lookup: zone.clone(), clock: Clock::simulated(NOW_MS) }
}

async fn load(text: &str) -> Result<Script, ScriptError> {
    Script::load(text.to_owned(), host(&Arc::default()), GivenUp::default()).await
}

fn to(url: &str) -> Destination {
    Destination::parse(url).unwrap()
}

async fn ask(text: &str, url: &str) -> Result<String, ScriptError> {
    load(text).await?.ask(&to(url), false).await.map(|answer| answer.text)
}

/// A script whose function has this body.
async fn body(body: &str) -> Result<String, ScriptError> {
    ask(&format!("function FindProxyForURL(url, host) {{ {body} }}"), "https://www.corp.example/").await
}

fn corpus() -> Corpus {
    toml::from_str(include_str!("corpus.toml")).unwrap()
}

#[tokio::test]
async fn every_function_of_the_corpus_gives_what_it_should() {
    let corpus = corpus();
    assert!(corpus.call.len() > 80, "{} calls", corpus.call.len());
    let mut wrong = Vec::new();
    for call in corpus.call {
        let got = body(&format!("return String({});", call.expr)).await;
        if got.as_ref() != Ok(&call.gives) {
            wrong.push(format!("{} gives {got:?}, not {}", call.expr, call.gives));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn whole_scripts_of_the_corpus_answer_as_they_should() {
    for Whole { name, text, answers } in corpus().script {
        let script = load(&text).await.unwrap();
        for Expected { url, gives } in answers {
            assert_eq!(script.ask(&to(&url), false).await.unwrap().text, gives, "{name}: {url}");
        }
    }
}

/// Without "GMT" the local zone counts: the same instant, compared with what the engine's Date calls local.
#[tokio::test]
async fn dates_are_local_unless_gmt_is_said() {
    let text = "return String(timeRange(d.getHours()) && weekdayRange(days[d.getDay()]) && dateRange(d.getDate(), \
                months[d.getMonth()], d.getFullYear()));";
    let before = format!(
        "var d = new Date({NOW_MS}); var days = 'SUN MON TUE WED THU FRI SAT'.split(' '); \
         var months = 'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC'.split(' ');"
    );
    assert_eq!(body(&format!("{before} {text}")).await.as_deref(), Ok("true"));
}

#[tokio::test]
async fn microsoft_s_function_is_asked_first() {
    let text = "function FindProxyForURL() { return 'PROXY old:1' } function FindProxyForURLEx() { return 'PROXY ex:1' }";
    assert_eq!(ask(text, "https://c/").await.as_deref(), Ok("PROXY ex:1"));
}

#[tokio::test]
async fn what_is_no_text_means_to_go_straight() {
    for nothing in
        ["null", "undefined", "42", "{a: 1}", "['PROXY a:1']", "true", "Symbol()", "Promise.resolve('x')"]
    {
        let got = body(&format!("return {nothing};")).await;
        assert_eq!(got.as_deref(), Ok(""), "{nothing}");
    }
    assert_eq!(answer::routes("").0, [Route::Direct]);
}

#[tokio::test]
async fn scripts_that_cannot_work_are_named() {
    let Err(error) = load("function FindProxyForURL( {").await else { panic!("loaded") };
    assert!(
        matches!(&error, ScriptError::Unloadable { message } if message.contains("proxy.pac:1")),
        "{error}"
    );
    assert_eq!(load("var x = 1;").await.err(), Some(ScriptError::NoFunction));
    assert_eq!(load("var FindProxyForURL = 'DIRECT';").await.err(), Some(ScriptError::NoFunction));
    let thrown = body("nothing_like_this();").await.unwrap_err();
    assert!(
        matches!(&thrown, ScriptError::Threw { message } if message.contains("nothing_like_this")),
        "{thrown}"
    );
    let thrown = body("throw 'a\\u001b[31m text';").await.unwrap_err().to_string();
    assert!(thrown.contains("text") && !thrown.contains('\u{1b}'), "{thrown}");
}

#[tokio::test]
async fn endless_scripts_are_stopped() {
    for endless in [
        "while (true);",
        "for (;;) { try { while (true); } catch (e) {} }",
        "var x = 'a'.repeat(30); return String(/(a+)+$/.test(x + 'b'));",
        "return 'x'.replace(/x/, function () { while (true); });",
        "return shExpMatch({ toString: function () { while (true); } }, '*');",
    ] {
        let script = load(&format!("function FindProxyForURL(url, host) {{ {endless} }}")).await.unwrap();
        let began = std::time::Instant::now();
        let got = script.ask(&to("https://c/"), false).await;
        assert_eq!(got, Err(ScriptError::TooSlow), "{endless}");
        assert!(began.elapsed() < STOPPED_WITHIN, "{endless}: {:?}", began.elapsed());
        // The thread is free again.
        assert_eq!(script.ask(&to("https://c/"), false).await, Err(ScriptError::TooSlow));
    }
    assert_eq!(load("while (true);").await.err(), Some(ScriptError::TooSlow));
}

#[tokio::test]
async fn memory_bombs_and_recursion_are_stopped() {
    for bomb in [
        "var a = []; while (true) a.push('x'.repeat(1000) + a.length);",
        "var s = 'x'; while (true) s += s;",
        "return new Array(1e9).fill('x').join('');",
        "return new ArrayBuffer(1e9);",
    ] {
        let began = std::time::Instant::now();
        let got = body(bomb).await;
        assert!(
            matches!(got, Err(ScriptError::OutOfMemory | ScriptError::Threw { .. } | ScriptError::TooSlow)),
            "{bomb}: {got:?}"
        );
        assert!(began.elapsed() < STOPPED_WITHIN, "{bomb}: {:?}", began.elapsed());
    }
    assert_eq!(
        body("var a = []; while (true) a.push('x'.repeat(1000) + a.length);").await,
        Err(ScriptError::OutOfMemory)
    );
    let deep = body("function f(n) { return f(n + 1) + 1; } return f(0);").await;
    assert!(matches!(&deep, Err(ScriptError::Threw { message }) if message.contains("stack")), "{deep:?}");
    let caught =
        body("function f() { return f(); } try { f(); } catch (e) { return 'PROXY survivor:1'; }").await;
    assert_eq!(caught.as_deref(), Ok("PROXY survivor:1"));
}

#[tokio::test]
async fn a_megabyte_of_text_is_refused() {
    assert_eq!(body("return 'PROXY a:1;'.repeat(100000);").await, Err(ScriptError::TooLong));
    let just = format!("return 'x'.repeat({ANSWER_MAX_BYTES});");
    assert!(body(&just).await.is_ok());
    let long = body("return String(shExpMatch('a'.repeat(1 << 20), '*a*a*a*a*b'));").await;
    assert!(matches!(&long, Err(ScriptError::Threw { message }) if message.contains("argument")), "{long:?}");
    let large = format!("function FindProxyForURL() {{ return 'DIRECT' }} // {}", "x".repeat(1_000_000));
    assert_eq!(ask(&large, "https://c/").await.as_deref(), Ok("DIRECT"));
}

#[tokio::test]
async fn a_look_up_storm_is_stopped_and_a_repeated_name_is_asked_once() {
    let zone = Arc::new(Zone::default());
    let text = "function FindProxyForURL(url, host) { \
                for (var i = 0; i < 1000; i++) { try { isResolvable(host + i); } catch (e) {} } return 'DIRECT'; }";
    let storm = Script::load(text.to_owned(), host(&zone), GivenUp::default()).await.unwrap();
    assert_eq!(storm.ask(&to("https://c/"), false).await, Err(ScriptError::TooManyLookups));
    assert_eq!(zone.asked.load(Ordering::Relaxed), LOOKUPS_MAX as usize);

    let zone = Arc::new(Zone::default());
    let text = "function FindProxyForURL(url, host) { \
                for (var i = 0; i < 1000; i++) isInNet(host, '10.0.0.0', '255.0.0.0'); return 'DIRECT'; }";
    let same = Script::load(text.to_owned(), host(&zone), GivenUp::default()).await.unwrap();
    assert_eq!(same.ask(&to("https://c.example/"), false).await.unwrap().text, "DIRECT");
    assert_eq!(zone.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn slow_name_servers_do_not_count_as_script_time_but_have_their_own_limit() {
    let zone = Arc::new(Zone { slow: Duration::from_millis(900), ..Zone::default() });
    let text =
        "function FindProxyForURL(url, host) { return isResolvable(host) ? 'PROXY a:1' : 'PROXY b:1'; }";
    let script = Script::load(text.to_owned(), host(&zone), GivenUp::default()).await.unwrap();
    assert_eq!(script.ask(&to("https://www.corp.example/"), false).await.unwrap().text, "PROXY a:1");

    let text = "function FindProxyForURL(url, host) { for (var i = 0; i < 19; i++) isResolvable(host + i); return ''; }";
    let script = Script::load(text.to_owned(), host(&zone), GivenUp::default()).await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(script.ask(&to("https://c/"), false).await, Err(ScriptError::LookupsTooSlow));
    assert!(began.elapsed() < LOOKUPS_WITHIN + STOPPED_WITHIN, "{:?}", began.elapsed());
}

/// Such a function cannot be interrupted. This one ends by itself after a while, so that the test leaves nothing behind.
#[tokio::test]
async fn a_script_that_hangs_in_a_built_in_function_is_given_up() {
    let hanging =
        "function FindProxyForURL() { return String('a'.repeat(2e6).indexOf('a'.repeat(1e6) + 'b')); }";
    let given_up = GivenUp::default();
    for _ in 0..2 {
        let script = Script::load(hanging.to_owned(), host(&Arc::default()), given_up.clone()).await.unwrap();
        assert_eq!(script.ask(&to("https://c/"), false).await, Err(ScriptError::GivenUp));
        assert_eq!(script.ask(&to("https://c/"), false).await, Err(ScriptError::GivenUp));
    }
    let third = Script::load(hanging.to_owned(), host(&Arc::default()), given_up).await;
    assert_eq!(third.err(), Some(ScriptError::Forbidden));
}

#[tokio::test]
async fn a_trace_tells_every_function_and_look_up() {
    let text = "function FindProxyForURL(url, host) { alert('at ' + host); weekdayRange('MON', 'FRI'); \
                return isInNet(host, '192.0.2.0', '255.255.255.0') ? 'PROXY in:1' : 'DIRECT'; }";
    let answer = load(text).await.unwrap().ask(&to("https://www.corp.example/"), true).await.unwrap();
    assert_eq!(answer.lookups, 1);
    let trace = answer.trace.join("\n");
    for expected in [
        "alert(at www.corp.example)",
        "weekdayRange(MON, FRI) = ",
        "look-up of www.corp.example: 192.0.2.10 in",
        "isInNet(www.corp.example, 192.0.2.0, 255.255.255.0) = true",
    ] {
        assert!(trace.contains(expected), "{expected} in\n{trace}");
    }
}

/// A place whose script a test changes.
struct Shelf(Arc<Mutex<Result<String, &'static str>>>, Arc<AtomicUsize>);

impl Fetch for Shelf {
    fn fetch(&self) -> BoxFuture<'_, Result<(String, String), FetchError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let got = self.0.lock().unwrap().clone();
        Box::pin(async move {
            match got {
                Ok(text) => Ok((text, "the shelf".to_owned())),
                Err(problem) => Err(FetchError::BadAddress { problem }),
            }
        })
    }

    fn name(&self) -> String {
        "shelf".to_owned()
    }
}

fn returns(text: &str) -> String {
    format!("var n = 0; function FindProxyForURL() {{ return '{text}'.replace('N', n++); }}")
}

#[tokio::test]
async fn the_last_good_script_is_kept_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Mutex::new(Ok(returns("PROXY first:1"))));
    let pac = |name: &str| {
        let _ = name;
        let fetch = Shelf(shelf.clone(), Arc::default());
        Arc::new(Pac::new(Box::new(fetch), straight(), Some(dir.path())).with_host(host(&Arc::default())))
    };
    let first = |plan: Plan| plan.routes[0].to_string();
    assert_eq!(first(pac("a").find(&to("https://c/"), false).await), "proxy http://first:1");

    *shelf.lock().unwrap() = Err("is not there today");
    let plan = pac("b").find(&to("https://c/"), false).await;
    assert_eq!(first(plan.clone()), "proxy http://first:1", "{plan:?}");
    assert!(
        plan.rule.contains("kept copy") && plan.notes.iter().any(|note| note.contains("not there today")),
        "{plan:?}"
    );

    // A broken new script does not replace a good one either.
    *shelf.lock().unwrap() = Ok("function {".to_owned());
    assert_eq!(first(pac("c").find(&to("https://c/"), false).await), "proxy http://first:1");

    // The copy of another source is not used.
    std::fs::write(dir.path().join(KEPT_FILE), format!("{KEPT_MARK}elsewhere\n{}", returns("PROXY evil:1")))
        .unwrap();
    assert_eq!(first(pac("d").find(&to("https://c/"), false).await), "direct");
}

#[tokio::test]
async fn answers_are_kept_per_destination_until_the_network_changes() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let shelf = Arc::new(Mutex::new(Ok(returns("PROXY pN:1"))));
    let fetch = Shelf(shelf.clone(), fetches.clone());
    let pac = Arc::new(Pac::new(Box::new(fetch), straight(), None).with_host(host(&Arc::default())));
    let ask = |url: &'static str, traced| {
        let pac = pac.clone();
        async move { pac.find(&to(url), traced).await.routes[0].to_string() }
    };
    assert_eq!(ask("https://a/", false).await, "proxy http://p0:1");
    assert_eq!(ask("https://a/", false).await, "proxy http://p0:1");
    assert_eq!(ask("https://b/", false).await, "proxy http://p1:1");
    assert_eq!(ask("https://a/", true).await, "proxy http://p2:1");
    pac.network_changed();
    assert_eq!(ask("https://a/", false).await, "proxy http://p3:1");
    // The script is fetched again too, behind the caller's back.
    let again = async {
        while fetches.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("a second fetch");
}

fn straight() -> Straight {
    let random = crate::random::RandomSource::seeded(1);
    Straight::new(crate::dial::resolve::Names::new(&["127.0.0.1:1".parse().unwrap()], random).unwrap())
}
