use super::csn::Csn;
use super::reader::Reader;
use super::replica::Replica;
use super::types::*;
pub(crate) fn context(reader: &Reader<'_>) -> Vec<Csn> {
    let _ = reader;
    Vec::new()
}
impl Replica {
    pub fn syncrepl(&self, request: &SyncRequest<'_>) -> Result<SyncBatch, LdapFailure> {
        let _ = request;
        Err(LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet"))
    }
    /// What happened after change `number` to objects in scope.
    pub fn changes_since(&self, number: u64, plan: &SearchPlan<'_>) -> Result<Changes, LdapFailure> {
        let _ = (number, plan);
        Err(LdapFailure::new(ResultCode::UNAVAILABLE, "not built yet"))
    }
}
