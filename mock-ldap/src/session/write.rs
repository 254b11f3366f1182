//! Compare, add, modify, modifyDN and delete: requests are turned into operations of the directory.

use serde_json::json;

use super::{Call, Session};
use crate::controls::Controls;
use crate::dit::{LdapFailure, ModOp, Modification, ResultCode, View, WriteOp};
use crate::message::{Change, Operation};

impl Session {
    pub(super) fn compare(&mut self, call: Call, dn: &[u8], attribute: &[u8], value: &[u8]) {
        let attribute = String::from_utf8_lossy(attribute);
        let code = match self.replica.compare(dn, &attribute, value, &self.who) {
            Ok(true) => ResultCode::COMPARE_TRUE,
            Ok(false) => ResultCode::COMPARE_FALSE,
            Err(failure) => return self.finish(&call, Some(&failure), &[]),
        };
        self.finish(&call, Some(&LdapFailure::new(code, "")), &[]);
    }

    pub(super) fn write(&mut self, mut call: Call, operation: &Operation<'_>, controls: &Controls<'_>) {
        if self.front.view == View::GlobalCatalog {
            return self.fail(call, ResultCode::UNWILLING_TO_PERFORM, "the Global Catalog is read-only");
        }
        call.detail = describe(operation);
        let Some(write) = write_op(operation, controls) else {
            return self.fail(call, ResultCode::PROTOCOL_ERROR, "not a write");
        };
        let changed_password = self.must_change;
        match self.replica.write(write, &self.who, self.is_secure()) {
            Ok(done) => {
                if changed_password {
                    self.must_change = false;
                }
                let controls = self.policy_controls(controls.password_policy, done.policy);
                self.finish(&call, None, &controls);
            }
            Err(failure) => {
                let controls = self.policy_controls(controls.password_policy, failure.policy);
                self.finish(&call, Some(&failure), &controls);
            }
        }
    }
}

fn write_op(operation: &Operation<'_>, controls: &Controls<'_>) -> Option<WriteOp> {
    Some(match operation {
        Operation::Add { dn, attributes } => WriteOp::Add {
            dn: dn.to_vec(),
            attributes: attributes.iter().map(|(name, values)| (text(name), owned(values))).collect(),
        },
        Operation::Delete { dn } => WriteOp::Delete { dn: dn.to_vec(), tree: controls.tree_delete },
        Operation::Modify { dn, changes } => WriteOp::Modify {
            dn: dn.to_vec(),
            changes: changes.iter().map(modification).collect(),
            permissive: controls.permissive_modify,
        },
        Operation::ModifyDn { dn, new_rdn, delete_old, new_superior } => WriteOp::ModifyDn {
            dn: dn.to_vec(),
            new_rdn: new_rdn.to_vec(),
            delete_old: *delete_old,
            new_superior: new_superior.map(<[u8]>::to_vec),
        },
        _ => return None,
    })
}

fn modification(change: &Change<'_>) -> Modification {
    let op = match change.kind {
        0 => ModOp::Add,
        1 => ModOp::Delete,
        2 => ModOp::Replace,
        _ => ModOp::Increment,
    };
    Modification { op, attribute: text(change.attribute), values: owned(&change.values) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn owned(values: &[&[u8]]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.to_vec()).collect()
}

/// Names only: values may be passwords.
fn describe(operation: &Operation<'_>) -> serde_json::Value {
    match operation {
        Operation::Add { attributes, .. } => {
            json!({ "attributes": attributes.iter().map(|(name, _)| text(name)).collect::<Vec<_>>() })
        }
        Operation::Modify { changes, .. } => {
            json!({ "attributes": changes.iter().map(|change| text(change.attribute)).collect::<Vec<_>>() })
        }
        Operation::ModifyDn { new_rdn, new_superior, .. } => {
            json!({ "new_rdn": text(new_rdn), "new_superior": new_superior.map(text) })
        }
        _ => serde_json::Value::Null,
    }
}
