use super::replica::Replica;
use super::types::*;
impl Replica {
    pub fn dirsync(&self, request: &DirSyncRequest<'_>) -> Result<DirSyncPage, LdapFailure> {
        let _ = request;
        Err(LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet"))
    }
}
