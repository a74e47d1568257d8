//! A Kubernetes quantity (`500m`, `2`, `10Gi`) as users write it: text or a plain number.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// What the API server accepts: digits, an optional fraction, an optional decimal or binary suffix.
pub const PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$";

/// An amount of a resource; [`Quantity::milli`] makes two of them comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

/// Text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a quantity such as 500m, 2 or 10Gi")]
pub struct InvalidQuantity {
    text: String,
}

impl Quantity {
    /// Takes text such as `500m`, `2`, `1.5Gi`.
    ///
    /// # Errors
    /// When the text is not digits with an optional fraction and one of the suffixes m, k, M, G, T, P, Ki, Mi, Gi, Ti, Pi.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        match milli(text) {
            Some(_) => Ok(Self(text.to_string())),
            None => Err(InvalidQuantity { text: text.to_string() }),
        }
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The amount in thousandths of the unit, rounded down; saturates far above any real size.
    #[must_use]
    pub fn milli(&self) -> u128 {
        milli(&self.0).unwrap_or(u128::MAX)
    }
}

fn milli(text: &str) -> Option<u128> {
    let digits_end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits_end)?;
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let whole_value = bounded(whole, 15)?;
    let fraction_value = match fraction {
        None => 0,
        Some(digits) => bounded(digits, 9)? * scale / 10_u128.pow(u32::try_from(digits.len()).ok()?),
    };
    Some(whole_value * scale + fraction_value)
}

fn bounded(digits: &str, length_max: usize) -> Option<u128> {
    if digits.is_empty() || digits.len() > length_max { None } else { digits.parse().ok() }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(from)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 32, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_suffixes() {
        let milli = |text: &str| Quantity::parse(text).expect("valid").milli();
        assert_eq!(milli("500m"), 500);
        assert_eq!(milli("2"), 2_000);
        assert_eq!(milli("1.5"), 1_500);
        assert_eq!(milli("1Ki"), 1_024_000);
        assert!(milli("1Gi") > milli("1G"));
        assert!(milli("10Gi") < milli("0.5Ti"));
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in ["", "m", "-1", "1gb", "1.", ".5", "1 Gi", "9999999999999999"] {
            assert!(Quantity::parse(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_plain_number_is_a_quantity() {
        let parsed: Quantity = serde_json::from_str("2").expect("parses");
        assert_eq!(parsed, Quantity::parse("2").expect("valid"));
    }
}
