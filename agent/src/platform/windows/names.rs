//! Whom Windows asks for names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::Foundation::{ERROR_BUFFER_OVERFLOW, ERROR_NO_DATA};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GAA_FLAG_SKIP_ANYCAST, GAA_FLAG_SKIP_FRIENDLY_NAME, GAA_FLAG_SKIP_MULTICAST, GAA_FLAG_SKIP_UNICAST,
    GetAdaptersAddresses, IP_ADAPTER_ADDRESSES_LH,
};
use windows_sys::Win32::NetworkManagement::Ndis::IfOperStatusUp;
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, AF_UNSPEC, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6,
};

use super::registry::{self, Root};
use crate::dial::dns::system::Settings;

/// What the system's documentation advises to begin with.
const ADAPTERS_BYTES: u32 = 15 << 10;
/// The list may grow between two calls.
const TRIES: usize = 4;

const PARAMETERS: &str = r"SYSTEM\CurrentControlSet\Services\Tcpip\Parameters";
const POLICY: &str = r"SOFTWARE\Policies\Microsoft\Windows NT\DNSClient";

/// Name servers of every adapter that is up, in the system's order, and the domains of short names.
pub(in crate::platform) fn name_servers() -> io::Result<Settings> {
    let buffer = adapters()?;
    let mut servers = Vec::new();
    let mut adapter = buffer.as_ptr().cast::<IP_ADAPTER_ADDRESSES_LH>();
    while !buffer.is_empty() && !adapter.is_null() {
        // SAFETY: the system has filled the buffer with a list whose pointers lead into the buffer and end with null.
        let this = unsafe { &*adapter };
        let mut server = if this.OperStatus == IfOperStatusUp {
            this.FirstDnsServerAddress.cast_const()
        } else {
            std::ptr::null()
        };
        while !server.is_null() {
            // SAFETY: the same list in the same buffer.
            let entry = unsafe { &*server };
            // SAFETY: the address lies in the buffer and is as long as its family says.
            servers.extend(unsafe { address(entry.Address.lpSockaddr) });
            server = entry.Next;
        }
        adapter = this.Next;
    }
    Ok(Settings::new(servers, search()))
}

/// The list of adapters; empty when there are none.
fn adapters() -> io::Result<Vec<u64>> {
    let flags =
        GAA_FLAG_SKIP_UNICAST | GAA_FLAG_SKIP_ANYCAST | GAA_FLAG_SKIP_MULTICAST | GAA_FLAG_SKIP_FRIENDLY_NAME;
    let mut bytes = ADAPTERS_BYTES;
    for _ in 0..TRIES {
        // Numbers of 64 bits, because the list must be aligned so.
        let mut buffer = vec![0_u64; bytes.div_ceil(8) as usize];
        // SAFETY: the buffer is at least as long as `bytes` says.
        let code = unsafe {
            GetAdaptersAddresses(
                u32::from(AF_UNSPEC),
                flags,
                std::ptr::null(),
                buffer.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        match code {
            0 => return Ok(buffer),
            ERROR_NO_DATA => return Ok(Vec::new()),
            ERROR_BUFFER_OVERFLOW => {}
            code => return Err(io::Error::from_raw_os_error(code.cast_signed())),
        }
    }
    Err(io::Error::other("the list of network adapters grows faster than it can be read"))
}

/// # Safety
/// `address` is null or points to an address as long as its family says.
unsafe fn address(address: *const SOCKADDR) -> Option<IpAddr> {
    // SAFETY: every address begins with its family.
    match unsafe { address.as_ref() }?.sa_family {
        AF_INET => {
            // SAFETY: the family says what it is.
            let four = unsafe { &*address.cast::<SOCKADDR_IN>() };
            // SAFETY: all views of this union are four octets, in the order of the network.
            Some(Ipv4Addr::from(unsafe { four.sin_addr.S_un.S_addr }.to_ne_bytes()).into())
        }
        AF_INET6 => {
            // SAFETY: the family says what it is.
            let six = unsafe { &*address.cast::<SOCKADDR_IN6>() };
            // SAFETY: all views of this union are sixteen octets.
            let six = Ipv6Addr::from(unsafe { six.sin6_addr.u.Byte });
            // Windows lists fec0:0:0:ffff::1 to ::3 where nobody has set anything (deprecated by RFC 3879).
            (six.segments()[..4] != [0xfec0, 0, 0, 0xffff]).then(|| six.into())
        }
        _ => None,
    }
}

/// A policy's list, the machine's own, or its domain.
fn search() -> Vec<String> {
    let text = |key, value| registry::text(Root::Machine, key, value).ok().flatten();
    [(POLICY, "SearchList"), (PARAMETERS, "SearchList"), (PARAMETERS, "Domain"), (PARAMETERS, "DhcpDomain")]
        .into_iter()
        .filter_map(|(key, value)| text(key, value))
        .find(|list| !list.trim().is_empty())
        .map(|list| list.split([',', ' ']).map(|domain| domain.trim_matches('.').to_owned()).collect())
        .unwrap_or_default()
}

/// The file `hosts`.
pub(in crate::platform) fn hosts() -> io::Result<String> {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    std::fs::read_to_string(std::path::Path::new(&root).join(r"System32\drivers\etc\hosts"))
}
