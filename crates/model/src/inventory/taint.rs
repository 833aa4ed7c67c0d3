//! A taint of a Kubernetes node.

use std::fmt;

/// A taint, written `KEY=VALUE:EFFECT` or `KEY:EFFECT`. nix/lib/kubeadm.nix reads it the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty where it has none.
    pub value: String,
    /// What it does to pods: `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads a taint; `None` where the text has no effect.
    pub fn parse(text: &str) -> Option<Self> {
        let (left, effect) = text.rsplit_once(':')?;
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        Some(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: effect.to_owned(),
        })
    }

    /// Whether it keeps pods away; `PreferNoSchedule` only makes them rather go elsewhere.
    pub fn repels(&self) -> bool {
        self.effect != "PreferNoSchedule"
    }
}

impl fmt::Display for Taint {
    /// The taint as `kubectl taint` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        if value.is_empty() {
            write!(f, "{key}:{effect}")
        } else {
            write!(f, "{key}={value}:{effect}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_written_as_they_are_read() {
        for (text, key, value, effect, repels) in [
            ("a/b=yes:NoSchedule", "a/b", "yes", "NoSchedule", true),
            ("dedicated:NoExecute", "dedicated", "", "NoExecute", true),
            ("a:PreferNoSchedule", "a", "", "PreferNoSchedule", false),
        ] {
            let taint = Taint::parse(text).unwrap();
            assert_eq!(
                (&*taint.key, &*taint.value, &*taint.effect),
                (key, value, effect)
            );
            assert_eq!(taint.to_string(), text);
            assert_eq!(taint.repels(), repels);
        }
        let empty = Taint::parse("a=:NoSchedule").unwrap();
        assert_eq!(empty.to_string(), "a:NoSchedule");
        assert_eq!(Taint::parse("a"), None);
    }
}
