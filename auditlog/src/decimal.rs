//! Decimal numbers, as the text formats of logs write them.

use core::str::FromStr;

/// An unsigned decimal without sign or leading zeros; `None` for anything else and for what `T` cannot hold.
pub(crate) fn parse_decimal<T: FromStr>(text: &str) -> Option<T> {
    let canonical = text == "0" || !text.starts_with('0');
    if canonical && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_number() {
        for (text, number) in [("0", 0), ("7", 7), ("255", 255)] {
            assert_eq!(parse_decimal::<u8>(text), Some(number));
        }
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "\u{661}", "256"] {
            assert_eq!(parse_decimal::<u8>(text), None, "{text}");
        }
    }
}
