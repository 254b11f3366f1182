//! The REST twin of [`super::mpki`]: same profiles, seats and certificates, JSON and a key in `X-API-KEY`.

use serde::{Deserialize, Serialize};

use super::{ShapeError, json};

/// Header field with the key.
pub const API_KEY: &str = "x-api-key";
/// Path of the service.
pub const PATH: &str = "/mpki/api/v1";

/// Body of `POST /certificate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// Which profile.
    pub profile: ProfileId,
    /// Whose it is.
    pub seat: Seat,
    /// PKCS#10, PEM or base64 of DER.
    pub csr: String,
    /// Names of the certificate.
    #[serde(default)]
    pub attributes: Attributes,
}

/// A profile by its object identifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProfileId {
    /// In dots.
    pub id: String,
}

/// A licence unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seat {
    /// Mail address or device id.
    pub seat_id: String,
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat_name: Option<String>,
}

/// Names of a certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// Common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Alternative names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub san: Option<San>,
}

/// Alternative names by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct San {
    /// Mail addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rfc822_name: Vec<String>,
    /// Host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_name: Vec<String>,
    /// User principal names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_principal_name: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Hexadecimal.
    pub serial_number: String,
    /// `x509`.
    pub delivery_format: String,
    /// PEM.
    pub certificate: String,
    /// `VALID`, `REVOKED`, `SUSPENDED`, `EXPIRED`.
    pub status: String,
}

impl Certificate {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`ShapeError::Json`]
    pub fn read(bytes: &[u8]) -> Result<Self, ShapeError> {
        json(bytes)
    }
}

/// Body of `PUT /certificate/{serial}/revoke`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoke {
    /// `key_compromise`, for example.
    pub revocation_reason: String,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problems {
    /// At least one.
    pub errors: Vec<Problem>,
}

/// One thing that went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Stable.
    pub code: String,
    /// For people.
    pub message: String,
    /// The member of the body it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}
