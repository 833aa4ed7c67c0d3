//! The date as HTTP writes it.

use std::fmt::Write as _;

/// Writes a time, in seconds since 1970-01-01 UTC, as an IMF-fixdate (RFC 9110, section 5.6.7).
pub fn imf_fixdate(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let pick = |names: &[&'static str], i: u64| {
        usize::try_from(i)
            .ok()
            .and_then(|i| names.get(i).copied())
            .unwrap_or_default()
    };
    let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    // Years are counted from March, so that the leap day is a year's last. 719,468 days lie
    // between 0000-03-01 and 1970-01-01; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let mut text = String::with_capacity(29);
    let _ = write!(
        text,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        pick(&DAYS, days % 7),
        pick(&MONTHS, month),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_the_leap_days() {
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(imf_fixdate(unix_s), text);
        }
    }

    /// Every day of 431 years, one after the other (the calendar repeats after 400), and seconds over one.
    #[test]
    fn days_follow_each_other_as_in_the_calendar() {
        let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        let names = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let mut weekdays = weekdays.iter().cycle();
        let mut unix_s = 0;
        for year in 1970..2401 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if leap { 29 } else { 28 };
            let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (name, length) in names.iter().zip(months) {
                for day in 1..=length {
                    let weekday = weekdays.next().unwrap();
                    let want = format!("{weekday}, {day:02} {name} {year} 00:00:00 GMT");
                    assert_eq!(imf_fixdate(unix_s), want);
                    unix_s += 86_400;
                }
            }
        }
        for second in (0..86_400).step_by(59) {
            let (hour, minute, second_of) = (second / 3600, second % 3600 / 60, second % 60);
            let want = format!("Thu, 01 Jan 1970 {hour:02}:{minute:02}:{second_of:02} GMT");
            assert_eq!(imf_fixdate(second), want);
        }
    }
}
