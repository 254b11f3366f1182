//! Name look-ups for scripts by the agent's own resolver, asked from the script's thread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tokio::runtime::Handle;

use super::engine::Lookup;
use crate::dial::resolve::Names;

/// Asks [`Names`].
pub(super) struct NamesLookup {
    names: Names,
    runtime: Handle,
}

impl NamesLookup {
    /// To be made inside the runtime that will do the asking.
    pub(super) fn new(names: Names) -> Self {
        Self { names, runtime: Handle::current() }
    }
}

impl Lookup for NamesLookup {
    fn addresses(&self, host: &str, within: Duration) -> Vec<IpAddr> {
        let (names, host) = (self.names.clone(), host.to_owned());
        let (reply, answer) = sync_channel(1);
        self.runtime.spawn(async move {
            let _ = reply.send(names.addresses(&host).await.unwrap_or_default());
        });
        // The runtime may be gone, or the name servers silent: either is "unknown" to a script.
        answer.recv_timeout(within).unwrap_or_default()
    }

    fn own(&self) -> Vec<IpAddr> {
        // Documentation addresses (RFC 5737, RFC 3849): routed like the internet, and nobody's. Connecting a UDP socket
        // sends nothing; it only asks the routing table which address of ours would be used.
        let toward: [(IpAddr, IpAddr); 2] = [
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(198, 51, 100, 1).into()),
        ];
        toward.into_iter().filter_map(|(any, far)| own_address(any, far)).collect()
    }
}

fn own_address(any: IpAddr, far: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(far, 443)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified() && !own.is_loopback()).then_some(own)
}
