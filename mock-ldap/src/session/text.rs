//! Diagnostic texts of the wire side, by vendor. AD texts are from documentation and captures of Samba, not from a
//! live domain controller; clients must not match on more than the result code and `data <hex>`.

use crate::personality::{Personality, Vendor};

pub(super) fn unknown_control(personality: &Personality, oid: &str) -> String {
    match personality.vendor {
        Vendor::ActiveDirectory => {
            "00000057: LdapErr: DSID-0C0907BF, comment: Error processing control, data 0, v4563".to_owned()
        }
        Vendor::OpenLdap => "critical control unavailable in context".to_owned(),
        _ => format!("critical extension {oid} is not recognized"),
    }
}

pub(super) fn cookie_refused(personality: &Personality) -> &'static str {
    match personality.vendor {
        Vendor::ActiveDirectory => {
            "00000057: LdapErr: DSID-0C090B73, comment: Error processing control, data 0, v4563"
        }
        Vendor::OpenLdap => "paged results cookie is invalid or old",
        _ => "the paged results cookie is invalid",
    }
}

pub(super) fn signing_required(personality: &Personality) -> &'static str {
    match personality.vendor {
        Vendor::ActiveDirectory => {
            "00002028: LdapErr: DSID-0C090202, comment: The server requires binds to turn on integrity checking if \
             SSL\\TLS are not already active on the connection, data 0, v4563"
        }
        _ => "confidentiality required",
    }
}

pub(super) fn channel_binding_failed() -> &'static str {
    "80090346: LdapErr: DSID-0C0906B0, comment: AcceptSecurityContext error, data 80090346, v4563"
}

pub(super) fn empty_password(personality: &Personality) -> &'static str {
    match personality.vendor {
        Vendor::ActiveDirectory => {
            "80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 52e, v4563"
        }
        Vendor::OpenLdap => "unauthenticated bind (DN with no password) disallowed",
        _ => "Unauthenticated binds are not allowed",
    }
}

pub(super) fn notification_filter() -> &'static str {
    "000020DD: SvcErr: DSID-03140567, problem 5003 (WILL_NOT_PERFORM), data 0"
}

pub(super) fn unsupported_mechanism(personality: &Personality) -> &'static str {
    match personality.vendor {
        Vendor::ActiveDirectory => {
            "00002027: LdapErr: DSID-0C090602, comment: Invalid Authentication method, data 0, v4563"
        }
        Vendor::OpenLdap => "SASL(-4): no mechanism available: ",
        _ => "authentication method is not supported",
    }
}
