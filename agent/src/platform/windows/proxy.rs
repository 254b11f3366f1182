//! The proxy settings of Windows, as the system has them: texts and bytes. What they mean is decided by `dial::proxy`.

use std::io;
use std::ptr;

use windows_sys::Win32::Networking::WinHttp::{
    WINHTTP_ACCESS_TYPE_NAMED_PROXY, WINHTTP_ACCESS_TYPE_NO_PROXY, WINHTTP_AUTO_DETECT_TYPE_DHCP,
    WINHTTP_AUTO_DETECT_TYPE_DNS_A, WINHTTP_AUTOPROXY_AUTO_DETECT, WINHTTP_AUTOPROXY_CONFIG_URL,
    WINHTTP_AUTOPROXY_OPTIONS, WINHTTP_PROXY_INFO, WinHttpCloseHandle, WinHttpGetDefaultProxyConfiguration,
    WinHttpGetProxyForUrl, WinHttpOpen,
};

use super::registry::{self, Root};
use super::text::{Global, from_wide, wide};

/// Proxies by name, in WinHTTP's spelling: `p1:8080;p2:8080` or `http=p1:80;https=p2:80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProxies {
    /// The proxies; empty for a direct connection.
    pub proxies: String,
    /// Hosts to connect to directly, with semicolons between.
    pub bypass: String,
}

/// What the control panel writes for an account or, by policy, for the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternetSettings {
    /// `ProxyEnable`.
    pub enabled: bool,
    /// `ProxyServer`.
    pub servers: Option<String>,
    /// `ProxyOverride`.
    pub bypass: Option<String>,
    /// `AutoConfigURL`.
    pub pac_url: Option<String>,
    /// `Connections\DefaultConnectionSettings`; its byte 8 holds flags, automatic detection among them.
    pub connection: Option<Vec<u8>>,
}

const SETTINGS: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";
const POLICY: &str = r"Software\Policies\Microsoft\Windows\CurrentVersion\Internet Settings";
const LOGIN_FAILURE: i32 = 12_015;

/// What `netsh winhttp set proxy` wrote; `None` when nothing.
///
/// # Errors
/// When WinHTTP does not say.
pub fn winhttp_default() -> io::Result<Option<NamedProxies>> {
    let mut found = WINHTTP_PROXY_INFO::default();
    // SAFETY: the structure is ours to fill; its texts are taken over below.
    if unsafe { WinHttpGetDefaultProxyConfiguration(&mut found) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let proxies = taken(found);
    Ok((found.dwAccessType == WINHTTP_ACCESS_TYPE_NAMED_PROXY).then_some(proxies))
}

/// The settings in force for the account we run as: the machine's where a policy says so. A service as LocalSystem does
/// not see what an administrator set for itself.
///
/// # Errors
/// When the registry may not be read.
pub fn internet_settings() -> io::Result<InternetSettings> {
    let per_machine = registry::number(Root::Machine, POLICY, "ProxySettingsPerUser")? == Some(0);
    let root = if per_machine { Root::Machine } else { Root::Account };
    let text = |value| registry::text(root, SETTINGS, value).map(|text| text.filter(|text| !text.is_empty()));
    Ok(InternetSettings {
        enabled: registry::number(root, SETTINGS, "ProxyEnable")?.unwrap_or(0) != 0,
        servers: text("ProxyServer")?,
        bypass: text("ProxyOverride")?,
        pac_url: text("AutoConfigURL")?,
        connection: registry::bytes(root, &format!(r"{SETTINGS}\Connections"), "DefaultConnectionSettings")?,
    })
}

/// Where a script for automatic proxies comes from.
#[derive(Clone, Copy, Debug)]
pub enum Script<'a> {
    /// Found by DHCP or DNS.
    Detected,
    /// At this URL; WinHTTP takes no `file:`.
    At(&'a str),
}

/// Asks WinHTTP, which finds and runs the script out of our process. Blocks for seconds: call it on a thread of its
/// own. Of the URL only scheme and host should be given; the rest is nobody's business.
///
/// # Errors
/// WinHTTP's: 12180 when no script was found, 12166 when it is bad, 12167 when it cannot be fetched.
pub fn proxy_for_url(url: &str, script: Script<'_>) -> io::Result<NamedProxies> {
    let session = Session::open()?;
    let url = wide(url);
    let at = match script {
        Script::Detected => None,
        Script::At(at) => Some(wide(at)),
    };
    let mut options = WINHTTP_AUTOPROXY_OPTIONS::default();
    match &at {
        None => {
            options.dwFlags = WINHTTP_AUTOPROXY_AUTO_DETECT;
            options.dwAutoDetectFlags = WINHTTP_AUTO_DETECT_TYPE_DHCP | WINHTTP_AUTO_DETECT_TYPE_DNS_A;
        }
        Some(at) => {
            options.dwFlags = WINHTTP_AUTOPROXY_CONFIG_URL;
            options.lpszAutoConfigUrl = at.as_ptr();
        }
    }
    // Our account's password goes to the script's server only when that asks: first without.
    match session.ask(&url, &mut options) {
        Err(error) if error.raw_os_error() == Some(LOGIN_FAILURE) => {
            options.fAutoLogonIfChallenged = 1;
            session.ask(&url, &mut options)
        }
        answer => answer,
    }
}

struct Session(*mut core::ffi::c_void);

impl Session {
    fn open() -> io::Result<Self> {
        let agent = wide("causeway-agent");
        // SAFETY: the name ends with a zero; no proxy is named, as the access type demands.
        let session =
            unsafe { WinHttpOpen(agent.as_ptr(), WINHTTP_ACCESS_TYPE_NO_PROXY, ptr::null(), ptr::null(), 0) };
        if session.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(session)) }
    }

    fn ask(&self, url: &[u16], options: &mut WINHTTP_AUTOPROXY_OPTIONS) -> io::Result<NamedProxies> {
        let mut found = WINHTTP_PROXY_INFO::default();
        // SAFETY: the session is open; URL and options end with zeros and live during the call; the answer is ours.
        if unsafe { WinHttpGetProxyForUrl(self.0, url.as_ptr(), options, &mut found) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(taken(found))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once.
        unsafe { WinHttpCloseHandle(self.0) };
    }
}

/// Copies the texts and gives their memory back.
fn taken(found: WINHTTP_PROXY_INFO) -> NamedProxies {
    let (proxies, bypass) = (Global(found.lpszProxy), Global(found.lpszProxyBypass));
    // SAFETY: null, or zero-terminated texts that the call allocated for us.
    let (proxies, bypass) = unsafe { (from_wide(proxies.0), from_wide(bypass.0)) };
    NamedProxies { proxies: proxies.unwrap_or_default(), bypass: bypass.unwrap_or_default() }
}
