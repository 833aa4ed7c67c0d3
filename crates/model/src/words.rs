//! How figures and lists are written in sentences, the same wherever one is said.

/// A length of time: `0.4 s`, `12.3 s`, `2 min 05 s`, `3 h 04 min`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..10_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number of bytes in binary units, three digits or so.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if tenths < 1000 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

/// A count with its noun: `1 machine`, `2 machines`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// A list for a sentence: `a`, `a and b`, `a, b and c`; past eight it says how many more.
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown: Vec<&str> = items.iter().map(AsRef::as_ref).take(SHOWN_MAX).collect();
    let more = items.len().saturating_sub(SHOWN_MAX);
    match (shown.as_slice(), more) {
        ([], _) => String::new(),
        (all, more) if more > 0 => format!("{} and {more} more", all.join(", ")),
        ([one], _) => (*one).to_owned(),
        ([head @ .., last], _) => format!("{} and {last}", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let times = [
            0, 49, 950, 9_999, 10_000, 59_999, 60_000, 125_000, 3_600_000, 11_040_000,
        ];
        assert_eq!(
            times.map(duration).join(" | "),
            "0.0 s | 0.0 s | 0.9 s | 9.9 s | 10 s | 59 s | 1 min 00 s | 2 min 05 s | 1 h 00 min | 3 h 04 min"
        );
        let sizes = [
            0,
            1023,
            1024,
            1536,
            102_400,
            1_048_576,
            101_711_872,
            u64::MAX,
        ];
        assert_eq!(
            sizes.map(bytes).join(" | "),
            "0 B | 1023 B | 1.0 KiB | 1.5 KiB | 100 KiB | 1.0 MiB | 97.0 MiB | 15.9 EiB"
        );
    }

    #[test]
    fn a_list_is_a_phrase() {
        assert_eq!(list::<&str>(&[]), "");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        let many: Vec<String> = (1..=10).map(|n| n.to_string()).collect();
        assert_eq!(list(&many), "1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
    }
}
