//! The values that stand at the end of a key: numbers, texts, addresses, names.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::json;
use toml::{Spanned, de::DeValue};

use super::{
    declare::{Json, Name, Out, Rule, Value, text},
    reader::Reader,
};
use crate::{ClassName, MacAddr, MachineUuid, NodeName, PcName, SubmitterName, System, UserName};

impl Value for bool {
    fn read(value: &Spanned<DeValue<'_>>, _: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(b) => Some(*b),
            _ => {
                cx.wrong_type(value, "true or false");
                None
            }
        }
    }
    fn write(&self) -> Out {
        Out::Scalar(self.to_string())
    }
    fn schema(_: Rule) -> Json {
        json!({ "type": "boolean" })
    }
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn read(
                value: &Spanned<DeValue<'_>>,
                rule: Rule,
                cx: &mut Reader<'_>,
            ) -> Option<Self> {
                let (low, high) = limits(rule, u64::from(<$ty>::MAX));
                let number = cx.integer(value, low, high)?;
                <$ty>::try_from(number).ok()
            }
            fn write(&self) -> Out {
                Out::Scalar(self.to_string())
            }
            fn schema(rule: Rule) -> Json {
                let (low, high) = limits(rule, u64::from(<$ty>::MAX));
                json!({ "type": "integer", "minimum": low, "maximum": high })
            }
        }
    )* };
}

integers!(u8, u16, u32, u64);

/// The limits of an integer: the rule's, and those of the type and of TOML.
fn limits(rule: Rule, max: u64) -> (u64, u64) {
    let max = max.min(i64::MAX.unsigned_abs());
    match rule {
        Rule::Range(low, high) => (low, high.min(max)),
        Rule::Any | Rule::Text(_) => (0, max),
    }
}

impl Value for String {
    fn read(value: &Spanned<DeValue<'_>>, rule: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        let found = cx.text(value)?;
        match rule {
            Rule::Text(rule) if !(rule.test)(found) => {
                cx.not_expected(value, found, rule.expected);
                None
            }
            _ => Some(found.to_owned()),
        }
    }
    fn write(&self) -> Out {
        text(self)
    }
    fn schema(rule: Rule) -> Json {
        match rule {
            Rule::Text(rule) => {
                json!({ "type": "string", "title": rule.expected, "pattern": rule.pattern })
            }
            _ => json!({ "type": "string" }),
        }
    }
}

macro_rules! parsed {
    ($($ty:ty, $expected:literal, $pattern:literal;)*) => { $(
        impl Value for $ty {
            fn read(value: &Spanned<DeValue<'_>>, _: Rule, cx: &mut Reader<'_>) -> Option<Self> {
                let found = cx.text(value)?;
                let parsed = found.parse().ok();
                if parsed.is_none() {
                    cx.not_expected(value, found, $expected);
                }
                parsed
            }
            fn write(&self) -> Out {
                text(&self.to_string())
            }
            fn schema(_: Rule) -> Json {
                json!({ "type": "string", "title": $expected, "pattern": $pattern })
            }
        }
    )* };
}

parsed! {
    Ipv4Addr, "an IPv4 address such as 10.0.0.5", r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$";
    Ipv4Net, "an IPv4 network such as 10.0.0.0/24", r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$";
    MacAddr, "an Ethernet address such as 52:54:00:12:34:56",
        "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$";
    MachineUuid, "a UUID such as 7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d",
        "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
}

const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

macro_rules! labels {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn read(value: &Spanned<DeValue<'_>>, _: Rule, cx: &mut Reader<'_>) -> Option<Self> {
                let found = cx.text(value)?;
                let name = found.parse().ok();
                if name.is_none() {
                    cx.not_a_label(value.span(), found);
                }
                name
            }
            fn write(&self) -> Out {
                text(self.as_str())
            }
            fn schema(_: Rule) -> Json {
                json!({ "type": "string", "title": "a name (a DNS label)", "pattern": LABEL })
            }
        }
        impl Name for $ty {
            const PATTERN: &'static str = LABEL;
        }
    )* };
}

labels!(NodeName, ClassName, PcName, SubmitterName, UserName);

impl Name for String {
    const PATTERN: &'static str = "^.+$";
}

impl Value for System {
    fn read(value: &Spanned<DeValue<'_>>, _: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        let words: Vec<&str> = SYSTEMS.iter().map(|s| s.as_str()).collect();
        let word = cx.word(value, &words)?;
        SYSTEMS.iter().copied().find(|s| s.as_str() == word)
    }
    fn write(&self) -> Out {
        text(self.as_str())
    }
    fn schema(_: Rule) -> Json {
        json!({ "type": "string", "enum": SYSTEMS.map(System::as_str) })
    }
}

const SYSTEMS: [System; 4] = [
    System::X86_64Linux,
    System::Aarch64Linux,
    System::X86_64Darwin,
    System::Aarch64Darwin,
];
