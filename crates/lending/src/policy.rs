//! What a PC lends by the repository's word, as `nix/home/lending.nix` writes it, and what its owner has narrowed.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_lend::{
    DeviceClass, DeviceName, Feature, Tenant,
    job::{Limits, Runtime},
    offer::Offer,
};
use undercroft_model::{
    advice::{Advice, ErrorKind, FileFailure, kind_of_io},
    document::Version,
    inventory::Sensitivity,
};

use crate::hours::Hours;

/// The largest policy that is read, in bytes.
const POLICY_BYTES_MAX: u64 = 64 * 1024;
/// The owner's own file, in the state folder.
const NARROWED_FILE: &str = "narrowed.json";

/// What a PC lends, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// The version of this form.
    pub version: Version<1>,
    /// The fleet's name.
    pub fleet: String,
    /// The PC's name.
    pub device: DeviceName,
    /// What kind of device it is, such as `pc`.
    pub class: DeviceClass,
    /// Whose it is.
    pub owner: Option<String>,
    /// The NATS server: `tls://HOST:PORT`.
    pub nats_url: String,
    /// The authority that signed the server's certificate; without it, those of the operating system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Where keys, the ledger, artefacts and jobs lie.
    pub state_directory: PathBuf,
    /// What jobs may run in.
    pub runtimes: BTreeSet<Runtime>,
    /// For whom.
    pub tenants: BTreeSet<Tenant>,
    /// The most sensitive work.
    pub max_sensitivity: Sensitivity,
    /// Jobs at a time.
    pub slots: u32,
    /// The share of all processors for all jobs together, in percent.
    pub cpu_percent: u32,
    /// Memory for all jobs together, in MiB.
    pub memory_mb: u32,
    /// Disk space for all jobs together, in MiB.
    pub disk_mb: u32,
    /// What the PC has and jobs may use, such as `gpu`.
    #[serde(default)]
    pub features: BTreeSet<Feature>,
    /// The longest that a job may run, in seconds.
    pub job_wall_s: u32,
    /// Time between two renewals of a lease, in seconds.
    pub heartbeat_s: u32,
    /// The longest that a job stays frozen, in seconds.
    pub pause_s: u32,
    /// When jobs run.
    pub when: When,
}

/// When a PC works for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// How long the owner has to be away, in seconds.
    pub idle_after_s: u32,
    /// In which part of the day.
    #[serde(default)]
    pub hours: Option<Hours>,
    /// Whether anybody ever sits at the machine. One without a seat is always idle.
    #[serde(default = "yes")]
    pub has_seat: bool,
    /// Whether it works only on mains.
    #[serde(default = "yes")]
    pub mains_only: bool,
    /// Whether it works with its lid closed.
    #[serde(default)]
    pub lid_closed: bool,
    /// The warmest that it may be, in degrees Celsius.
    #[serde(default = "temperature")]
    pub max_temperature_c: u32,
    /// Programs beside which nothing is lent.
    #[serde(default)]
    pub exclusive_programs: BTreeSet<String>,
    /// What a lent hour takes, in watts, where nothing measures it.
    #[serde(default)]
    pub watts: Option<u32>,
}

fn yes() -> bool {
    true
}

/// Below where processors of PCs begin to slow down (some 95 to 105 °C).
fn temperature() -> u32 {
    85
}

/// A runtime's name.
pub(crate) fn runtime_name(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Wasm => "wasm",
        Runtime::Process => "process",
        Runtime::Nix => "nix",
        Runtime::Adb => "adb",
    }
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It can't be read.
    #[error("can't read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than a policy is.
    #[error("{} is longer than {POLICY_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no policy.
    #[error("{} is no lending policy: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// The owner's own file can't be used.
    #[error(transparent)]
    File(#[from] ConfinedError),
}

impl Advice for PolicyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => kind_of_io(source),
            Self::File(error) => error.kind(),
            Self::TooLarge { .. } | Self::Malformed { .. } => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            _ => Some(
                "Home Manager writes it from the inventory ($XDG_CONFIG_HOME/undercroft/lending.json); \
                 `undercroft lend demo` writes one to begin with."
                    .to_owned(),
            ),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Io { path, source } => Some(FileFailure {
                tried: Some("read"),
                path,
                source: Some(source),
            }),
            Self::File(error) => error.file(),
            _ => None,
        }
    }
}

impl Policy {
    /// Reads a policy. It is the owner's own file, or a link to one that Home Manager has written.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Io {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(POLICY_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge {
                path: path.to_owned(),
            });
        }
        let policy: Self = serde_json::from_str(&text).map_err(|error| PolicyError::Malformed {
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        if !policy.state_directory.is_absolute() {
            return Err(PolicyError::Malformed {
                path: path.to_owned(),
                detail: "`stateDirectory` has to be an absolute path".to_owned(),
            });
        }
        Ok(policy)
    }

    /// The state folder.
    pub fn state(&self) -> Confined {
        Confined::new(&self.state_directory)
    }

    /// What is offered at most, on a machine with so many processors.
    pub fn offer(&self, processors: u32) -> Offer {
        Offer {
            class: self.class.clone(),
            runtimes: self.runtimes.clone(),
            tenants: Some(self.tenants.clone()),
            max_sensitivity: self.max_sensitivity,
            features: self.features.clone(),
            slots: self.slots,
            limits: Limits {
                cpu_percent: self.cpu_percent.saturating_mul(processors),
                memory_mb: self.memory_mb,
                disk_mb: self.disk_mb,
                wall_s: self.job_wall_s,
            },
        }
    }
}

/// What the owner has said on the PC itself about when it works. It never makes a policy wider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowed {
    /// In which parts of the day: in all of them at once.
    #[serde(default)]
    pub hours: Vec<Hours>,
    /// How long the owner has to be away at least, in seconds.
    #[serde(default)]
    pub idle_after_s: Option<u32>,
    /// Programs beside which nothing is lent.
    #[serde(default)]
    pub exclusive_programs: BTreeSet<String>,
}

impl Narrowed {
    /// What the owner has said; nothing where they haven't.
    ///
    /// # Errors
    /// When the file can't be read, or holds something else.
    pub fn read(state: &Confined) -> Result<Self, PolicyError> {
        let Some(text) = state.read_text(NARROWED_FILE, POLICY_BYTES_MAX)? else {
            return Ok(Self::default());
        };
        serde_json::from_str(&text).map_err(|error| PolicyError::Malformed {
            path: state.path(NARROWED_FILE),
            detail: error.to_string(),
        })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, state: &Confined) -> Result<(), PolicyError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(state.replace(NARROWED_FILE, &text, Modes::PRIVATE)?)
    }

    /// All hours that hold: each of them has to be now.
    pub fn all_hours(&self, when: &When) -> Vec<Hours> {
        self.hours.iter().copied().chain(when.hours).collect()
    }

    /// With what the owner has said since: each word makes it less, and none takes an earlier one back.
    pub fn and(&mut self, more: &Self) {
        self.hours.extend(&more.hours);
        self.hours.sort();
        self.hours.dedup();
        self.idle_after_s = self.idle_after_s.max(more.idle_after_s);
        let programs = more.exclusive_programs.iter().cloned();
        self.exclusive_programs.extend(programs);
    }

    /// How long the owner has to be away, in seconds.
    pub fn idle_after_s(&self, when: &When) -> u32 {
        when.idle_after_s.max(self.idle_after_s.unwrap_or(0))
    }

    /// Programs beside which nothing is lent, by either's word.
    pub fn exclusive<'a>(&'a self, when: &'a When) -> impl Iterator<Item = &'a str> {
        let own = self.exclusive_programs.iter();
        own.chain(&when.exclusive_programs).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const POLICY: &str = r#"{"version":1,"fleet":"cellar","device":"ada-pc","class":"pc","owner":"ada",
        "natsUrl":"tls://nats.cellar.example:4222","stateDirectory":"/home/ada/.local/state/undercroft/lending",
        "runtimes":["wasm","process"],"tenants":["batch"],"maxSensitivity":"public","slots":2,"cpuPercent":50,
        "memoryMb":2048,"diskMb":4096,"features":["gpu"],"jobWallS":3600,"heartbeatS":10,"pauseS":600,
        "when":{"idleAfterS":300,"hours":"22:00-06:30"}}"#;

    #[test]
    fn what_is_narrowed_again_is_narrower() {
        let said = |hours: &str, idle_after_s, program: &str| Narrowed {
            hours: vec![hours.parse().unwrap()],
            idle_after_s,
            exclusive_programs: BTreeSet::from([program.to_owned()]),
        };
        let mut narrowed = said("22:00-06:00", Some(600), "game");
        narrowed.and(&said("00:00-23:59", Some(60), "film"));
        narrowed.and(&said("22:00-06:00", None, "film"));
        assert_eq!(narrowed.hours.len(), 2, "{narrowed:?}");
        assert_eq!(narrowed.idle_after_s, Some(600));
        assert_eq!(narrowed.exclusive_programs.len(), 2);
    }

    fn read(text: &str) -> Result<Policy, PolicyError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lending.json");
        std::fs::write(&path, text).unwrap();
        Policy::read(&path)
    }

    #[test]
    fn what_isnt_said_is_careful() {
        let policy = read(POLICY).unwrap();
        assert!(policy.when.has_seat && policy.when.mains_only && !policy.when.lid_closed);
        let offer = policy.offer(8);
        assert_eq!(offer.limits.cpu_percent, 400);
        assert!(offer.features.iter().any(|f| f.as_str() == "gpu"));
        assert_eq!(offer.tenants.unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_words() {
        for (from, to, why) in [
            ("\"version\":1", "\"version\":2", "its version is 2"),
            (
                "22:00-06:30",
                "22:00-22:00",
                "a part of the day such as 22:00-06:30",
            ),
            ("\"wasm\"", "\"oci\"", "unknown variant `oci`"),
            ("\"public\"", "\"secret\"", "unknown variant `secret`"),
            ("\"/home", "\"home", "absolute"),
            ("\"slots\":2", "\"slots\":-1", "invalid value"),
        ] {
            let error = read(&POLICY.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let large = " ".repeat(70_000);
        assert!(matches!(read(&large), Err(PolicyError::TooLarge { .. })));
    }

    #[test]
    fn an_owner_narrows_and_never_widens() {
        let dir = tempfile::tempdir().unwrap();
        let state = Confined::new(dir.path());
        assert_eq!(Narrowed::read(&state).unwrap(), Narrowed::default());
        let narrowed = Narrowed {
            hours: vec!["23:00-05:00".parse().unwrap()],
            idle_after_s: Some(30),
            exclusive_programs: ["ardour".to_owned()].into(),
        };
        narrowed.write(&state).unwrap();
        let narrowed = Narrowed::read(&state).unwrap();
        let when = read(POLICY).unwrap().when;
        assert_eq!(narrowed.idle_after_s(&when), 300);
        assert_eq!(narrowed.all_hours(&when).len(), 2);
    }
}
