//! Entrust by two ways: CA Gateway, a REST service behind client certificates, and an adapter of our own in place of the
//! older administration services, whose interface is not public.

mod digital_id;
mod gateway;

use serde::{Deserialize, Serialize};

pub(crate) use digital_id::router as digital_id_router;
pub(crate) use gateway::router as gateway_router;

/// Settings of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntrustConfig {
    /// Id of the authority at the gateway. Default `acme-issuing`.
    pub authority_id: String,
    /// Default: three on the templates `MobileDevice`, `User` and `ApprovedDevice`.
    pub profiles: Vec<GatewayProfile>,
    /// Which ways of revoking the gateway has. Default: both.
    pub revoke_by: Vec<RevokeBy>,
    /// What the adapter issues. Default: two on the templates `MobileDevice` and `ApprovedDevice`.
    pub digital_ids: Vec<DigitalIdConfig>,
}

/// A profile of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayProfile {
    pub id: String,
    pub template: String,
    /// Parts of the subject an enrolment must bring; with none, the subject comes whole.
    #[serde(default)]
    pub subject_variables: Vec<String>,
}

/// A way of revoking: public sources disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeBy {
    /// `POST .../certificates/{serial}/actions`.
    Actions,
    /// `PUT .../certificates/{serial}/revoke`.
    Put,
}

/// A Digital ID that can be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigitalIdConfig {
    pub name: String,
    pub template: String,
    /// Parts of the subject, the first one names the user; `%REPLACE%` for what the caller fills in.
    pub subject: Vec<(String, String)>,
    /// Groups that see it. Empty: every one.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Default for EntrustConfig {
    fn default() -> Self {
        let profile = |id: &str, template: &str, variables: &[&str]| GatewayProfile {
            id: id.to_owned(),
            template: template.to_owned(),
            subject_variables: variables.iter().map(|name| (*name).to_owned()).collect(),
        };
        let digital_id = |name: &str, template: &str| DigitalIdConfig {
            name: name.to_owned(),
            template: template.to_owned(),
            subject: [("CN", "%REPLACE%"), ("OU", "Mobile"), ("O", "Acme")]
                .map(|(field, value)| (field.to_owned(), value.to_owned()))
                .to_vec(),
            groups: Vec::new(),
        };
        Self {
            authority_id: "acme-issuing".to_owned(),
            profiles: vec![
                profile("mdmws-digital-signature-key-encipherment-clientauth", "MobileDevice", &[]),
                profile("mobile-user", "User", &["CN"]),
                profile("approved-device", "ApprovedDevice", &[]),
            ],
            revoke_by: vec![RevokeBy::Actions, RevokeBy::Put],
            digital_ids: vec![
                digital_id("Mobile user", "MobileDevice"),
                digital_id("Approved user", "ApprovedDevice"),
            ],
        }
    }
}
