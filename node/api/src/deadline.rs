//! The time that a caller of a gRPC call has, as its header says it.

/// Name of the header and of the gRPC metadata key.
pub const TIMEOUT: &str = "grpc-timeout";

/// The value of the header in milliseconds; nothing for what is no such value.
pub fn timeout_ms(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3_600_000),
        "M" => number.checked_mul(60_000),
        "S" => number.checked_mul(1_000),
        "m" => Some(number),
        "u" => Some(number / 1_000),
        "n" => Some(number / 1_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::timeout_ms;

    #[test]
    fn timeouts_are_read_in_every_unit_and_rubbish_is_none() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("4m", Some(4)),
            ("5000u", Some(5)),
            ("6000000n", Some(6)),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("999999999S", None),
            ("1é", None),
            ("1X", None),
        ] {
            assert_eq!(timeout_ms(text), expected, "{text}");
        }
    }
}
