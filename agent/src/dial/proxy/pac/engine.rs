//! One PAC script in QuickJS: no file, no socket, no timer inside; a bounded amount of memory, stack, time and look-ups.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::convert::Coerced;
use rquickjs::function::Rest;
use rquickjs::{
    CatchResultExt, CaughtError, Context, Ctx, Exception, FromJs, Function, IntoJs, Object, Runtime, Value,
};
use tokio::time::Instant;

use super::error::ScriptError;
use super::functions;
use super::limits::{
    ANSWER_MAX_BYTES, ARGUMENT_MAX_BYTES, LOOKUPS_MAX, LOOKUPS_WITHIN, MEMORY_MAX_BYTES, SCRIPT_WITHIN,
    STACK_MAX_BYTES, TRACE_MAX,
};
use crate::clock::Clock;
use crate::dial::steps::shortened;

/// Looks names up for scripts, from a thread that may wait.
pub trait Lookup: Send + Sync + 'static {
    /// Addresses of a name, none when it is unknown or `within` passes.
    fn addresses(&self, host: &str, within: Duration) -> Vec<IpAddr>;

    /// This machine's addresses toward the internet, at most one of each family.
    fn own(&self) -> Vec<IpAddr>;
}

/// What a script asks for.
#[derive(Clone)]
pub struct ScriptHost {
    /// Name resolution.
    pub lookup: Arc<dyn Lookup>,
    /// Wall time for the date functions.
    pub clock: Clock,
}

/// What an evaluation gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text returned; empty for anything that is no text.
    pub text: String,
    /// Functions called with arguments and results, when a trace was asked for; remarks always.
    pub trace: Vec<String>,
    /// Names looked up.
    pub lookups: u32,
    /// Time in the script, look-ups included.
    pub took: Duration,
}

/// How far an evaluation is, for whoever waits for it on another thread.
#[derive(Default)]
pub(super) struct Progress {
    waiting: AtomicBool,
    waited_ms: AtomicU64,
}

impl Progress {
    /// Whether it waits for a name server now, and the time spent so before.
    pub(super) fn waits(&self) -> (bool, Duration) {
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Acquire));
        (self.waiting.load(Ordering::Acquire), waited)
    }

    pub(super) fn reset(&self) {
        self.waited_ms.store(0, Ordering::Release);
        self.waiting.store(false, Ordering::Release);
    }
}

/// What of the language a script gets beside its core: all that its syntax can ask for. Typed arrays, proxies and weak
/// references came long after PAC and would only be room for attacks; what is not named here is not in the program either.
type Language = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::MapSet,
    intrinsic::Promise,
);

/// A loaded script. Stays on the thread that made it.
pub(super) struct Engine {
    context: Context,
    host: Rc<Host>,
}

/// What the functions share during one evaluation.
struct Host {
    outside: ScriptHost,
    progress: Arc<Progress>,
    began: Cell<Instant>,
    waited: Cell<Duration>,
    lookups: Cell<u32>,
    /// Set once the evaluation must end; the script cannot catch it.
    stop: Cell<Option<Stop>>,
    known: RefCell<HashMap<String, Vec<IpAddr>>>,
    trace: RefCell<Vec<String>>,
    traced: Cell<bool>,
}

#[derive(Clone, Copy)]
enum Stop {
    TooSlow,
    TooManyLookups,
    LookupsTooSlow,
}

/// What our functions return to a script.
enum Out {
    Bool(bool),
    Text(String),
    Number(usize),
    Null,
}

impl Engine {
    pub(super) fn load(
        script: &str,
        outside: ScriptHost,
        progress: Arc<Progress>,
    ) -> Result<Self, ScriptError> {
        let engine = |error: rquickjs::Error| ScriptError::Engine { message: shortened(&error.to_string()) };
        let runtime = Runtime::new().map_err(engine)?;
        runtime.set_memory_limit(MEMORY_MAX_BYTES);
        runtime.set_max_stack_size(STACK_MAX_BYTES);
        let host = Rc::new(Host::new(outside, progress));
        let watched = host.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || watched.must_stop())));
        let context = Context::custom::<Language>(&runtime).map_err(engine)?;
        let loaded = Self { context, host };
        loaded.host.begin(false);
        loaded.context.with(|ctx| {
            loaded.define(&ctx).map_err(engine)?;
            let mut options = EvalOptions::default();
            options.strict = false;
            options.filename = Some("proxy.pac".to_owned());
            ctx.eval_with_options::<Value<'_>, _>(script, options)
                .catch(&ctx)
                .map_err(|caught| loaded.error(&caught, |message| ScriptError::Unloadable { message }))?;
            entry(&ctx).map(|_| ())
        })?;
        Ok(loaded)
    }

    /// Asks the script. After an error its state is unknown: load it again.
    pub(super) fn ask(&self, url: &str, host: &str, traced: bool) -> Result<Answer, ScriptError> {
        self.host.begin(traced);
        let text = self.context.with(|ctx| {
            let found = entry(&ctx)?
                .call::<_, Value<'_>>((url, host))
                .catch(&ctx)
                .map_err(|caught| self.error(&caught, |message| ScriptError::Threw { message }))?;
            self.text(&found)
        });
        // A short script may end before the engine looks whether it must.
        let text = self.host.stopped().map_or(text, Err)?;
        Ok(Answer {
            text,
            trace: self.host.trace.take(),
            lookups: self.host.lookups.get(),
            took: self.host.began.get().elapsed(),
        })
    }

    fn text(&self, found: &Value<'_>) -> Result<String, ScriptError> {
        if found.is_null() || found.is_undefined() {
            self.host.remark("the script returns nothing, which means to go straight");
            return Ok(String::new());
        }
        let Some(text) = found.as_string() else {
            self.host
                .remark(&format!("the script returns {}, no text: taken as going straight", found.type_of()));
            return Ok(String::new());
        };
        let text = text.to_string().unwrap_or_default();
        if text.len() > ANSWER_MAX_BYTES { Err(ScriptError::TooLong) } else { Ok(text) }
    }

    fn error(&self, caught: &CaughtError<'_>, other: impl Fn(String) -> ScriptError) -> ScriptError {
        if let Some(stopped) = self.host.stopped() {
            return stopped;
        }
        let message = match caught {
            CaughtError::Exception(exception) => {
                let line = exception.stack().unwrap_or_default();
                let line = line.lines().next().unwrap_or_default().trim().to_owned();
                format!("{} {line}", exception.message().unwrap_or_default())
            }
            CaughtError::Value(value) => match value.as_string().and_then(|text| text.to_string().ok()) {
                Some(text) => format!("it throws {text:?}"),
                // The engine cannot even make the error when nothing is left.
                None if value.is_null() => "out of memory".to_owned(),
                None => format!("it throws {}", value.type_of()),
            },
            CaughtError::Error(error) => error.to_string(),
        };
        if message.contains("out of memory") {
            ScriptError::OutOfMemory
        } else {
            other(shortened(message.trim()))
        }
    }

    fn define(&self, ctx: &Ctx<'_>) -> rquickjs::Result<()> {
        let set =
            |name: &'static str, inner: fn(&Host, &[String]) -> Result<Out, Stop>| self.set(ctx, name, inner);
        set("isPlainHostName", |_, args| Ok(Out::Bool(functions::is_plain_host_name(arg(args, 0)))))?;
        set("dnsDomainIs", |_, args| Ok(Out::Bool(functions::dns_domain_is(arg(args, 0), arg(args, 1)))))?;
        set("localHostOrDomainIs", |_, args| {
            Ok(Out::Bool(functions::local_host_or_domain_is(arg(args, 0), arg(args, 1))))
        })?;
        set("dnsDomainLevels", |_, args| Ok(Out::Number(functions::dns_domain_levels(arg(args, 0)))))?;
        set("shExpMatch", |_, args| Ok(Out::Bool(functions::sh_exp_match(arg(args, 0), arg(args, 1)))))?;
        set("isResolvable", |host, args| Ok(Out::Bool(host.four(arg(args, 0))?.is_some())))?;
        set("dnsResolve", |host, args| {
            Ok(host.four(arg(args, 0))?.map_or(Out::Null, |at| Out::Text(at.to_string())))
        })?;
        set("isInNet", |host, args| {
            let at = host.four(arg(args, 0))?;
            Ok(Out::Bool(at.is_some_and(|at| functions::is_in_net(at, arg(args, 1), arg(args, 2)))))
        })?;
        set("myIpAddress", |host, _| {
            let own = host.outside.lookup.own().into_iter().find(IpAddr::is_ipv4);
            Ok(Out::Text(own.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_string()))
        })?;
        set("isResolvableEx", |host, args| Ok(Out::Bool(!host.all(arg(args, 0))?.is_empty())))?;
        set("dnsResolveEx", |host, args| Ok(Out::Text(functions::joined(&host.all(arg(args, 0))?))))?;
        set("isInNetEx", |_, args| Ok(Out::Bool(functions::is_in_net_ex(arg(args, 0), arg(args, 1)))))?;
        set("myIpAddressEx", |host, _| Ok(Out::Text(functions::joined(&host.outside.lookup.own()))))?;
        set("sortIpAddressList", |_, args| {
            Ok(functions::sort_ip_address_list(arg(args, 0)).map_or(Out::Bool(false), Out::Text))
        })?;
        set("getClientVersion", |_, _| Ok(Out::Text("1.0".to_owned())))?;
        set("alert", |_, args| {
            tracing::debug!(text = %shortened(arg(args, 0)), "The proxy script says");
            Ok(Out::Null)
        })?;
        self.define_dates(ctx)
    }

    fn define_dates(&self, ctx: &Ctx<'_>) -> rquickjs::Result<()> {
        let host = Object::new(ctx.clone())?;
        let shared = self.host.clone();
        // JavaScript's numbers are exact up to 2^53 ms, which is the year 287396.
        #[expect(clippy::cast_precision_loss)]
        let now = move || shared.outside.clock.now_ms() as f64;
        host.set("now", Function::new(ctx.clone(), now)?)?;
        let shared = self.host.clone();
        let note = move |name: String, args: String, result: String| {
            shared.note(|| format!("{name}({args}) = {result}"));
        };
        host.set("note", Function::new(ctx.clone(), note)?)?;
        let define: Function<'_> = ctx.eval(include_str!("dates.js"))?;
        define.call((host, ctx.globals()))
    }

    fn set<'js>(
        &self,
        ctx: &Ctx<'js>,
        name: &'static str,
        inner: fn(&Host, &[String]) -> Result<Out, Stop>,
    ) -> rquickjs::Result<()> {
        let host = self.host.clone();
        let function = move |ctx: Ctx<'js>, args: Rest<Value<'js>>| -> rquickjs::Result<Out> {
            let args = texts(&ctx, args)?;
            let out = inner(&host, &args).map_err(|stop| {
                host.stop.set(Some(stop));
                Exception::throw_message(&ctx, "stopped")
            })?;
            host.note(|| format!("{name}({}) = {out}", args.join(", ")));
            Ok(out)
        };
        ctx.globals().set(name, Function::new(ctx.clone(), function)?)
    }
}

impl Host {
    fn new(outside: ScriptHost, progress: Arc<Progress>) -> Self {
        Self {
            outside,
            progress,
            began: Cell::new(Instant::now()),
            waited: Cell::default(),
            lookups: Cell::default(),
            stop: Cell::default(),
            known: RefCell::default(),
            trace: RefCell::default(),
            traced: Cell::default(),
        }
    }

    fn begin(&self, traced: bool) {
        self.began.set(Instant::now());
        self.waited.set(Duration::ZERO);
        self.lookups.set(0);
        self.stop.set(None);
        self.known.borrow_mut().clear();
        self.trace.borrow_mut().clear();
        self.traced.set(traced);
    }

    /// Why the evaluation has to end, if it has to.
    fn stopped(&self) -> Option<ScriptError> {
        Some(match self.stop.get()? {
            Stop::TooSlow => ScriptError::TooSlow,
            Stop::TooManyLookups => ScriptError::TooManyLookups,
            Stop::LookupsTooSlow => ScriptError::LookupsTooSlow,
        })
    }

    /// Called by the engine every few thousand steps, never inside one of our functions.
    fn must_stop(&self) -> bool {
        if self.stop.get().is_none()
            && self.began.get().elapsed().saturating_sub(self.waited.get()) > SCRIPT_WITHIN
        {
            self.stop.set(Some(Stop::TooSlow));
        }
        self.stop.get().is_some()
    }

    /// The first IPv4 address: the classic functions know no other family.
    fn four(&self, host: &str) -> Result<Option<Ipv4Addr>, Stop> {
        if let Some(address) = functions::dotted_quad(host) {
            return Ok(Some(address));
        }
        let four = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        Ok(self.all(host)?.iter().find_map(four))
    }

    fn all(&self, host: &str) -> Result<Vec<IpAddr>, Stop> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if let Some(known) = self.known.borrow().get(host) {
            return Ok(known.clone());
        }
        if self.lookups.get() >= LOOKUPS_MAX {
            return Err(Stop::TooManyLookups);
        }
        let left = LOOKUPS_WITHIN.saturating_sub(self.waited.get());
        if left.is_zero() {
            return Err(Stop::LookupsTooSlow);
        }
        self.lookups.set(self.lookups.get() + 1);
        self.progress.waiting.store(true, Ordering::Release);
        let began = Instant::now();
        let found = self.outside.lookup.addresses(host, left);
        self.waited.set(self.waited.get() + began.elapsed());
        let waited_ms = u64::try_from(self.waited.get().as_millis()).unwrap_or(u64::MAX);
        self.progress.waited_ms.store(waited_ms, Ordering::Release);
        self.progress.waiting.store(false, Ordering::Release);
        let listed = || if found.is_empty() { "nothing".to_owned() } else { functions::joined(&found) };
        self.note(|| format!("look-up of {host}: {} in {} ms", listed(), began.elapsed().as_millis()));
        self.known.borrow_mut().insert(host.to_owned(), found.clone());
        Ok(found)
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.traced.get() {
            self.remark(&text());
        }
    }

    fn remark(&self, text: &str) {
        let mut trace = self.trace.borrow_mut();
        if trace.len() < TRACE_MAX {
            trace.push(shortened(text));
        }
    }
}

impl<'js> IntoJs<'js> for Out {
    fn into_js(self, ctx: &Ctx<'js>) -> rquickjs::Result<Value<'js>> {
        match self {
            Self::Bool(value) => value.into_js(ctx),
            Self::Text(value) => value.into_js(ctx),
            Self::Number(value) => value.into_js(ctx),
            Self::Null => Ok(Value::new_null(ctx.clone())),
        }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// Microsoft's function comes first where a script has both.
fn entry<'js>(ctx: &Ctx<'js>) -> Result<Function<'js>, ScriptError> {
    ["FindProxyForURLEx", "FindProxyForURL"]
        .iter()
        .find_map(|name| ctx.globals().get::<_, Function<'js>>(*name).ok())
        .ok_or(ScriptError::NoFunction)
}

fn texts<'js>(ctx: &Ctx<'js>, args: Rest<Value<'js>>) -> rquickjs::Result<Vec<String>> {
    let text = |value: Value<'js>| {
        let text = Coerced::<String>::from_js(ctx, value)?.0;
        if text.len() > ARGUMENT_MAX_BYTES {
            return Err(Exception::throw_range(
                ctx,
                &format!("an argument has more than {ARGUMENT_MAX_BYTES} bytes"),
            ));
        }
        Ok(text)
    };
    // No function of ours takes more than three.
    args.0.into_iter().take(8).map(text).collect()
}

/// A missing argument reads as JavaScript would print it.
fn arg(args: &[String], n: usize) -> &str {
    args.get(n).map_or("undefined", String::as_str)
}
