//! The date as HTTP writes it.

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

/// Writes a time, in seconds since 1970-01-01 UTC, as an IMF-fixdate (RFC 9110, section 5.6.7). Its years have four
/// digits: what comes after them is their last day.
pub fn imf_fixdate(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).map(Timestamp::from_second);
    let time = time.ok().and_then(Result::ok).unwrap_or(Timestamp::MAX);
    // Only a year before 0 can't be written.
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_the_leap_days_and_at_the_ends() {
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (86_399, "Thu, 01 Jan 1970 23:59:59 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_207_200, "Thu, 30 Dec 9999 22:00:00 GMT"),
            (253_402_300_800, "Thu, 30 Dec 9999 22:00:00 GMT"),
            (u64::MAX, "Thu, 30 Dec 9999 22:00:00 GMT"),
        ] {
            assert_eq!(imf_fixdate(unix_s), text);
        }
    }
}
