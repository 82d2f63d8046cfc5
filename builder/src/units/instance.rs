//! Distinguishes a fleet's guests from those of any other fleet.

use serde::{Deserialize, Serialize};

/// Tells a fleet's guests from those of any other: the first 12 bytes of their
/// UUIDs, of which a guest's number is the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance(pub [u8; 12]);

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        hex::encode(instance.0)
    }
}

impl TryFrom<String> for Instance {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 12];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Instance {
    /// The UUID of a guest, as QEMU's `-uuid` takes it.
    pub fn uuid(self, guest: u32) -> String {
        let mut digits = hex::encode(self.0);
        digits.push_str(&hex::encode(guest.to_be_bytes()));
        for at in [20, 16, 12, 8] {
            digits.insert(at, '-');
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_ends_in_the_guest() {
        let instance = Instance([0xab; 12]);
        assert_eq!(
            instance.uuid(0x1234),
            "abababab-abab-abab-abab-abab00001234"
        );
        let text = String::from(instance);
        assert_eq!(Instance::try_from(text).unwrap(), instance);
        assert!(Instance::try_from("ab".to_owned()).is_err());
    }
}
