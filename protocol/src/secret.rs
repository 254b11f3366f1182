//! A string that must not be seen.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A password, key or token: no `Debug`, no `Display`, no `Serialize`, overwritten when dropped.
///
/// Reading it takes a call of [`Secret::expose`], so every use can be found by its name.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Never pass the result to anything that stores or prints.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
