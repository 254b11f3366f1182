use super::replica::Replica;
use super::types::*;
impl Replica {
    /// `secure`: the connection is protected; Active Directory takes passwords only then.
    pub fn write(&self, op: WriteOp, who: &Identity, secure: bool) -> Result<WriteDone, LdapFailure> {
        let _ = (op, who, secure);
        Err(LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet"))
    }
    /// RFC 3062. Returns the generated password when `new` is none.
    pub fn change_password(
        &self,
        who: &Identity,
        user: Option<&[u8]>,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        secure: bool,
    ) -> Result<Option<String>, LdapFailure> {
        let _ = (who, user, old, new, secure);
        Err(LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet"))
    }
}
