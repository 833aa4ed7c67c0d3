//! The ledger of consent: what an owner agreed to, and what was done under it.
//!
//! Each record names the one before it by its digest and is signed, by the owner's key where the owner says
//! something and by the device's where the device did something. Nothing is ever taken out; whoever has the
//! records and the two public keys can go through them again and see the first that doesn't hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeviceName, Digest, Epoch, JobId},
    offer::Offer,
};

/// Jobs that a device may have open at once, whatever its owner lends.
pub const OPEN_JOBS_MAX: usize = 64;

/// A public key, as its owner writes it (an nkey: `U…`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub String);

/// A signature, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(pub String);

/// Who signs a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signer {
    /// Whoever owns the device.
    Owner,
    /// The device.
    Device,
}

/// Makes signatures. What is signed is whole and small.
pub trait Sign {
    /// The signature of some bytes.
    fn sign(&self, signer: Signer, bytes: &[u8]) -> Signature;
}

/// Checks signatures.
pub trait Verify {
    /// Whether the signature of those bytes was made with that key's other half.
    fn holds(&self, key: &PublicKey, bytes: &[u8], signature: &Signature) -> bool;
}

/// The keys that a device's records are signed with, as the enrolment bound them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The owner's.
    pub owner: PublicKey,
    /// The device's.
    pub device: PublicKey,
}

/// How a job's time on a device ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// It came to its own end.
    Ended,
    /// It was ended by the device.
    Killed,
    /// It was never started.
    NeverStarted,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Said {
    /// The owner lends this.
    Granted {
        /// What.
        offer: Box<Offer>,
        /// Until when, in milliseconds since the Unix epoch; `None` until it is revoked.
        until_ms: Option<u64>,
    },
    /// The owner lends less from now on.
    Narrowed {
        /// What is left.
        offer: Box<Offer>,
    },
    /// The owner lends nothing any more.
    Revoked,
    /// The device begins a job.
    Started {
        /// Which.
        job: JobId,
        /// Which time that it is handed out.
        epoch: Epoch,
        /// The record of the consent under which it runs.
        consent: u64,
    },
    /// Nothing of a job is left on the device: no process, no file.
    Receipt {
        /// Which.
        job: JobId,
        /// Which time that it was handed out.
        epoch: Epoch,
        /// How it ended.
        gone: Gone,
    },
}

impl Said {
    /// Who has to sign it.
    pub fn signer(&self) -> Signer {
        match self {
            Self::Granted { .. } | Self::Narrowed { .. } | Self::Revoked => Signer::Owner,
            Self::Started { .. } | Self::Receipt { .. } => Signer::Device,
        }
    }
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its place in the ledger, from 0.
    pub number: u64,
    /// The digest of the record before it; `None` for the first.
    pub previous: Option<Digest>,
    /// Whose ledger.
    pub device: DeviceName,
    /// When, in milliseconds since the Unix epoch, as the device believed.
    pub at_ms: u64,
    /// What.
    pub said: Said,
}

impl Claim {
    /// What is signed: its JSON, whose keys stand in the order of the declaration.
    fn bytes(&self) -> Vec<u8> {
        // Strings, numbers and maps with keys of text can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What is said.
    pub claim: Claim,
    /// The signature.
    pub signature: Signature,
}

impl Record {
    /// What the next record names it by: its signature is part of it, so that it can't be exchanged either.
    pub fn digest(&self) -> Digest {
        let mut bytes = self.claim.bytes();
        bytes.push(0);
        bytes.extend_from_slice(self.signature.0.as_bytes());
        Digest::of(&bytes)
    }
}

/// The last record of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// What an owner agrees to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The record that says it.
    pub number: u64,
    /// What is lent.
    pub offer: Offer,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

impl Consent {
    /// Whether it is good at that moment.
    pub fn is_good_at(&self, wall_ms: u64) -> bool {
        self.until_ms.is_none_or(|until_ms| wall_ms < until_ms)
    }
}

/// The first record that doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {number} of {device}'s ledger doesn't hold: {why}")]
pub struct Broken {
    /// Whose ledger.
    pub device: DeviceName,
    /// Where it stands.
    pub number: u64,
    /// Why it doesn't.
    pub why: Why,
}

/// Why a record doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A record is absent or stands twice.
    #[error("it should be number {0}")]
    Number(u64),
    /// The one before it is another.
    #[error("it follows another record than the one before it")]
    Previous,
    /// It is another device's.
    #[error("it is {0}'s")]
    Foreign(DeviceName),
    /// The signature isn't that of whoever has to sign.
    #[error("its signature is not the {}'s", match .0 { Signer::Owner => "owner", Signer::Device => "device" })]
    Signature(Signer),
    /// It changes a consent that there isn't.
    #[error("there is no consent at this place")]
    NoConsent,
    /// It lends more than before without saying so.
    #[error("it lends more than the consent that it narrows")]
    Wider,
    /// A job was begun under another consent than the one that held.
    #[error("it cites consent {cited}, and {} held", .held.map_or_else(|| "none".to_owned(), |n| n.to_string()))]
    OtherConsent {
        /// What it cites.
        cited: u64,
        /// What held.
        held: Option<u64>,
    },
    /// A job was begun after its consent had ended.
    #[error("its consent had ended by then")]
    Ended,
    /// The same time of a job was begun twice.
    #[error("{0} was begun already at epoch {1} or a later one")]
    Twice(JobId, Epoch),
    /// More are open than any device may have.
    #[error("more than {OPEN_JOBS_MAX} jobs are open")]
    TooMany,
    /// A receipt is given for what isn't open.
    #[error("{0} isn't open at epoch {1}")]
    NotOpen(JobId, Epoch),
}

/// A ledger as far as it was gone through: where it stands, and what is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    device: DeviceName,
    /// By which keys its records hold; none while it has no record.
    #[serde(default)]
    keys: Option<Keys>,
    head: Option<Head>,
    consent: Option<Consent>,
    open: BTreeMap<JobId, Epoch>,
}

impl Ledger {
    /// An empty one.
    pub fn new(device: DeviceName) -> Self {
        Self {
            device,
            keys: None,
            head: None,
            consent: None,
            open: BTreeMap::new(),
        }
    }

    /// Whose it is.
    pub fn device(&self) -> &DeviceName {
        &self.device
    }

    /// Whether its records hold by those keys, as far as it was gone through.
    pub fn is_of(&self, keys: &Keys) -> bool {
        self.keys.as_ref().is_none_or(|own| own == keys)
    }

    /// The last record.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// What the owner agrees to; `None` before the first consent and after it was revoked.
    pub fn consent(&self) -> Option<&Consent> {
        self.consent.as_ref()
    }

    /// Jobs that were begun and have no receipt.
    pub fn open(&self) -> &BTreeMap<JobId, Epoch> {
        &self.open
    }

    /// Writes the record that comes next, without taking it in: that is for when it is durable.
    pub fn next(&self, at_ms: u64, said: Said, sign: &impl Sign) -> Record {
        let claim = Claim {
            number: self.next_number(),
            previous: self.head.map(|head| head.digest),
            device: self.device.clone(),
            at_ms,
            said,
        };
        let signature = sign.sign(claim.said.signer(), &claim.bytes());
        Record { claim, signature }
    }

    fn next_number(&self) -> u64 {
        self.head.map_or(0, |head| head.number.saturating_add(1))
    }

    /// Takes the next record in.
    ///
    /// # Errors
    /// When it doesn't hold; the ledger stands as before then.
    pub fn push(
        &mut self,
        record: &Record,
        keys: &Keys,
        verify: &impl Verify,
    ) -> Result<(), Broken> {
        let claim = &record.claim;
        let broken = |why| Broken {
            device: self.device.clone(),
            number: claim.number,
            why,
        };
        if claim.number != self.next_number() {
            return Err(broken(Why::Number(self.next_number())));
        }
        if claim.previous != self.head.map(|head| head.digest) {
            return Err(broken(Why::Previous));
        }
        if claim.device != self.device {
            return Err(broken(Why::Foreign(claim.device.clone())));
        }
        let signer = claim.said.signer();
        let key = match signer {
            Signer::Owner => &keys.owner,
            Signer::Device => &keys.device,
        };
        if !verify.holds(key, &claim.bytes(), &record.signature) {
            return Err(broken(Why::Signature(signer)));
        }
        let (consent, opened, closed) = self.judged(claim).map_err(broken)?;
        self.consent = consent;
        if let Some((job, epoch)) = opened {
            self.open.insert(job, epoch);
        }
        if let Some(job) = closed {
            self.open.remove(&job);
        }
        self.head = Some(Head {
            number: claim.number,
            digest: record.digest(),
        });
        self.keys.get_or_insert_with(|| keys.clone());
        Ok(())
    }

    /// What stands after a claim: the consent, what is open newly, and what is closed.
    #[expect(clippy::type_complexity, reason = "three results of one match")]
    fn judged(
        &self,
        claim: &Claim,
    ) -> Result<(Option<Consent>, Option<(JobId, Epoch)>, Option<JobId>), Why> {
        let number = claim.number;
        let held = self.consent.as_ref();
        match &claim.said {
            Said::Granted { offer, until_ms } => {
                let consent = Consent {
                    number,
                    offer: Offer::clone(offer),
                    until_ms: *until_ms,
                };
                Ok((Some(consent), None, None))
            }
            Said::Narrowed { offer } => {
                let held = held.ok_or(Why::NoConsent)?;
                if !offer.is_within(&held.offer) {
                    return Err(Why::Wider);
                }
                let consent = Consent {
                    number,
                    offer: Offer::clone(offer),
                    until_ms: held.until_ms,
                };
                Ok((Some(consent), None, None))
            }
            Said::Revoked => held.map(|_| (None, None, None)).ok_or(Why::NoConsent),
            Said::Started {
                job,
                epoch,
                consent,
            } => {
                let held_number = held.map(|consent| consent.number);
                if held_number != Some(*consent) {
                    return Err(Why::OtherConsent {
                        cited: *consent,
                        held: held_number,
                    });
                }
                if held.is_some_and(|consent| !consent.is_good_at(claim.at_ms)) {
                    return Err(Why::Ended);
                }
                if self.open.contains_key(job) {
                    return Err(Why::Twice(job.clone(), *epoch));
                }
                if self.open.len() >= OPEN_JOBS_MAX {
                    return Err(Why::TooMany);
                }
                Ok((self.consent.clone(), Some((job.clone(), *epoch)), None))
            }
            Said::Receipt { job, epoch, .. } => {
                if self.open.get(job) != Some(epoch) {
                    return Err(Why::NotOpen(job.clone(), *epoch));
                }
                Ok((self.consent.clone(), None, Some(job.clone())))
            }
        }
    }

    /// Goes through a whole ledger, from its beginning.
    ///
    /// # Errors
    /// The first record that doesn't hold.
    pub fn replay<'a>(
        device: DeviceName,
        records: impl IntoIterator<Item = &'a Record>,
        keys: &Keys,
        verify: &impl Verify,
    ) -> Result<Self, Broken> {
        let mut ledger = Self::new(device);
        let mut begun: BTreeSet<(JobId, Epoch)> = BTreeSet::new();
        for record in records {
            ledger.push(record, keys, verify)?;
            if let Said::Started { job, epoch, .. } = &record.claim.said
                && !begun.insert((job.clone(), *epoch))
            {
                return Err(Broken {
                    device: ledger.device,
                    number: record.claim.number,
                    why: Why::Twice(job.clone(), *epoch),
                });
            }
        }
        Ok(ledger)
    }
}
