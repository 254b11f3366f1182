//! What a PAC script can ask its host, apart from dates. The rules are those of the browsers' common library; where
//! they differ among themselves, a comment says which one is followed.

use std::net::{IpAddr, Ipv4Addr};

use super::super::bypass::{glob_matches, within};

/// No dot, and not an address: an IPv6 literal has no dot either.
pub fn is_plain_host_name(host: &str) -> bool {
    !host.contains('.') && host.parse::<IpAddr>().is_err()
}

/// A plain suffix test, as in browsers: `badexample.com` is "in" `example.com` unless the script writes the dot.
pub fn dns_domain_is(host: &str, domain: &str) -> bool {
    host.ends_with(domain)
}

/// The same name, or a name without domain that equals the other's first label.
pub fn local_host_or_domain_is(host: &str, full: &str) -> bool {
    host == full || (!host.contains('.') && full.strip_prefix(host).is_some_and(|rest| rest.starts_with('.')))
}

/// How many dots.
pub fn dns_domain_levels(host: &str) -> usize {
    host.bytes().filter(|byte| *byte == b'.').count()
}

/// A shell pattern: `*` and `?` only, both ends anchored, a dot is a dot.
pub fn sh_exp_match(text: &str, pattern: &str) -> bool {
    glob_matches(text.as_bytes(), pattern.as_bytes())
}

/// Four decimal numbers up to 255; the browsers' pattern takes leading zeros, Rust's parser does not.
pub fn dotted_quad(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// Whether an address lies in `network` under `mask`, both dotted quads; any mask, not only prefixes.
pub fn is_in_net(address: Ipv4Addr, network: &str, mask: &str) -> bool {
    match (dotted_quad(network), dotted_quad(mask)) {
        (Some(network), Some(mask)) => {
            address.to_bits() & mask.to_bits() == network.to_bits() & mask.to_bits()
        }
        _ => false,
    }
}

/// Whether an address lies in `address/bits` (Microsoft's extension). Names are not looked up.
pub fn is_in_net_ex(address: &str, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(address), Ok(base), Ok(bits)) =
        (address.parse::<IpAddr>(), base.parse::<IpAddr>(), bits.parse::<u8>())
    else {
        return false;
    };
    let most = if base.is_ipv4() { 32 } else { 128 };
    // An IPv4 address inside IPv6 is not in an IPv4 network here: the script named the family it means.
    bits <= most && address.is_ipv4() == base.is_ipv4() && within(address, base, bits)
}

/// Sorts a `;` list of addresses, IPv6 first, each family by its bytes; `None` when one is not an address.
pub fn sort_ip_address_list(list: &str) -> Option<String> {
    let mut addresses =
        list.split(';').map(|address| address.trim().parse::<IpAddr>().ok()).collect::<Option<Vec<_>>>()?;
    addresses.sort_by_key(|address| (address.is_ipv4(), *address));
    Some(joined(&addresses))
}

/// Addresses as the Ex functions give them.
pub fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
}
