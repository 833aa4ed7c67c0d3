//! Moments as RFC 3339 writes them.

/// Days from the first of March of the year 0 to the first day of 1970.
const DAYS_TO_1970: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;
const DAY_S: u64 = 86_400;

/// A moment in UTC, by the seconds since 1970.
///
/// Years are counted from March, so that the leap day is the last of one (Howard Hinnant,
/// "chrono-compatible low-level date algorithms").
pub(crate) fn rfc3339(since_1970_s: u64) -> String {
    let (days, second) = (since_1970_s / DAY_S + DAYS_TO_1970, since_1970_s % DAY_S);
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        era * 400 + year + next,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
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
        ] {
            assert_eq!(rfc3339(second), want);
        }
    }

    /// Every day of 431 years, one after the other (the calendar repeats after 400), and seconds over one.
    #[test]
    fn days_follow_each_other_as_in_the_calendar() {
        let mut days = 0;
        for year in 1970..2401_u64 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if leap { 29 } else { 28 };
            let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(months) {
                for day in 1..=length {
                    let want = format!("{year:04}-{month:02}-{day:02}T");
                    let (second, time) = if day % 2 == 0 {
                        (0, "00:00:00Z")
                    } else {
                        (DAY_S - 1, "23:59:59Z")
                    };
                    let shown = rfc3339(days * DAY_S + second);
                    assert_eq!(shown, format!("{want}{time}"), "day {days}");
                    days += 1;
                }
            }
        }
        for second in (0..DAY_S).step_by(59) {
            let (hour, minute) = (second / 3600, second % 3600 / 60);
            let want = format!("1970-01-01T{hour:02}:{minute:02}:{:02}Z", second % 60);
            assert_eq!(rfc3339(second), want);
        }
    }
}
