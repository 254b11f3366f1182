//! Phones and tablets of the generated company.

use serde::Serialize;

use super::random::mix_two;

/// A phone or tablet. What identifies it is derived from its key, not stored.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Position in the company's devices.
    pub index: u32,
    /// Index of the person it belongs to.
    pub owner: u32,
    /// What it is.
    pub model: &'static DeviceModel,
    key: u64,
}

/// Operating system of a device.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// iPhone.
    Ios,
    /// iPad.
    IpadOs,
    /// Android phone or tablet.
    Android,
    /// Windows.
    Windows,
    /// BlackBerry OS up to 7.
    BlackBerry,
}

/// A kind of device, in the words Exchange shows.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct DeviceModel {
    /// Operating system.
    pub platform: Platform,
    /// Marketing name.
    pub name: &'static str,
    /// Model identifier, such as `iPhone15,2`.
    pub identifier: &'static str,
    /// Operating system and version.
    pub os: &'static str,
    /// ActiveSync user agent (MS-ASHTTP 2.2.1.1.2.6).
    pub user_agent: &'static str,
    /// ActiveSync device type.
    pub eas_type: &'static str,
}

pub(super) static MODELS: [DeviceModel; 8] = [
    DeviceModel {
        platform: Platform::Ios,
        name: "iPhone 15",
        identifier: "iPhone15,4",
        os: "iOS 18.6",
        user_agent: "Apple-iPhone15C4/2206.79",
        eas_type: "iPhone",
    },
    DeviceModel {
        platform: Platform::Ios,
        name: "iPhone 14 Pro",
        identifier: "iPhone15,2",
        os: "iOS 17.7",
        user_agent: "Apple-iPhone15C2/2108.90",
        eas_type: "iPhone",
    },
    DeviceModel {
        platform: Platform::Ios,
        name: "iPhone SE",
        identifier: "iPhone14,6",
        os: "iOS 16.7",
        user_agent: "Apple-iPhone14C6/2007.5",
        eas_type: "iPhone",
    },
    DeviceModel {
        platform: Platform::IpadOs,
        name: "iPad Air",
        identifier: "iPad13,16",
        os: "iPadOS 18.6",
        user_agent: "Apple-iPad13C16/2206.79",
        eas_type: "iPad",
    },
    DeviceModel {
        platform: Platform::Android,
        name: "Galaxy S24",
        identifier: "SM-S921B",
        os: "Android 15",
        user_agent: "Android-Mail/2025.06.08",
        eas_type: "Android",
    },
    DeviceModel {
        platform: Platform::Android,
        name: "Pixel 8",
        identifier: "Pixel 8",
        os: "Android 16",
        user_agent: "Android-Mail/2025.10.26",
        eas_type: "Android",
    },
    DeviceModel {
        platform: Platform::Windows,
        name: "Surface Go 3",
        identifier: "Surface Go 3",
        os: "Windows 11 24H2",
        user_agent: "MSFT-WIN-4/10.0.26100",
        eas_type: "UniversalOutlook",
    },
    DeviceModel {
        platform: Platform::BlackBerry,
        name: "BlackBerry Bold 9900",
        identifier: "9900",
        os: "BlackBerry OS 7.1",
        user_agent: "",
        eas_type: "BlackBerry",
    },
];

impl Device {
    pub(super) fn new(index: u32, owner: u32, model: &'static DeviceModel, key: u64) -> Self {
        Self { index, owner, model, key }
    }

    /// Serial number, 12 characters.
    pub fn serial(&self) -> String {
        format!("{:012X}", mix_two(self.key, 1) & 0xffff_ffff_ffff)
    }

    /// ActiveSync device id, 32 characters (the protocol's limit).
    pub fn eas_id(&self) -> String {
        format!("{:016X}{:016X}", mix_two(self.key, 2), mix_two(self.key, 3))
    }

    /// Unique device identifier, 40 lower-case hexadecimal digits.
    pub fn udid(&self) -> String {
        format!(
            "{:016x}{:016x}{:08x}",
            mix_two(self.key, 4),
            mix_two(self.key, 5),
            mix_two(self.key, 6) >> 32
        )
    }

    /// IMEI, 15 digits, the last being the Luhn check digit; `None` for devices without a modem.
    pub fn imei(&self) -> Option<String> {
        if matches!(self.model.platform, Platform::IpadOs | Platform::Windows) {
            return None;
        }
        let body = format!("35{:012}", mix_two(self.key, 7) % 1_000_000_000_000);
        Some(format!("{body}{}", luhn(&body)))
    }
}

/// Check digit over decimal digits (ISO/IEC 7812-1 annex B).
fn luhn(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte - b'0') * if at % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_digit_of_a_published_imei() {
        // 490154203237518 is the example in 3GPP-related literature; its last digit checks the first 14.
        assert_eq!(luhn("49015420323751"), 8);
    }
}
