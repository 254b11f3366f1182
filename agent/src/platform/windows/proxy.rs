//! The proxy settings of Windows, as the system has them: texts and bytes. What they mean is decided by
//! [`crate::dial::proxy::system`].

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
use crate::dial::proxy::system::{
    Automatic, AutomaticError, InternetSettings, NamedProxies, SystemProxies, Whose,
};

const SETTINGS: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";
const POLICY: &str = r"Software\Policies\Microsoft\Windows\CurrentVersion\Internet Settings";
const LOGIN_FAILURE: i32 = 12_015;

/// This machine.
pub(super) struct ThisMachine;

impl SystemProxies for ThisMachine {
    fn machine_default(&self) -> io::Result<NamedProxies> {
        let mut found = WINHTTP_PROXY_INFO::default();
        // SAFETY: the structure is ours to fill; its texts are taken over below.
        if unsafe { WinHttpGetDefaultProxyConfiguration(&mut found) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(taken(found))
    }

    fn per_machine(&self) -> bool {
        let policy = registry::number(Root::Machine, POLICY, "ProxySettingsPerUser");
        matches!(policy, Ok(Some(0)))
    }

    fn internet_settings(&self, whose: &Whose) -> io::Result<InternetSettings> {
        let (root, key) = match whose {
            Whose::Machine => (Root::Machine, SETTINGS.to_owned()),
            Whose::Own => (Root::Account, SETTINGS.to_owned()),
            Whose::User(sid) => (Root::Users, format!(r"{sid}\{SETTINGS}")),
        };
        let text = |value| registry::text(root, &key, value);
        Ok(InternetSettings {
            proxy_enable: registry::number(root, &key, "ProxyEnable")?,
            proxy_server: text("ProxyServer")?,
            proxy_override: text("ProxyOverride")?,
            auto_config_url: text("AutoConfigURL")?,
            default_connection_settings: registry::bytes(
                root,
                &format!(r"{key}\Connections"),
                "DefaultConnectionSettings",
            )?,
        })
    }

    fn for_url(&self, url: &str, by: &Automatic) -> Result<NamedProxies, AutomaticError> {
        proxy_for_url(url, by).map_err(|error| AutomaticError {
            code: error.raw_os_error().map_or(u32::MAX, i32::cast_unsigned),
        })
    }
}

/// Asks WinHTTP, which finds and runs the script out of our process.
fn proxy_for_url(url: &str, by: &Automatic) -> io::Result<NamedProxies> {
    let session = Session::open()?;
    let url = wide(url);
    let mut options = WINHTTP_AUTOPROXY_OPTIONS::default();
    let script = match by {
        Automatic::Detect => None,
        Automatic::Script(at) => Some(wide(at)),
    };
    match &script {
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
    let named = found.dwAccessType == WINHTTP_ACCESS_TYPE_NAMED_PROXY;
    NamedProxies { proxies: proxies.filter(|_| named), bypass: bypass.filter(|_| named) }
}
