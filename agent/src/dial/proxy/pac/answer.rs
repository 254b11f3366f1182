//! The text a PAC script returns: entries split by `;`, each `DIRECT` or a kind of proxy and its address.

use super::limits::ENTRIES_MAX;
use crate::dial::proxy::{ProxyServer, Route, host_and_port, normal};
use crate::dial::steps::shortened;

/// The routes of an answer, and what was skipped. An empty answer means to go straight, as browsers take it; an answer
/// whose every entry is unusable gives no route.
pub fn routes(answer: &str) -> (Vec<Route>, Vec<String>) {
    let (mut routes, mut skipped) = (Vec::new(), Vec::new());
    let entries = answer.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    for (n, entry) in entries.enumerate() {
        if n >= ENTRIES_MAX {
            skipped.push(format!("entries after the first {ENTRIES_MAX} are skipped"));
            break;
        }
        match route(entry) {
            Ok(route) if routes.contains(&route) => {}
            Ok(route) => routes.push(route),
            Err(problem) => skipped.push(format!("entry {:?} is skipped: {problem}", shortened(entry))),
        }
    }
    if routes.is_empty() && skipped.is_empty() {
        routes.push(Route::Direct);
    }
    (routes, skipped)
}

fn route(entry: &str) -> Result<Route, &'static str> {
    let (kind, at) = entry.split_once(char::is_whitespace).unwrap_or((entry, ""));
    let at = at.trim();
    let (tls, default_port) = match kind.to_ascii_uppercase().as_str() {
        "DIRECT" if at.is_empty() => return Ok(Route::Direct),
        "DIRECT" => return Err("DIRECT takes no address"),
        "PROXY" | "HTTP" => (false, 80),
        "HTTPS" => (true, 443),
        "SOCKS" | "SOCKS4" | "SOCKS5" => return Err("SOCKS proxies are not supported"),
        _ => return Err("this kind of proxy is unknown"),
    };
    if at.contains(['/', '@', '?', '#']) {
        return Err("this is not host:port");
    }
    let (host, port) = host_and_port(at, default_port).map_err(|_| "this is not host:port")?;
    Ok(Route::Proxy(ProxyServer { host: normal(&host), port, tls }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> String {
        let (routes, _) = routes(answer);
        routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn every_kind_with_its_default_port() {
        for (answer, expected) in [
            ("DIRECT", "direct"),
            ("", "direct"),
            (" ; ;", "direct"),
            ("proxy p:8080; Direct", "proxy http://p:8080, direct"),
            ("PROXY p", "proxy http://p:80"),
            ("HTTP P.Example:3128", "proxy http://p.example:3128"),
            ("HTTPS p", "proxy https://p:443"),
            ("\tPROXY\t a:1 ;;PROXY b:2;", "proxy http://a:1, proxy http://b:2"),
            ("PROXY a:1;PROXY a:1", "proxy http://a:1"),
            ("PROXY [2001:db8::1]:8080", "proxy http://[2001:db8::1]:8080"),
            ("SOCKS5 s:1080; PROXY a:1", "proxy http://a:1"),
            ("SOCKS s", ""),
            ("QUIC q:1", ""),
            ("PROXY ;PROXY :1;PROXY a:0;PROXY http://a:1/;DIRECT x", ""),
        ] {
            assert_eq!(read(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn what_is_skipped_is_named_and_bounded() {
        let (_, skipped) = routes("SOCKS s:1;PROXY");
        assert_eq!(skipped.len(), 2);
        assert!(skipped[0].contains("SOCKS proxies are not supported"), "{skipped:?}");
        let many: String = (1..1_000).map(|n| format!("PROXY p{n}:1;")).collect();
        assert_eq!(routes(&many).0.len(), ENTRIES_MAX);
    }
}
