//! Minor versions of Kubernetes, and ranges of them as Helm writes them.

/// A minor version of Kubernetes: 1.34 is `Minor(1, 34)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32, pub u32);

impl Minor {
    /// Reads "1.34", "v1.34.2", "1.34.2+k3s1".
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().trim_start_matches('v').split(['.', '-', '+']);
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

impl std::fmt::Display for Minor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Whether a range of versions as Helm writes it allows any patch of a minor version; `None`
/// where the range is of a form that this doesn't know.
///
/// Known are `>=`, `>`, `<=`, `<`, `=`, `^`, `~` with one to three numbers, joined by commas or
/// blanks, alternatives by `||`, and hyphen ranges (`1.25 - 1.34`).
pub fn allows(range: &str, minor: Minor) -> Option<bool> {
    let mut any = false;
    for alternative in range.split("||") {
        any |= alternative_allows(alternative, minor)?;
    }
    Some(any)
}

fn alternative_allows(range: &str, minor: Minor) -> Option<bool> {
    if let Some((low, high)) = range.split_once(" - ") {
        return Some(Minor::parse(low)? <= minor && minor <= Minor::parse(high)?);
    }
    let mut all = true;
    let mut words = range.split([',', ' ']).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let version = word.trim_start_matches(['>', '<', '=', '^', '~', '!']);
        let operator = word.strip_suffix(version)?;
        // An operator may stand apart from its version.
        let version = if version.is_empty() {
            words.next()?
        } else {
            version
        };
        if version == "*" {
            continue;
        }
        let bound = Minor::parse(version)?;
        let patch = version
            .trim_start_matches('v')
            .split(['.', '-', '+'])
            .nth(2)
            .is_some_and(|patch| patch.parse::<u32>().is_ok_and(|patch| patch > 0));
        all &= match operator {
            ">=" => minor >= bound,
            ">" => minor > bound || (minor == bound && version.split('.').count() > 2),
            "<=" => minor <= bound,
            // Below 1.35.3 there are patches of 1.35; below 1.35.0 there are none.
            "<" => minor < bound || (patch && minor == bound),
            "" | "=" | "~" => minor == bound,
            "^" => minor.0 == bound.0 && minor >= bound,
            _ => return None,
        };
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_charts_write_them() {
        let cases = [
            (">=1.25.0-0", "1.34", Some(true)),
            (">= 1.25.0-0", "1.24", Some(false)),
            (">=1.22.0-0 <1.35.0", "1.35", Some(false)),
            (">=1.22, <1.35.3", "1.35", Some(true)),
            ("<=1.33", "1.34", Some(false)),
            ("^1.28", "1.34", Some(true)),
            ("~1.28.0 || ~1.34.0", "1.34", Some(true)),
            ("1.25 - 1.33", "1.34", Some(false)),
            (">1.34.1", "1.34", Some(true)),
            (">1.34", "1.34", Some(false)),
            ("*", "1.34", Some(true)),
            ("around 1.30", "1.34", None),
        ];
        for (range, version, expected) in cases {
            let minor = Minor::parse(version).unwrap();
            assert_eq!(allows(range, minor), expected, "{range} {version}");
        }
        assert_eq!(Minor::parse("v1.34.2+k3s1"), Some(Minor(1, 34)));
    }
}
