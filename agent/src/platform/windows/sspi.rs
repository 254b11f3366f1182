//! The security packages of Windows: NTLM and Negotiate (Kerberos) with the account the service runs as, or with a
//! user's name and password.

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::{
    SEC_E_OK, SEC_I_COMPLETE_AND_CONTINUE, SEC_I_COMPLETE_NEEDED, SEC_I_CONTINUE_NEEDED,
};
use windows_sys::Win32::Security::Authentication::Identity::{
    AcquireCredentialsHandleW, CompleteAuthToken, DecryptMessage, DeleteSecurityContext, EncryptMessage,
    FreeContextBuffer, FreeCredentialsHandle, ISC_REQ_ALLOCATE_MEMORY, ISC_REQ_CONFIDENTIALITY,
    ISC_REQ_CONNECTION, ISC_REQ_INTEGRITY, ISC_REQ_MUTUAL_AUTH, ISC_REQ_REPLAY_DETECT,
    ISC_REQ_SEQUENCE_DETECT, InitializeSecurityContextW, QueryContextAttributesW, SECBUFFER_CHANNEL_BINDINGS,
    SECBUFFER_DATA, SECBUFFER_PADDING, SECBUFFER_TOKEN, SECBUFFER_VERSION, SECPKG_ATTR_SIZES,
    SECPKG_CRED_OUTBOUND, SECURITY_NATIVE_DREP, SecBuffer, SecBufferDesc, SecPkgContext_Sizes,
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
    seal: bool,
    /// SEC_CHANNEL_BINDINGS.
    binding: Option<Vec<u8>>,
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
        Ok(Self { credentials, context: None, target: wide(target), seal: false, binding: None })
    }

    /// The same for messages that will be sealed, and bound to the TLS connection that these bytes name.
    #[must_use]
    pub fn protecting(mut self, seal: bool, binding: Option<&[u8]>) -> Self {
        (self.seal, self.binding) = (seal, binding.map(channel_bindings));
        self
    }

    /// The next token; `heard` is what the peer answered to the one before.
    ///
    /// # Errors
    /// When Windows refuses the peer's token or the account.
    pub fn step(&mut self, heard: Option<&[u8]>) -> io::Result<Step> {
        let heard = heard.unwrap_or_default();
        let length =
            u32::try_from(heard.len()).map_err(|_| io::Error::other("a token of more than 4 GiB"))?;
        let mut inputs = Vec::new();
        if self.context.is_some() {
            let pointer = heard.as_ptr().cast_mut().cast();
            inputs.push(SecBuffer { cbBuffer: length, BufferType: SECBUFFER_TOKEN, pvBuffer: pointer });
        }
        if let Some(binding) = &self.binding {
            inputs.push(SecBuffer {
                cbBuffer: u32::try_from(binding.len()).unwrap_or(0),
                BufferType: SECBUFFER_CHANNEL_BINDINGS,
                pvBuffer: binding.as_ptr().cast_mut().cast(),
            });
        }
        let input = described(&mut inputs);
        let mut output = SecBuffer { cbBuffer: 0, BufferType: SECBUFFER_TOKEN, pvBuffer: ptr::null_mut() };
        let mut outputs = SecBufferDesc { ulVersion: SECBUFFER_VERSION, cBuffers: 1, pBuffers: &mut output };
        let (mut next, mut attributes) = (self.context.unwrap_or_default(), 0);
        let wanted = ISC_REQ_ALLOCATE_MEMORY | ISC_REQ_CONNECTION | if self.seal { SEALING } else { 0 };
        // SAFETY: the credentials are open; a first call has neither context nor token, a later one has the context the
        // first one made; buffers describe live memory, and the output is allocated by the call and freed below.
        let code = unsafe {
            InitializeSecurityContextW(
                &self.credentials,
                self.context.as_ref().map_or(ptr::null(), ptr::from_ref),
                self.target.as_ptr(),
                wanted,
                0,
                SECURITY_NATIVE_DREP,
                if inputs.is_empty() { ptr::null() } else { &input },
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

    /// Seals a message: its token, and the sealed bytes with their padding.
    ///
    /// # Errors
    /// When the context is not complete, or was not begun for it.
    pub fn seal(&mut self, message: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let context = self.context.as_ref().ok_or_else(|| io::Error::other("nobody is signed in"))?;
        let mut sizes = SecPkgContext_Sizes::default();
        // SAFETY: the context is open, and the attribute asked for fills exactly this structure.
        outcome(unsafe {
            QueryContextAttributesW(context, SECPKG_ATTR_SIZES, ptr::from_mut(&mut sizes).cast())
        })?;
        let mut token = vec![0; sizes.cbSecurityTrailer as usize];
        let mut body = message.to_vec();
        let mut padding = vec![0; sizes.cbBlockSize as usize];
        let mut buffers = [
            buffer(SECBUFFER_TOKEN, &mut token)?,
            buffer(SECBUFFER_DATA, &mut body)?,
            buffer(SECBUFFER_PADDING, &mut padding)?,
        ];
        let described = described(&mut buffers);
        // SAFETY: the buffers describe live memory of the sizes the context asked for; it writes no further than they
        // say.
        outcome(unsafe { EncryptMessage(context, 0, &described, 0) })?;
        token.truncate(buffers[0].cbBuffer as usize);
        padding.truncate(buffers[2].cbBuffer as usize);
        body.extend(padding);
        Ok((token, body))
    }

    /// Opens a sealed message.
    ///
    /// # Errors
    /// When it was changed, or is out of turn.
    pub fn unseal(&mut self, mut token: Vec<u8>, mut body: Vec<u8>) -> io::Result<Vec<u8>> {
        let context = self.context.as_ref().ok_or_else(|| io::Error::other("nobody is signed in"))?;
        let mut buffers = [buffer(SECBUFFER_TOKEN, &mut token)?, buffer(SECBUFFER_DATA, &mut body)?];
        let described = described(&mut buffers);
        // SAFETY: the buffers describe live memory, which is decrypted in place.
        outcome(unsafe { DecryptMessage(context, &described, 0, ptr::null_mut()) })?;
        body.truncate(buffers[1].cbBuffer as usize);
        Ok(body)
    }
}

/// What a context must promise whose messages will be sealed.
const SEALING: u32 = ISC_REQ_CONFIDENTIALITY
    | ISC_REQ_INTEGRITY
    | ISC_REQ_MUTUAL_AUTH
    | ISC_REQ_REPLAY_DETECT
    | ISC_REQ_SEQUENCE_DETECT;

/// SEC_CHANNEL_BINDINGS: two addresses that are not given, then the application's data behind the structure.
fn channel_bindings(application: &[u8]) -> Vec<u8> {
    const HEAD_BYTES: u32 = 32;
    let length = u32::try_from(application.len()).unwrap_or(0);
    let mut bytes = vec![0; 24];
    bytes.extend(length.to_le_bytes());
    bytes.extend(HEAD_BYTES.to_le_bytes());
    bytes.extend(application);
    bytes
}

fn buffer(kind: u32, bytes: &mut [u8]) -> io::Result<SecBuffer> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a message of more than 4 GiB"))?;
    Ok(SecBuffer { cbBuffer: length, BufferType: kind, pvBuffer: bytes.as_mut_ptr().cast() })
}

fn described(buffers: &mut [SecBuffer]) -> SecBufferDesc {
    let count = u32::try_from(buffers.len()).unwrap_or(0);
    SecBufferDesc { ulVersion: SECBUFFER_VERSION, cBuffers: count, pBuffers: buffers.as_mut_ptr() }
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
