//! Settings of the PowerShell front end. What nobody has verified on a real server is data here, not code.

use serde::{Deserialize, Serialize};

/// How the virtual directory `/powershell` behaves: `[powershell]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerShellConfig {
    /// Offers Negotiate (Kerberos or NTLM inside). Default true.
    pub negotiate: bool,
    /// Offers NTLM without SPNEGO around it. Default true.
    pub ntlm: bool,
    /// Offers Basic over TLS. Default true.
    pub basic: bool,
    /// Offers Basic over plain HTTP too, which an administrator has to allow on a real server. Default false.
    pub basic_over_http: bool,
    /// Accepts messages that are neither sealed nor inside TLS (`AllowUnencrypted` of WinRM). Default false; Basic
    /// over plain HTTP implies it.
    pub unencrypted: bool,
    /// Extended Protection of the virtual directory. Default `none`.
    pub channel_binding: ChannelBinding,
    /// Whether the shell gets an id of the server's choice although the client named one. Default true: WinRM may do
    /// either, and a client that ignores the answer must be found out.
    pub chooses_shell_id: bool,
    /// Seconds of mock time after which an unused shell is deleted (15 minutes; unverified on Exchange).
    pub idle_timeout_secs: u64,
    /// Commands of one shell that were not terminated (`MaxConcurrentCommandsPerShell`). Default 1,000.
    pub commands_per_shell_max: usize,
    /// Largest envelope the server sends or takes, whatever the client allows (`MaxEnvelopeSizekb`). Default 512,000.
    pub envelope_max_bytes: usize,
    /// Largest fragment the server sends. Default 32,768, as Windows PowerShell does.
    pub fragment_max_bytes: usize,
    /// PSRP version the server states; clients leave out newer fields for older ones. By default the profile's.
    pub protocol_version: Option<String>,
    /// Messages begin with a byte order mark, as those of Windows do. Default true.
    pub byte_order_mark: bool,
    /// Answers are compressed for clients that accept it, as IIS does. Default false.
    pub gzip: bool,
    /// A shell is found only by who brings the cookie its Create set, as behind Exchange's front ends. Default false.
    pub affinity_cookie: bool,
    /// Code of the fault for a refused runspace pool. Unverified: published reports show its text and not its code.
    pub refusal_code: u32,
}

impl Default for PowerShellConfig {
    fn default() -> Self {
        Self {
            negotiate: true,
            ntlm: true,
            basic: true,
            basic_over_http: false,
            unencrypted: false,
            channel_binding: ChannelBinding::None,
            chooses_shell_id: true,
            idle_timeout_secs: 900,
            commands_per_shell_max: 1_000,
            envelope_max_bytes: 512_000,
            fragment_max_bytes: 32_768,
            protocol_version: None,
            byte_order_mark: true,
            gzip: false,
            affinity_cookie: false,
            refusal_code: 0x8033_8043,
        }
    }
}

/// An authentication scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// SPNEGO (RFC 4559) with Kerberos or NTLM.
    Negotiate,
    /// NTLM without SPNEGO around it (MS-NTHT).
    Ntlm,
    /// The word some Exchange servers send in place of Negotiate.
    Kerberos,
    /// Name and password (RFC 7617).
    Basic,
}

impl Scheme {
    /// As it is written in headers.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Negotiate => "Negotiate",
            Self::Ntlm => "NTLM",
            Self::Kerberos => "Kerberos",
            Self::Basic => "Basic",
        }
    }

    /// The word in front of an `Authorization` header's credentials; its case does not matter (RFC 9110 11.1).
    pub(super) fn of_word(word: &str) -> Option<Self> {
        [Self::Negotiate, Self::Ntlm, Self::Kerberos, Self::Basic]
            .into_iter()
            .find(|scheme| scheme.word().eq_ignore_ascii_case(word))
    }
}

/// Whether NTLM over TLS must be bound to the channel (`ExtendedProtectionTokenChecking`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelBinding {
    /// Not looked at.
    #[default]
    None,
    /// A wrong binding is refused, a missing one accepted.
    Allow,
    /// A missing one is refused too.
    Require,
}
