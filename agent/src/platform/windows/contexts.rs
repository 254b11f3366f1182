//! The security packages of Windows for the dialler.

use futures_util::future::BoxFuture;

use super::sspi::{Account, NativeContext};
use crate::dial::security::{
    Login, Package, Sealed, SecurityContext, SecurityContexts, SecurityError, Service,
};

/// NTLM and Negotiate of Windows; without credentials as the account we run as.
pub(crate) struct WindowsContexts;

/// One context. Taken while a thread of its own works with it: Kerberos asks a domain controller meanwhile.
struct Context {
    native: Option<NativeContext>,
    ntlm_allowed: bool,
    complete: bool,
}

impl SecurityContexts for WindowsContexts {
    fn begin(
        &self,
        package: Package,
        service: &Service<'_>,
        login: &Login<'_>,
    ) -> Result<Box<dyn SecurityContext>, SecurityError> {
        let name = match package {
            Package::Ntlm => "NTLM",
            Package::Negotiate => "Negotiate",
            Package::Kerberos => "Kerberos",
        };
        let account = login.credentials.map(|credentials| {
            let (domain, user) = credentials.username.split_once('\\').unwrap_or(("", &credentials.username));
            Account { user, domain, password: credentials.password.expose() }
        });
        let native =
            NativeContext::new(name, &format!("{}/{}", service.class, service.host), account.as_ref())
                .map_err(|error| SecurityError::NotPossible { why: error.to_string() })?
                .protecting(service.seal, service.binding);
        let ntlm_allowed = package == Package::Ntlm || login.negotiate_ntlm;
        Ok(Box::new(Context { native: Some(native), ntlm_allowed, complete: false }))
    }

    fn own_logon(&self) -> bool {
        true
    }
}

impl SecurityContext for Context {
    fn step<'a>(&'a mut self, token: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>, SecurityError>> {
        Box::pin(async move {
            let not_possible = |why: &str| SecurityError::NotPossible { why: why.to_owned() };
            let mut native =
                self.native.take().ok_or_else(|| not_possible("an earlier step was given up"))?;
            let token = token.map(<[u8]>::to_vec);
            let worked = tokio::task::spawn_blocking(move || {
                let step = native.step(token.as_deref());
                (native, step)
            });
            let (native, step) = worked.await.map_err(|_| not_possible("the thread of SSPI ended"))?;
            self.native = Some(native);
            let step = step.map_err(|error| judged(&error))?;
            self.complete = step.finished;
            let token = step.token;
            if !self.ntlm_allowed && token.windows(NTLM.len()).any(|window| window == NTLM) {
                return Err(not_possible("Windows chose NTLM inside Negotiate, which is not allowed here"));
            }
            Ok(token)
        })
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn seal(&mut self, message: &[u8]) -> Result<Sealed, SecurityError> {
        let sealed = self.native()?.seal(message);
        let (token, body) = sealed.map_err(|error| SecurityError::NotPossible { why: error.to_string() })?;
        Ok(Sealed { token, body })
    }

    fn unseal(&mut self, sealed: Sealed) -> Result<Vec<u8>, SecurityError> {
        let opened = self.native()?.unseal(sealed.token, sealed.body);
        opened.map_err(|error| SecurityError::BadToken { why: error.to_string() })
    }
}

impl Context {
    fn native(&mut self) -> Result<&mut NativeContext, SecurityError> {
        let given_up = || SecurityError::NotPossible { why: "an earlier step was given up".to_owned() };
        self.native.as_mut().ok_or_else(given_up)
    }
}

/// What every NTLM message carries, wherever it is wrapped (MS-NLMP 2.2.1).
const NTLM: &[u8] = b"NTLMSSP\0";

fn judged(error: &std::io::Error) -> SecurityError {
    // SEC_E_LOGON_DENIED, SEC_E_INVALID_TOKEN (winerror.h).
    const LOGON_DENIED: i32 = 0x8009_030C_u32.cast_signed();
    const INVALID_TOKEN: i32 = 0x8009_0308_u32.cast_signed();
    let why = error.to_string();
    match error.raw_os_error() {
        Some(LOGON_DENIED) => SecurityError::Credentials { why },
        Some(INVALID_TOKEN) => SecurityError::BadToken { why },
        _ => SecurityError::NotPossible { why },
    }
}
