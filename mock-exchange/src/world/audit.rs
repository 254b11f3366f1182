//! Who changed what: every cmdlet that writes, as the administrator audit log keeps them.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::AUDIT_ENTRIES_MAX;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEntry {
    pub at_ms: i64,
    pub caller: String,
    pub cmdlet: String,
    pub object: String,
    pub parameters: Vec<(String, String)>,
    pub succeeded: bool,
}

/// A bounded ring; the oldest are dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit(VecDeque<AuditEntry>);

impl Audit {
    pub(super) fn add(&mut self, entry: AuditEntry) {
        if self.0.len() == AUDIT_ENTRIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn entries(&self) -> Vec<AuditEntry> {
        self.0.iter().cloned().collect()
    }
}
