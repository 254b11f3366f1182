//! Third-party clients and servers, unmodified, against the mocks: what they take for the real thing is the real thing
//! as far as anybody can tell. Where a container with the real server exists, the same client runs against it too, so
//! that the test of the mock cannot drift from it.
//!
//! Versions are pinned in `tests/requirements.txt` or are Debian's; `docs/differences.md` lists them.

mod certmonger;
mod certsrv;
mod curl;
mod ejabberd;
mod foreign;
mod impacket;
mod kerberos;
mod ldap_utils;
mod msal;
mod openssl_ca;
mod openssl_cms;
mod openssl_ocsp;
mod pacparser;
mod prosody;
mod psrpcore;
mod pyactivesync;
mod pypsrp;
mod pyscep;
mod python_ldap3;
mod slapd_consumer;
mod slixmpp;
mod strongswan;
