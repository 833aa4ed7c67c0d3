//! What a scalar in plain style means, as the YAML library of SOPS takes it.
//!
//! That is the core schema of YAML 1.2 with a few notations of 1.1: octal numbers with a leading
//! zero, underscores in numbers, and moments (go.yaml.in/yaml/v3, resolve.go).

use zeroize::Zeroizing;

use crate::{moment, value::Value};

/// The value of a scalar without quotes, or why it can't be kept.
pub(super) fn resolve(text: &str) -> Result<Value, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF"
        | ".nan" | ".NaN" | ".NAN" => {
            return Err("a number must be finite; write a text in quotes");
        }
        _ => {}
    }
    let first = text.bytes().next().unwrap_or(b'x');
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Ok(Value::text(text));
    }
    if looks_like_moment(text) {
        return moment::normal(text)
            .map(|text| Value::Time(Zeroizing::new(text)))
            .ok_or(
                "a moment is written as 2026-01-31 or 2026-01-31T10:00:00Z; write a text in quotes",
            );
    }
    let bare = text.replace('_', "");
    match whole(&bare) {
        Some(Some(number)) => return Ok(Value::Int(number)),
        Some(None) => return Err("the number is too large; write a text in quotes"),
        None => {}
    }
    if is_float(&bare) {
        return match bare.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err("the number is too large; write a text in quotes"),
        };
    }
    Ok(Value::text(text))
}

/// A whole number in decimal, or with a prefix; `Some(None)` is one that is too large.
fn whole(text: &str) -> Option<Option<i64>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.strip_prefix('0').unwrap_or(&lower))
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let signed = if negative {
        format!("-{digits}")
    } else {
        digits.to_owned()
    };
    Some(i64::from_str_radix(&signed, radix).ok())
}

fn is_float(text: &str) -> bool {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some((before, after)) => {
            digits(before) && digits(after) && !(before.is_empty() && after.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    whole
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent)
        })
}

/// Whether a text begins as a date does: `2026-1-`.
fn looks_like_moment(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    year.len() == 4
        && number(year)
        && month.len() <= 2
        && number(month)
        && rest.bytes().next().is_some_and(|b| b.is_ascii_digit())
}

/// Whether a text can stand without quotes and is read as a text again, by readers of YAML 1.1
/// too.
pub(super) fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    if !(first.is_ascii_alphanumeric() || matches!(first, '_' | '/' | '(' | '+' | '$')) {
        return false;
    }
    if !text.chars().all(|c| (' '..='~').contains(&c))
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with([' ', ':'])
    {
        return false;
    }
    let other_in_1_1 = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off"
    );
    // Numbers with colons are sexagesimal in YAML 1.1.
    let sexagesimal = text.contains(':')
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'_' | b'+'));
    !other_in_1_1 && !sexagesimal && matches!(resolve(text), Ok(Value::Text(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_sops_takes_them_for() {
        for (text, want) in [
            ("12", Value::Int(12)),
            ("-0", Value::Int(0)),
            ("0x1F", Value::Int(31)),
            ("0777", Value::Int(511)),
            ("1_000", Value::Int(1000)),
            ("1.50", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Float(1000.0)),
            ("08", Value::Float(8.0)),
            ("yes", Value::text("yes")),
            ("12ab", Value::text("12ab")),
            ("1.2.3", Value::text("1.2.3")),
            ("-", Value::text("-")),
            ("10.0.0.1", Value::text("10.0.0.1")),
            (
                "2020-01-02",
                Value::Time(Zeroizing::new("2020-01-02T00:00:00Z".into())),
            ),
            (
                "2020-01-02T03:04:05.600+01:00",
                Value::Time(Zeroizing::new("2020-01-02T03:04:05.6+01:00".into())),
            ),
            ("~", Value::Null),
        ] {
            assert!(resolve(text) == Ok(want), "{text}");
        }
        for text in [".inf", "2020-1-2 3:4", "99999999999999999999"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_otherwise_gets_quotes() {
        for text in [
            "",
            "12",
            "yes",
            "On",
            "null",
            "a: b",
            "a #b",
            "x ",
            "x:",
            "-x",
            "*x",
            "ä",
            "12:30",
            "2020-01-02",
            "a\nb",
        ] {
            assert!(!is_plain(text), "{text:?}");
        }
        for text in [
            "secret",
            "K10ab::server:cd",
            "ENC[AES256_GCM,data:x,type:str]",
            "a b",
        ] {
            assert!(is_plain(text), "{text:?}");
        }
    }
}
