//! NTLM and Kerberos by the `sspi` crate: for systems without SSPI of their own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sspi::builders::FilledInitializeSecurityContext;
use sspi::generator::{GeneratorInitSecurityContext, GeneratorState};
use sspi::{
    AuthIdentityBuffers, BufferType, ClientRequestFlags, CredentialsBuffers, DataRepresentation,
    EncryptionFlags, Kerberos, KerberosConfig, Negotiate, NegotiateConfig, Ntlm, SecurityBuffer,
    SecurityBufferRef, SecurityStatus, Sspi, SspiImpl, Username, UsernameParts,
};

use super::kdc::Kdc;
use super::krb_error;
use super::{Credentials, Login, Package, Sealed, SecurityContext, SecurityContexts, SecurityError, Service};
use crate::dial::Dial;

/// Stands for the user's own realm where the crate wants an address; [`Kdc`] knows better.
const HOME_REALM: &str = "home-realm.invalid";

/// Makes contexts by the `sspi` crate.
pub(super) struct RustSspi {
    /// Reaches the KDC, never through a proxy.
    dial: Arc<dyn Dial>,
}

impl RustSspi {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }
}

impl SecurityContexts for RustSspi {
    fn begin(
        &self,
        package: Package,
        service: &Service<'_>,
        login: &Login<'_>,
    ) -> Result<Box<dyn SecurityContext>, SecurityError> {
        let impossible = |why: String| SecurityError::NotPossible { why };
        let credentials = login.credentials.ok_or_else(|| impossible("no credentials".into()))?;
        let wanted = Wanted::new(service);
        if package == Package::Ntlm {
            let name =
                Username::parse(&credentials.username).map_err(|error| impossible(error.to_string()))?;
            let handle = Some(buffers(&name, credentials));
            return Ok(Box::new(NtlmContext { ntlm: Ntlm::new(), handle, wanted, complete: false }));
        }
        let ntlm = package == Package::Negotiate && login.negotiate_ntlm;
        let numeric = service.host.parse::<std::net::IpAddr>().is_ok();
        let principal = match principal(credentials, login.kerberos_realm) {
            _ if numeric => Err("Kerberos needs the server's name, not its address".to_owned()),
            other => other,
        };
        let (kerberos, name) = match principal {
            Ok(found) => (Some(found.1), found.0),
            Err(why) if !ntlm => return Err(impossible(why)),
            Err(_) => {
                let name = Username::parse(&credentials.username);
                (None, name.map_err(|error| impossible(error.to_string()))?)
            }
        };
        let handle = Some(CredentialsBuffers::AuthIdentity(buffers(&name, credentials)));
        let kdc = Kdc::new(Arc::clone(&self.dial), login.kerberos_kdcs.to_vec());
        let found = kerberos.is_some();
        let realm = kerberos.unwrap_or_default();
        Ok(match package {
            Package::Kerberos => {
                let kerberos = Kerberos::new_client_from_config(kerberos_config())
                    .map_err(|error| impossible(error.description))?;
                Box::new(Context { sspi: kerberos, handle, wanted, realm, kdc, complete: false })
            }
            _ => {
                let negotiate = negotiate(found, ntlm)?;
                Box::new(Context { sspi: negotiate, handle, wanted, realm, kdc, complete: false })
            }
        })
    }
}

/// What a context is for, as `sspi` wants it said at every step.
struct Wanted {
    target: String,
    flags: ClientRequestFlags,
    /// SEC_CHANNEL_BINDINGS.
    binding: Option<Vec<u8>>,
}

impl Wanted {
    fn new(service: &Service<'_>) -> Self {
        let flags = if service.seal {
            ClientRequestFlags::CONFIDENTIALITY
                | ClientRequestFlags::INTEGRITY
                | ClientRequestFlags::MUTUAL_AUTH
                | ClientRequestFlags::SEQUENCE_DETECT
                | ClientRequestFlags::REPLAY_DETECT
        } else {
            ClientRequestFlags::empty()
        };
        let target = format!("{}/{}", service.class, service.host);
        Self { target, flags, binding: service.binding.map(channel_bindings) }
    }

    fn input(&self, token: Option<&[u8]>) -> Vec<SecurityBuffer> {
        let mut input = vec![token_buffer(token)];
        if let Some(binding) = &self.binding {
            input.push(SecurityBuffer::new(binding.clone(), BufferType::ChannelBindings));
        }
        input
    }
}

/// SEC_CHANNEL_BINDINGS of the Windows API: two addresses that are not given, then the application's data.
fn channel_bindings(application: &[u8]) -> Vec<u8> {
    const HEAD_BYTES: u32 = 32;
    let length = u32::try_from(application.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0; 24];
    bytes.extend(length.to_le_bytes());
    bytes.extend(HEAD_BYTES.to_le_bytes());
    bytes.extend(application);
    bytes
}

fn kerberos_config() -> KerberosConfig {
    KerberosConfig::new_with_kdc_url(&format!("tcp://{HOME_REALM}"), "causeway".to_owned())
}

fn negotiate(kerberos: bool, ntlm: bool) -> Result<Negotiate, SecurityError> {
    let packages = match (kerberos, ntlm) {
        (true, true) => "kerberos,ntlm",
        (true, false) => "kerberos",
        (false, _) => "ntlm",
    };
    let config =
        NegotiateConfig::new(Box::new(kerberos_config()), Some(packages.to_owned()), "causeway".to_owned());
    Negotiate::new_client(config).map_err(|error| SecurityError::NotPossible { why: error.description })
}

fn buffers(name: &Username, credentials: &Credentials) -> AuthIdentityBuffers {
    let (user, domain) = match name.parts() {
        UsernameParts::UserPrincipalName(parts) => (parts.upn(), ""),
        UsernameParts::DownLevelLogonName(parts) => {
            (parts.account_name(), parts.netbios_domain().unwrap_or_default())
        }
    };
    AuthIdentityBuffers::from_utf8(user, domain, credentials.password.expose())
}

/// The user as Kerberos knows it, and the realm.
///
/// `user@REALM` in capitals is a principal; `user@domain.example` is a name of Active Directory, which its KDC
/// resolves (RFC 6806 §5); with a configured realm whatever stands around the account's name is left out.
fn principal(credentials: &Credentials, realm: Option<&str>) -> Result<(Username, String), String> {
    let name = Username::parse(&credentials.username).map_err(|error| error.to_string())?;
    let down_level = |account: &str, realm: &str| {
        let name = Username::new_down_level_logon_name(account, realm).map_err(|error| error.to_string())?;
        Ok((name, realm.to_ascii_uppercase()))
    };
    match (name.parts(), realm) {
        (UsernameParts::UserPrincipalName(parts), Some(realm)) => down_level(parts.account_name(), realm),
        (UsernameParts::DownLevelLogonName(parts), Some(realm)) => down_level(parts.account_name(), realm),
        (UsernameParts::UserPrincipalName(parts), None)
            if !parts.suffix().contains(|c: char| c.is_lowercase()) =>
        {
            down_level(parts.account_name(), parts.suffix())
        }
        (UsernameParts::UserPrincipalName(parts), None) => {
            let realm = parts.suffix().to_ascii_uppercase();
            Ok((name.clone(), realm))
        }
        (UsernameParts::DownLevelLogonName(parts), None) => match parts.netbios_domain() {
            Some(domain) if domain.contains('.') => down_level(parts.account_name(), domain),
            _ => Err(format!(
                "the Kerberos realm of {} is not known; set kerberos_realm",
                credentials.username
            )),
        },
    }
}

struct NtlmContext {
    ntlm: Ntlm,
    handle: Option<AuthIdentityBuffers>,
    wanted: Wanted,
    complete: bool,
}

impl SecurityContext for NtlmContext {
    fn step<'a>(&'a mut self, token: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>, SecurityError>> {
        Box::pin(async move {
            let repaired = token.and_then(repaired_challenge);
            let mut input = self.wanted.input(repaired.as_deref().or(token));
            let mut output = [token_buffer(None)];
            let mut request = self
                .ntlm
                .initialize_security_context()
                .with_credentials_handle(&mut self.handle)
                .with_context_requirements(self.wanted.flags)
                .with_target_data_representation(DataRepresentation::Native)
                .with_target_name(&self.wanted.target)
                .with_input(&mut input)
                .with_output(&mut output);
            let bad = |error: sspi::Error| SecurityError::BadToken { why: error.description };
            self.complete = ntlm_step(&mut self.ntlm, &mut request).map_err(bad)? == SecurityStatus::Ok;
            let [output] = output;
            Ok(output.buffer)
        })
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn seal(&mut self, message: &[u8]) -> Result<Sealed, SecurityError> {
        seal(&mut self.ntlm, message)
    }

    fn unseal(&mut self, sealed: Sealed) -> Result<Vec<u8>, SecurityError> {
        unseal(&mut self.ntlm, sealed)
    }
}

fn seal(sspi: &mut impl Sspi, message: &[u8]) -> Result<Sealed, SecurityError> {
    let bad = |error: sspi::Error| SecurityError::NotPossible { why: error.description };
    let sizes = sspi.query_context_sizes().map_err(bad)?;
    let mut token = vec![0; usize::try_from(sizes.security_trailer).unwrap_or_default()];
    let mut body = message.to_vec();
    let mut buffers = [SecurityBufferRef::token_buf(&mut token), SecurityBufferRef::data_buf(&mut body)];
    sspi.encrypt_message(EncryptionFlags::empty(), &mut buffers).map_err(bad)?;
    Ok(Sealed { token: buffers[0].data().to_vec(), body: buffers[1].data().to_vec() })
}

fn unseal(sspi: &mut impl Sspi, sealed: Sealed) -> Result<Vec<u8>, SecurityError> {
    let Sealed { mut token, mut body } = sealed;
    let mut buffers = [SecurityBufferRef::token_buf(&mut token), SecurityBufferRef::data_buf(&mut body)];
    sspi.decrypt_message(&mut buffers).map_err(|error| SecurityError::BadToken { why: error.description })?;
    Ok(buffers[1].data().to_vec())
}

fn ntlm_step<'a>(
    ntlm: &'a mut Ntlm,
    request: &mut FilledInitializeSecurityContext<'a, 'a, Option<AuthIdentityBuffers>>,
) -> sspi::Result<SecurityStatus> {
    let stepped = ntlm.initialize_security_context_impl(request)?.resolve_to_result()?;
    Ok(stepped.status)
}

/// A CHALLENGE as `sspi` reads it, for servers that send one without target information or whose target name points
/// nowhere (MS-NLMP 2.2.1.2; squid's test program does both). The name is not used for anything, so it is left out; the
/// information is kept. `None` when nothing needs repair, or it is no challenge at all.
fn repaired_challenge(token: &[u8]) -> Option<Vec<u8>> {
    const TARGET_INFO: u32 = 0x0080_0000;
    const VERSION: u32 = 0x0200_0000;
    const HEAD_BYTES: u32 = 48;
    let number = |at: usize| Some(u32::from_le_bytes(token.get(at..at + 4)?.try_into().ok()?));
    let field = |at: usize| {
        let length = usize::from(u16::from_le_bytes(token.get(at..at + 2)?.try_into().ok()?));
        let offset = usize::try_from(number(at + 4)?).ok()?;
        token.get(offset..offset.checked_add(length)?)
    };
    if !token.starts_with(b"NTLMSSP\0\x02\0\0\0")
        || (token.len() >= HEAD_BYTES as usize && field(12).is_some())
    {
        return None;
    }
    let flags = number(20)? & !VERSION;
    // What says it has information and has none is broken beyond repair.
    let info = match flags & TARGET_INFO {
        0 => &[][..],
        _ if token.len() >= HEAD_BYTES as usize => field(40)?,
        _ => return None,
    };
    let length = u16::try_from(info.len()).ok()?.to_le_bytes();
    let end = HEAD_BYTES.to_le_bytes();
    let mut whole = b"NTLMSSP\0\x02\0\0\0".to_vec();
    whole.extend([0; 4]);
    whole.extend(end);
    whole.extend(flags.to_le_bytes());
    whole.extend(token.get(24..32)?);
    whole.extend([0; 8]);
    whole.extend([length, length].concat());
    whole.extend(end);
    whole.extend(info);
    Some(whole)
}

/// Negotiate or Kerberos: what may have to ask a KDC between two messages.
struct Context<S> {
    sspi: S,
    handle: Option<CredentialsBuffers>,
    wanted: Wanted,
    realm: String,
    kdc: Kdc,
    complete: bool,
}

impl<S> SecurityContext for Context<S>
where
    S: Sspi + SspiImpl<CredentialsHandle = Option<CredentialsBuffers>> + Send + Sync,
{
    fn step<'a>(&'a mut self, token: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>, SecurityError>> {
        Box::pin(async move {
            let mut input = self.wanted.input(token);
            let mut output = [token_buffer(None)];
            let mut request = self
                .sspi
                .initialize_security_context()
                .with_credentials_handle(&mut self.handle)
                .with_context_requirements(self.wanted.flags)
                .with_target_data_representation(DataRepresentation::Native)
                .with_target_name(&self.wanted.target)
                .with_input(&mut input)
                .with_output(&mut output);
            let mut seen = Seen::default();
            let outcome = match self.sspi.initialize_security_context_impl(&mut request) {
                Ok(work) => drive(work, &self.kdc, &self.realm, &mut seen).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(status) => {
                    self.complete = status == SecurityStatus::Ok;
                    let [output] = output;
                    Ok(output.buffer)
                }
                Err(error) => Err(seen.judge(token.is_some(), error, &self.wanted.target)),
            }
        })
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn seal(&mut self, message: &[u8]) -> Result<Sealed, SecurityError> {
        seal(&mut self.sspi, message)
    }

    fn unseal(&mut self, sealed: Sealed) -> Result<Vec<u8>, SecurityError> {
        unseal(&mut self.sspi, sealed)
    }
}

/// What the KDC said last, which `sspi` blurs.
#[derive(Default)]
struct Seen {
    unreachable: Option<String>,
    code: Option<u32>,
}

async fn drive(
    mut work: GeneratorInitSecurityContext<'_>,
    kdc: &Kdc,
    home: &str,
    seen: &mut Seen,
) -> Result<SecurityStatus, sspi::Error> {
    let mut state = work.start();
    loop {
        match state {
            GeneratorState::Completed(result) => return result.map(|done| done.status),
            GeneratorState::Suspended(request) => {
                let answer = match request.url.host_str() {
                    Some(HOME_REALM) | None => kdc.exchange(home, &request.data).await,
                    // A realm that ours refers to, found by the system's Kerberos settings.
                    Some(host) => {
                        let at = format!("{host}:{}", request.url.port().unwrap_or(88));
                        kdc.at(vec![at]).exchange(host, &request.data).await
                    }
                };
                seen.code = answer.as_ref().ok().and_then(|answer| krb_error::code(answer.get(4..)?));
                state = work.resume(answer.map_err(|why| {
                    seen.unreachable = Some(why.clone());
                    sspi::Error::new(sspi::ErrorKind::NoAuthenticatingAuthority, why)
                }));
            }
        }
    }
}

impl Seen {
    /// Codes of RFC 4120 §7.5.9.
    fn judge(self, begun: bool, error: sspi::Error, target: &str) -> SecurityError {
        let credentials = |why: &str| SecurityError::Credentials { why: why.to_owned() };
        let impossible = |why: String| SecurityError::NotPossible { why };
        match (self.unreachable, self.code) {
            (Some(why), _) => impossible(why),
            (None, Some(6)) => credentials("the KDC does not know the user"),
            (None, Some(12)) => credentials("the KDC's policy forbids the user to sign in"),
            (None, Some(18)) => credentials("the KDC says the account is locked, disabled or expired"),
            (None, Some(23)) => credentials("the KDC says the password has expired"),
            (None, Some(24 | 31)) => credentials("the KDC says the password is wrong"),
            (None, Some(7)) => impossible(format!("the KDC does not know the service {target}")),
            (None, Some(14)) => impossible("the KDC shares no encryption type with us".into()),
            (None, Some(37)) => impossible("our clock and the KDC's differ by more than it allows".into()),
            (None, Some(68)) => impossible("the KDC is not one of the user's realm".into()),
            (None, Some(code)) => impossible(format!("the KDC answers with error {code}")),
            (None, None) if begun => SecurityError::BadToken { why: error.description },
            (None, None) => impossible(error.description),
        }
    }
}

fn token_buffer(token: Option<&[u8]>) -> SecurityBuffer {
    SecurityBuffer::new(token.unwrap_or_default().to_vec(), BufferType::Token)
}

#[cfg(test)]
mod tests {
    use causeway_protocol::Secret;

    use super::*;

    #[test]
    fn a_challenge_without_target_information_is_repaired() {
        // As squid 5.7's ntlm_fake_auth sends it: 40 bytes, then a name whose offset is rubbish.
        let head =
            [&b"NTLMSSP\0\x02\0\0\0\x09\0\x09\0\xae\xaa\xaa\xaa\xb7\x82\x08\xe2"[..], b"8 octets"].concat();
        let short = [&head[..], b"\0\0\0\0\0\0\x3a\0WORKGROUP"].concat();
        let whole = repaired_challenge(&short).unwrap();
        assert_eq!((whole.len(), &whole[24..32]), (48, &b"8 octets"[..]));
        assert_eq!(repaired_challenge(&whole), None);
        let boastful = [&short[..22], b"\x88", &short[23..]].concat();
        assert_eq!(repaired_challenge(&boastful), None, "information is promised where there is none");
        for length in 0..short.len() {
            repaired_challenge(&short[..length]);
        }
        let mut ntlm = NtlmContext {
            ntlm: Ntlm::new(),
            handle: Some(AuthIdentityBuffers::from_utf8("svc", "", "x")),
            wanted: Wanted::new(&Service { class: "HTTP", host: "proxy", seal: false, binding: None }),
            complete: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ntlm.step(None)).unwrap();
        let answer = runtime.block_on(ntlm.step(Some(&short))).unwrap();
        assert!(answer.starts_with(b"NTLMSSP\0\x03") && ntlm.is_complete());
    }

    #[test]
    fn the_realm_comes_from_the_name_or_the_settings() {
        let of = |username: &str, realm: Option<&str>| {
            let credentials = Credentials { username: username.into(), password: Secret::new("x") };
            principal(&credentials, realm).map(|(name, realm)| (name.inner().to_owned(), realm)).ok()
        };
        let found = |name: &str, realm: &str| Some((name.to_owned(), realm.to_owned()));
        assert_eq!(of("svc@ACME.EXAMPLE", None), found("ACME.EXAMPLE\\svc", "ACME.EXAMPLE"));
        assert_eq!(of("svc@acme.example", None), found("svc@acme.example", "ACME.EXAMPLE"));
        assert_eq!(of("acme.example\\svc", None), found("acme.example\\svc", "ACME.EXAMPLE"));
        assert_eq!(of("ACME\\svc", None), None);
        assert_eq!(of("svc", None), None);
        for name in ["svc", "ACME\\svc", "svc@acme.example"] {
            assert_eq!(of(name, Some("R.EXAMPLE")), found("R.EXAMPLE\\svc", "R.EXAMPLE"), "{name}");
        }
    }
}
