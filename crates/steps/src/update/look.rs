//! What a machine says of what it runs and of what it would boot. It is the machine's word, and anything may be wrong with it.

use serde_json::Value;
use undercroft_model::text::visible;

/// The most characters that a reason of the machine's may have: beyond that it is cut off.
const REASON_CHARS_MAX: usize = 600;
/// The most failed checks that are named.
const CHECKS_MAX: usize = 8;

/// What a machine says that is updated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateLook {
    /// The boot.
    pub boot_id: String,
    /// The system that it booted.
    pub booted: String,
    /// The system that is active.
    pub current: String,
    /// The system that its profile names.
    pub profile: String,
    /// What it would boot next.
    pub next: BootsNext,
    /// What it says of this boot, once it has judged it.
    pub report: Option<BootVerdict>,
    /// What it says of the system that it has left last.
    pub fell_back: Option<LeftSystem>,
}

/// What a machine would boot next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootsNext {
    /// The system that it boots once.
    pub once: Option<String>,
    /// The system that it boots otherwise.
    pub default: Option<String>,
}

impl BootsNext {
    /// The system that it boots next.
    pub fn system(&self) -> Option<&str> {
        self.once.as_deref().or(self.default.as_deref())
    }

    /// The system that it boots after that one, where it is another.
    pub fn goes_back_to(&self) -> Option<&str> {
        let default = self.default.as_deref()?;
        (self.once.as_deref()? != default).then_some(default)
    }
}

/// How a machine has judged its present boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootVerdict {
    /// `proven`, `trying`, `fell-back` or `unknown`.
    pub state: String,
    /// The system that it is about.
    pub system: String,
}

/// A system that a machine has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftSystem {
    /// The system.
    pub system: String,
    /// The checks that failed, with what they said, in one line.
    pub failed: String,
}

fn printable(text: &str) -> String {
    visible(&text.replace('\r', ""))
}

impl UpdateLook {
    /// Reads what `look.sh` prints. What can't be read is as good as unsaid.
    pub fn read(text: &str) -> Self {
        let mut look = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim();
            let path = || printable(value);
            let some = || (!value.is_empty()).then(path);
            match word {
                "boot-id" => look.boot_id = path(),
                "booted" => look.booted = path(),
                "current" => look.current = path(),
                "profile" => look.profile = path(),
                "once" => look.next.once = some(),
                "default" => look.next.default = some(),
                "report" => look.report = report(value),
                "fell-back" => look.fell_back = fell_back(value),
                _ => {}
            }
        }
        look
    }
}

fn word(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(printable)
}

fn report(text: &str) -> Option<BootVerdict> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(BootVerdict {
        state: word(&value, "state")?,
        system: word(&value, "system")?,
    })
}

fn fell_back(text: &str) -> Option<LeftSystem> {
    let value: Value = serde_json::from_str(text).ok()?;
    let checks = value.get("failed").and_then(Value::as_array);
    let said = |check: &Value| {
        let name = word(check, "name").unwrap_or_default();
        let output = word(check, "output").unwrap_or_default();
        format!("{name}: {}", output.trim())
    };
    let checks: Vec<String> = checks
        .into_iter()
        .flatten()
        .take(CHECKS_MAX)
        .map(said)
        .collect();
    let failed = match checks.is_empty() {
        true => "it doesn't say which check failed".to_owned(),
        false => checks.join("; "),
    };
    Some(LeftSystem {
        system: word(&value, "system")?,
        failed: failed.chars().take(REASON_CHARS_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_is_read_and_what_it_does_not_say_is_nothing() {
        let look = UpdateLook::read(
            "boot-id b1\nbooted /nix/store/a\ncurrent /nix/store/a\nprofile /nix/store/b\nonce /nix/store/b\n\
             default /nix/store/a\nreport {\"state\": \"proven\", \"system\": \"/nix/store/a\", \"more\": 1}\n\
             fell-back {\"system\": \"/nix/store/c\", \"failed\": [{\"name\": \"network\", \"output\": \"no link\\n\"}]}\n",
        );
        assert_eq!(look.next.system(), Some("/nix/store/b"));
        assert_eq!(look.next.goes_back_to(), Some("/nix/store/a"));
        assert_eq!(look.report.unwrap().state, "proven");
        assert_eq!(look.fell_back.unwrap().failed, "network: no link");
        let nothing =
            UpdateLook::read("once \ndefault /nix/store/a\nreport {\nfell-back null\nnoise\n");
        assert_eq!(nothing.next.system(), Some("/nix/store/a"));
        assert_eq!(nothing.next.goes_back_to(), None);
        assert!(nothing.report.is_none() && nothing.fell_back.is_none());
        assert_eq!(UpdateLook::read(""), UpdateLook::default());
    }
}
