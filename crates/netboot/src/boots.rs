//! Boots under way: who has asked for a machine's script, and whether somebody else asks too.
//!
//! A script is served to whoever asks in a machine's name, for nothing in the network boot tells
//! the machine from others. But each boot takes one script: a second asker, or one at another
//! address than the machine's, is worth a word to the person who approves the machine.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::table::BootTable;

/// How long a boot may take from its script to its report, in milliseconds: half an hour, for a
/// slow link and a large installer. Past it a request begins another boot.
pub const BOOT_MS_MAX: u64 = 30 * 60_000;
/// The most machines that the table doesn't know whose boots are remembered; the one that asked
/// first is forgotten first. Those of the table are as many as the table has.
pub const UNKNOWN_MACHINES_MAX: usize = 256;

/// A request for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptRequest {
    /// Who asked.
    pub asker: Ipv4Addr,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The word of the script that was served.
    pub word: String,
}

/// What is odd about a request for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// It doesn't come from the machine's planned address.
    OtherAddress {
        /// The address that the machine should have.
        planned: Ipv4Addr,
    },
    /// Another script was served for the same boot.
    Again {
        /// The first request.
        first: ScriptRequest,
    },
}

/// The boots under way.
#[derive(Debug, Default)]
pub struct Boots {
    known: BTreeMap<String, ScriptRequest>,
    unknown: BTreeMap<String, ScriptRequest>,
}

impl Boots {
    /// A script is served. Gives what is odd about that.
    pub fn served(
        &mut self,
        subject: &str,
        is_known: bool,
        planned: Option<Ipv4Addr>,
        asked: ScriptRequest,
    ) -> Vec<Oddity> {
        let mut odd = Vec::new();
        if let Some(planned) = planned.filter(|planned| *planned != asked.asker) {
            odd.push(Oddity::OtherAddress { planned });
        }
        let boots = if is_known {
            &mut self.known
        } else {
            &mut self.unknown
        };
        match boots.get(subject) {
            Some(first) if asked.at_ms.saturating_sub(first.at_ms) < BOOT_MS_MAX => {
                let first = first.clone();
                odd.push(Oddity::Again { first });
            }
            _ => {
                boots.insert(subject.to_owned(), asked);
            }
        }
        if self.unknown.len() > UNKNOWN_MACHINES_MAX {
            let oldest = self.unknown.iter().min_by_key(|(_, asked)| asked.at_ms);
            if let Some(subject) = oldest.map(|(subject, _)| subject.clone()) {
                self.unknown.remove(&subject);
            }
        }
        odd
    }

    /// The boot is over, because its installer has reported in, or because the machine is started
    /// anew on our behalf.
    pub fn ended(&mut self, subject: &str) {
        self.known.remove(subject);
        self.unknown.remove(subject);
    }

    /// Forgets machines that a new table doesn't have.
    pub fn keep(&mut self, table: &BootTable) {
        let names: Vec<String> = table
            .machines()
            .map(|machine| crate::token::Subject::Node(&machine.name).to_string())
            .collect();
        self.known.retain(|subject, _| names.contains(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(last: u8, at_ms: u64) -> ScriptRequest {
        ScriptRequest {
            asker: Ipv4Addr::new(10, 0, 0, last),
            at_ms,
            word: format!("word-{last}"),
        }
    }

    #[test]
    fn a_second_asker_while_the_first_boots_is_odd() {
        let mut boots = Boots::default();
        let planned = Some(Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(boots.served("node a", true, planned, asked(5, 0)), []);
        let first = asked(5, 0);
        let again = Oddity::Again {
            first: first.clone(),
        };
        assert_eq!(
            boots.served("node a", true, planned, asked(5, 1000)),
            std::slice::from_ref(&again)
        );
        let other = Oddity::OtherAddress {
            planned: Ipv4Addr::new(10, 0, 0, 5),
        };
        assert_eq!(
            boots.served("node a", true, planned, asked(66, 2000)),
            [other.clone(), again]
        );
        boots.ended("node a");
        assert_eq!(boots.served("node a", true, planned, asked(5, 3000)), []);
        // Long after, it is another boot.
        let late = 3000 + BOOT_MS_MAX;
        assert_eq!(boots.served("node a", true, planned, asked(5, late)), []);
        assert_eq!(
            boots.served("node b", true, planned, asked(66, 0)),
            [other],
            "also where nobody else asks"
        );
    }

    #[test]
    fn unknown_machines_push_out_each_other_alone() {
        let mut boots = Boots::default();
        boots.served("node a", true, None, asked(5, 0));
        for n in 0..1000_u64 {
            boots.served(&format!("mac {n}"), false, None, asked(6, n));
        }
        assert_eq!(boots.unknown.len(), UNKNOWN_MACHINES_MAX);
        assert_eq!(boots.served("node a", true, None, asked(6, 5)).len(), 1);
    }
}
