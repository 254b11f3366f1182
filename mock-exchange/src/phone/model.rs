//! What a phone is and how it behaves.

use causeway_mock_kit::world::DeviceModel;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A kind of phone: what it says of itself, what it speaks, and how well it behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PhoneModel {
    /// Model as the phone says it. Default an iPhone.
    pub model: String,
    /// ActiveSync device type.
    pub device_type: String,
    /// Operating system and version.
    pub os: String,
    /// ActiveSync user agent.
    pub user_agent: String,
    pub imei: Option<String>,
    pub friendly_name: Option<String>,
    pub os_language: Option<String>,
    pub phone_number: Option<String>,
    pub operator: Option<String>,
    /// Highest protocol version it speaks. Default `16.1`.
    pub protocol: String,
    /// Writes its queries in base64, as most phones do. Default true.
    pub base64_query: bool,
    /// Does policies at all. Default true.
    pub provisionable: bool,
    /// Settings of a policy it cannot do, by the names of the policy document (`RequireDeviceEncryption`). It then says
    /// that it did a part of the policy.
    pub cannot: Vec<String>,
    /// Confirms a wipe before it wipes itself. Default true; without it the wipe happens and nobody hears of it.
    pub confirms_wipe: bool,
}

impl Default for PhoneModel {
    fn default() -> Self {
        Self {
            model: "iPhone15,4".to_owned(),
            device_type: "iPhone".to_owned(),
            os: "iOS 18.6".to_owned(),
            user_agent: "Apple-iPhone15C4/2206.79".to_owned(),
            imei: None,
            friendly_name: None,
            os_language: Some("en".to_owned()),
            phone_number: None,
            operator: None,
            protocol: "16.1".to_owned(),
            base64_query: true,
            provisionable: true,
            cannot: Vec::new(),
            confirms_wipe: true,
        }
    }
}

impl PhoneModel {
    /// A phone of one of the company's kinds.
    pub fn of(kind: &DeviceModel) -> Self {
        Self {
            model: kind.identifier.to_owned(),
            device_type: kind.eas_type.to_owned(),
            os: kind.os.to_owned(),
            user_agent: kind.user_agent.to_owned(),
            friendly_name: Some(kind.name.to_owned()),
            ..Self::default()
        }
    }

    /// Settings of a policy that ask for something this phone cannot do.
    pub(super) fn failing<'a>(&self, policy: &'a [(String, String)]) -> Vec<&'a str> {
        let asks = |(name, value): &&(String, String)| {
            // `Allow...` asks for something when it is off, everything else when it is on or a number.
            let asked =
                if name.starts_with("Allow") { value == "0" } else { !value.is_empty() && value != "0" };
            asked && self.cannot.iter().any(|cannot| cannot.eq_ignore_ascii_case(name))
        };
        policy.iter().filter(asks).map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_policy_asks_for_can_be_impossible() {
        let model = PhoneModel {
            cannot: vec!["RequireDeviceEncryption".into(), "AllowCamera".into()],
            ..PhoneModel::default()
        };
        let policy = |encryption: &str, camera: &str| {
            vec![
                ("RequireDeviceEncryption".to_owned(), encryption.to_owned()),
                ("AllowCamera".to_owned(), camera.to_owned()),
            ]
        };
        assert!(model.failing(&policy("0", "1")).is_empty());
        assert_eq!(model.failing(&policy("1", "1")), ["RequireDeviceEncryption"]);
        assert_eq!(model.failing(&policy("1", "0")), ["RequireDeviceEncryption", "AllowCamera"]);
    }
}
