//! Moments as SOPS writes them: RFC 3339, by Go's `time`.

use jiff::{
    Timestamp,
    civil::{Date, Time},
};

/// A moment in UTC, by the seconds since 1970; `None` after 9999, which has no form in RFC 3339.
pub(crate) fn rfc3339(since_1970_s: u64) -> Option<String> {
    let moment = Timestamp::from_second(i64::try_from(since_1970_s).ok()?).ok()?;
    Some(moment.to_string())
}

/// A date, or a moment of RFC 3339, in the form that SOPS counts into the MAC: a date begins at midnight in UTC,
/// fractions end without zeros, and the zone stays.
///
/// jiff knows the calendar; that a text is written as Go's `time.Parse` asks is seen by its being the same when it
/// is written anew.
pub(crate) fn normal(text: &str) -> Option<String> {
    let (date, rest) = match text.split_once(['T', 't']) {
        Some((date, rest)) => (date, Some(rest)),
        None => (text, None),
    };
    if !is_date(date) {
        return None;
    }
    let Some(rest) = rest else {
        return Some(format!("{date}T00:00:00Z"));
    };
    let (time, fraction, zone) = parts(rest)?;
    let fraction = match fraction {
        None => String::new(),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 9 => {
            match digits.trim_end_matches('0') {
                "" => String::new(),
                digits => format!(".{digits}"),
            }
        }
        Some(_) => return None,
    };
    Some(format!("{date}T{time}{fraction}{zone}"))
}

/// A moment in whole seconds, as SOPS binds a file's MAC to it (`LastModified.Format(time.RFC3339)`).
pub(crate) fn whole_seconds(text: &str) -> Option<String> {
    let (date, rest) = text.split_once('T').filter(|(date, _)| is_date(date))?;
    normal(text)?;
    let (time, _, zone) = parts(rest)?;
    Some(format!("{date}T{time}{zone}"))
}

/// Time of day, fraction of a second and zone.
fn parts(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (time, zone) = text.split_at_checked(text.find(['Z', 'z', '+', '-'])?)?;
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) => (time, Some(fraction)),
        None => (time, None),
    };
    let zone = match zone {
        "Z" | "z" | "+00:00" | "-00:00" => "Z",
        other if is_time(&format!("{}:00", other.get(1..)?)) => other,
        _ => return None,
    };
    is_time(time).then_some((time, fraction, zone))
}

/// Whether a text is a date of the years 0 to 9999, as 2026-01-31.
fn is_date(text: &str) -> bool {
    let read = text.parse::<Date>();
    read.is_ok_and(|date| date.year() >= 0 && date.to_string() == text)
}

/// Whether a text is a time of day, as 23:59:59. Leap seconds, which jiff reads as the second before, are none.
fn is_time(text: &str) -> bool {
    let read = text.parse::<Time>();
    read.is_ok_and(|time| time.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_calendar() {
        for (second, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_795_397_506, "2026-11-23T01:31:46Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_207_200, "9999-12-30T22:00:00Z"),
        ] {
            assert_eq!(rfc3339(second).as_deref(), Some(want));
            assert_eq!(normal(want).as_deref(), Some(want));
        }
        for second in [253_402_300_800, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
            assert_eq!(rfc3339(second), None, "{second}");
        }
    }

    #[test]
    fn whole_seconds_are_what_go_would_write() {
        for (text, want) in [
            ("2026-01-02T03:04:05Z", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T03:04:05.25Z", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T03:04:05+00:00", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T03:04:05-00:00", Some("2026-01-02T03:04:05Z")),
            (
                "2026-01-02T03:04:05.999+05:30",
                Some("2026-01-02T03:04:05+05:30"),
            ),
            ("0000-02-29T00:00:00Z", Some("0000-02-29T00:00:00Z")),
            ("1969-12-31T23:59:59Z", Some("1969-12-31T23:59:59Z")),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z")),
            ("10000-01-01T00:00:00Z", None),
            ("+002026-01-02T03:04:05Z", None),
            ("-002026-01-02T03:04:05Z", None),
            ("2100-02-29T00:00:00Z", None),
            ("2026-01-02", None),
            ("2026-01-02t03:04:05Z", None),
            ("2026-01-02 03:04:05Z", None),
            ("2026-01-02T03:04:60Z", None),
            ("2026-01-02T03:04:05", None),
            ("2026-01-02T03:04Z", None),
            ("2026-01-02T030405Z", None),
            ("20260102T03:04:05Z", None),
            ("2026-01-02T03:04:05Z[UTC]", None),
            ("2026-01-02T03:04:05+0530", None),
            ("2026-01-02T03:04:05ü", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(whole_seconds(text).as_deref(), want, "{text}");
        }
    }
}
