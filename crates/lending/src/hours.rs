//! A part of the day, in the PC's own time zone.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Time, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A part of the day, such as 22:00-06:30. Its end doesn't belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from: Time,
    to: Time,
}

/// A text that is no part of the day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a part of the day such as 22:00-06:30")]
pub struct NoHours {
    text: String,
}

impl Hours {
    /// Whether it is that part of the day at a moment, in milliseconds since the Unix epoch; `None` where the moment
    /// is none that a calendar knows.
    pub fn contains(&self, wall_ms: u64, zone: &TimeZone) -> Option<bool> {
        let at = Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?;
        let time = zone.to_datetime(at).time();
        let (after, before) = (time >= self.from, time < self.to);
        Some(if self.from < self.to {
            after && before
        } else {
            after || before
        })
    }
}

impl FromStr for Hours {
    type Err = NoHours;
    fn from_str(text: &str) -> Result<Self, NoHours> {
        let malformed = || NoHours {
            text: text.chars().take(40).collect(),
        };
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let is_two =
                |digits: &str| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
            if !is_two(hour) || !is_two(minute) {
                return None;
            }
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let (from, to) = text.split_once('-').ok_or_else(malformed)?;
        let from = time(from).ok_or_else(malformed)?;
        let to = time(to).ok_or_else(malformed)?;
        if from == to {
            return Err(malformed());
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from.hour(),
            from.minute(),
            to.hour(),
            to.minute()
        )
    }
}

impl TryFrom<String> for Hours {
    type Error = NoHours;
    fn try_from(text: String) -> Result<Self, NoHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment in UTC, in milliseconds since the Unix epoch.
    fn at(text: &str) -> u64 {
        let at: Timestamp = format!("{text}Z").parse().unwrap();
        at.as_millisecond().try_into().unwrap()
    }

    #[test]
    fn a_part_of_the_day_may_go_over_midnight() {
        let night: Hours = "22:00-06:30".parse().unwrap();
        let day: Hours = "09:00-17:00".parse().unwrap();
        let is = |hours: &Hours, time: &str| {
            let at = at(&format!("2026-11-27T{time}"));
            hours.contains(at, &TimeZone::UTC).unwrap()
        };
        for (time, in_night, in_day) in [
            ("21:59:59", false, false),
            ("22:00:00", true, false),
            ("00:00:00", true, false),
            ("06:29:59", true, false),
            ("06:30:00", false, false),
            ("12:00:00", false, true),
            ("17:00:00", false, false),
        ] {
            assert_eq!(is(&night, time), in_night, "{time}");
            assert_eq!(is(&day, time), in_day, "{time}");
        }
    }

    #[test]
    fn the_clock_on_the_wall_is_that_of_the_zone_in_summer_and_in_winter() {
        // Central Europe, as POSIX writes it: the tests need no database of zones.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let night: Hours = "22:00-06:00".parse().unwrap();
        let is = |time: &str| night.contains(at(time), &zone).unwrap();
        assert!(!is("2026-01-10T20:59:00") && is("2026-01-10T21:00:00"));
        assert!(!is("2026-07-10T19:59:00") && is("2026-07-10T20:00:00"));
        // The night in which the clocks go back has an hour twice, and both are in it.
        assert!(is("2026-10-25T00:30:00") && is("2026-10-25T01:30:00"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "22-06",
            "24:00-06:00",
            "22:00-22:00",
            "2:00-06:00",
            "22:0é-06:00",
            "+1:00-06:00",
        ] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
        let text = "22:00-06:30";
        assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
    }
}
