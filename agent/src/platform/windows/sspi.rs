//! The security packages of Windows: NTLM and Negotiate (Kerberos) with the account the service runs as, or with a
//! user's name and password.

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::{
    SEC_E_OK, SEC_I_COMPLETE_AND_CONTINUE, SEC_I_COMPLETE_NEEDED, SEC_I_CONTINUE_NEEDED,
};
use windows_sys::Win32::Security::Authentication::Identity::{
    AcquireCredentialsHandleW, CompleteAuthToken, DeleteSecurityContext, FreeContextBuffer,
    FreeCredentialsHandle, ISC_REQ_ALLOCATE_MEMORY, ISC_REQ_CONNECTION, InitializeSecurityContextW,
    SECBUFFER_TOKEN, SECBUFFER_VERSION, SECPKG_CRED_OUTBOUND, SECURITY_NATIVE_DREP, SecBuffer, SecBufferDesc,
};
use windows_sys::Win32::Security::Credentials::SecHandle;
use windows_sys::Win32::System::Rpc::{SEC_WINNT_AUTH_IDENTITY_UNICODE, SEC_WINNT_AUTH_IDENTITY_W};
use zeroize::Zeroizing;

use super::text::wide;

/// Whom to sign in as, when not as the account we run as.
pub struct Account<'a> {
    /// `user`, or `user@domain`.
    pub user: &'a str,
    /// NetBIOS or DNS name; empty for none.
    pub domain: &'a str,
    /// The password. Copied into memory that is wiped.
    pub password: &'a str,
}

/// What a step gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// To send to the peer; empty when nothing is left to say.
    pub token: Vec<u8>,
    /// Whether our side is finished: no answer of the peer is needed.
    pub finished: bool,
}

/// One authentication in progress: tokens in, tokens out.
pub struct NativeContext {
    credentials: SecHandle,
    context: Option<SecHandle>,
    target: Vec<u16>,
}

// SAFETY: handles of SSPI may be used from any thread; `step` takes `&mut self`, so never from two at once.
unsafe impl Send for NativeContext {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for NativeContext {}

impl NativeContext {
    /// Begins with a package (`NTLM`, `Negotiate`) towards a service (`HTTP/proxy.corp.example`).
    ///
    /// # Errors
    /// When Windows has no such package, or no credentials for it.
    pub fn new(package: &str, target: &str, account: Option<&Account<'_>>) -> io::Result<Self> {
        let name = wide(package);
        let given = account.map(Given::new);
        let identity = given.as_ref().map(Given::identity);
        let identity = identity.as_ref().map_or(ptr::null(), |identity| ptr::from_ref(identity).cast());
        let mut credentials = SecHandle::default();
        // SAFETY: names end with zeros; the identity and the texts it points to live until after the call, which copies
        // them; no callback is given.
        outcome(unsafe {
            AcquireCredentialsHandleW(
                ptr::null(),
                name.as_ptr(),
                SECPKG_CRED_OUTBOUND,
                ptr::null(),
                identity,
                None,
                ptr::null(),
                &mut credentials,
                ptr::null_mut(),
            )
        })?;
        Ok(Self { credentials, context: None, target: wide(target) })
    }

    /// The next token; `heard` is what the peer answered to the one before.
    ///
    /// # Errors
    /// When Windows refuses the peer's token or the account.
    pub fn step(&mut self, heard: Option<&[u8]>) -> io::Result<Step> {
        let heard = heard.unwrap_or_default();
        let length =
            u32::try_from(heard.len()).map_err(|_| io::Error::other("a token of more than 4 GiB"))?;
        let mut input = SecBuffer {
            cbBuffer: length,
            BufferType: SECBUFFER_TOKEN,
            pvBuffer: heard.as_ptr().cast_mut().cast(),
        };
        let input = SecBufferDesc { ulVersion: SECBUFFER_VERSION, cBuffers: 1, pBuffers: &mut input };
        let mut output = SecBuffer { cbBuffer: 0, BufferType: SECBUFFER_TOKEN, pvBuffer: ptr::null_mut() };
        let mut outputs = SecBufferDesc { ulVersion: SECBUFFER_VERSION, cBuffers: 1, pBuffers: &mut output };
        let (mut next, mut attributes) = (self.context.unwrap_or_default(), 0);
        // SAFETY: the credentials are open; a first call has neither context nor input, a later one has the context the
        // first one made; buffers describe live memory, and the output is allocated by the call and freed below.
        let code = unsafe {
            InitializeSecurityContextW(
                &self.credentials,
                self.context.as_ref().map_or(ptr::null(), ptr::from_ref),
                self.target.as_ptr(),
                ISC_REQ_ALLOCATE_MEMORY | ISC_REQ_CONNECTION,
                0,
                SECURITY_NATIVE_DREP,
                if self.context.is_some() { &input } else { ptr::null() },
                0,
                &mut next,
                &mut outputs,
                &mut attributes,
                ptr::null_mut(),
            )
        };
        if code >= 0 {
            self.context = Some(next);
        }
        if matches!(code, SEC_I_COMPLETE_NEEDED | SEC_I_COMPLETE_AND_CONTINUE) {
            // SAFETY: the context was made by the call above, which asked for this with these buffers.
            outcome(unsafe { CompleteAuthToken(&next, &outputs) })?;
        }
        let token = taken(&output);
        let finished = match code {
            SEC_E_OK | SEC_I_COMPLETE_NEEDED => true,
            SEC_I_CONTINUE_NEEDED | SEC_I_COMPLETE_AND_CONTINUE => false,
            code => return outcome(code).map(|()| Step { token, finished: false }),
        };
        Ok(Step { token, finished })
    }
}

impl Drop for NativeContext {
    fn drop(&mut self) {
        // SAFETY: both handles are ours and freed once; a context exists only if a step made one.
        unsafe {
            if let Some(context) = &self.context {
                DeleteSecurityContext(context);
            }
            FreeCredentialsHandle(&self.credentials);
        }
    }
}

/// An account's texts as SSPI reads them, wiped on drop.
struct Given {
    user: Zeroizing<Vec<u16>>,
    domain: Zeroizing<Vec<u16>>,
    password: Zeroizing<Vec<u16>>,
}

impl Given {
    fn new(account: &Account<'_>) -> Self {
        let text = |text: &str| Zeroizing::new(wide(text));
        Self { user: text(account.user), domain: text(account.domain), password: text(account.password) }
    }

    fn identity(&self) -> SEC_WINNT_AUTH_IDENTITY_W {
        // Lengths are in units, without the zero.
        let length = |text: &[u16]| u32::try_from(text.len() - 1).unwrap_or(u32::MAX);
        let at = |text: &[u16]| text.as_ptr().cast_mut();
        SEC_WINNT_AUTH_IDENTITY_W {
            User: at(&self.user),
            UserLength: length(&self.user),
            Domain: at(&self.domain),
            DomainLength: length(&self.domain),
            Password: at(&self.password),
            PasswordLength: length(&self.password),
            Flags: SEC_WINNT_AUTH_IDENTITY_UNICODE,
        }
    }
}

fn taken(buffer: &SecBuffer) -> Vec<u8> {
    if buffer.pvBuffer.is_null() {
        return Vec::new();
    }
    // SAFETY: the call that filled the buffer allocated `cbBuffer` bytes there, and asked that they be freed so.
    unsafe {
        let bytes =
            std::slice::from_raw_parts(buffer.pvBuffer.cast::<u8>(), buffer.cbBuffer as usize).to_vec();
        FreeContextBuffer(buffer.pvBuffer);
        bytes
    }
}

fn outcome(code: i32) -> io::Result<()> {
    if code >= 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntlm_begins_with_its_negotiate_message() {
        let account = Account { user: "asmith", domain: "ACME", password: "canary" };
        let mut context = NativeContext::new("NTLM", "HTTP/proxy.example", Some(&account)).unwrap();
        let step = context.step(None).unwrap();
        assert!(!step.finished);
        // MS-NLMP 2.2.1.1: signature, then message type 1.
        assert_eq!(&step.token[..12], b"NTLMSSP\0\x01\0\0\0");
    }

    #[test]
    fn an_unknown_package_is_an_error() {
        assert!(NativeContext::new("Nonsense", "HTTP/x", None).is_err());
    }
}
