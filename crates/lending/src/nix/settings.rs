//! How a machine's builds of Nix are lent, as `nix/modules/lent-builds.nix` writes it.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use undercroft_folder::named::read_text_bounded;
use undercroft_lend::job::Limits;
use undercroft_model::{SubmitterName, Tenant, document::Version};

/// The largest file of settings that is read, in bytes.
const SETTINGS_BYTES_MAX: u64 = 64 * 1024;
/// How long it is waited until a PC has begun, in seconds, unless that is said.
const WAIT_S: u32 = 5;
/// The longest that it may be waited, in seconds.
const WAIT_S_MAX: u32 = 600;
/// How long the server may be silent while a PC builds, in seconds, unless that is said: it is started anew within.
const SILENT_S: u32 = 30;

/// How builds are lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NixSettings {
    /// The version of this form.
    pub version: Version<1>,
    /// The NATS server: `tls://HOST:PORT`.
    pub nats_url: String,
    /// The authority that signed the server's certificate; without it, those of the operating system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The submitter's key. The users of builds have to be able to read it.
    pub key_file: PathBuf,
    /// The submitter's name.
    pub submitter: SubmitterName,
    /// For whom builds are.
    pub tenant: Tenant,
    /// `public` or `internal`. Without it builds are taken for secret, and nothing is lent.
    #[serde(default)]
    pub sensitivity: Option<String>,
    /// How long it is waited until a PC has begun, in seconds.
    #[serde(default = "wait_s")]
    pub wait_s: u32,
    /// How long the server may be silent while a PC builds, in seconds.
    #[serde(default = "silent_s")]
    pub silent_s: u32,
    /// What one build may use on a PC.
    pub limits: Limits,
    /// What `/bin/sh` is for builds, as in `sandbox-paths` of nix.conf: a static program below the store, in a store path
    /// that needs no other.
    #[serde(default)]
    pub shell: Option<String>,
    /// A folder that the users of builds may write to, for what is known of store paths; without it, all that a build reads
    /// is read again for each build.
    #[serde(default)]
    pub cache_directory: Option<PathBuf>,
    /// bubblewrap, where it isn't in `PATH`.
    #[serde(default)]
    pub bwrap: Option<PathBuf>,
}

fn wait_s() -> u32 {
    WAIT_S
}

fn silent_s() -> u32 {
    SILENT_S
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum NixSettingsError {
    /// The file can't be read.
    #[error("the settings in {} can't be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is none, or says what can't be meant.
    #[error("{} holds no settings: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
}

impl NixSettings {
    /// Reads them.
    ///
    /// # Errors
    /// When the file can't be read, or holds none.
    pub fn read(path: &Path) -> Result<Self, NixSettingsError> {
        let failed = |source| NixSettingsError::File {
            path: path.to_owned(),
            source,
        };
        let text = read_text_bounded(path, SETTINGS_BYTES_MAX).map_err(failed)?;
        Self::parse(&text).map_err(|detail| NixSettingsError::Malformed {
            path: path.to_owned(),
            detail,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match settings.wait_s {
            0..=WAIT_S_MAX => Ok(settings),
            more => Err(format!("waitS is {more}, and may be {WAIT_S_MAX}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{ "version": 1, "natsUrl": "tls://nats:4222", "keyFile": "/k", "submitter": "ci",
        "tenant": "research", "sensitivity": "public",
        "limits": { "cpu_percent": 100, "memory_mb": 512, "disk_mb": 512, "wall_s": 600 } }"#;

    #[test]
    fn settings_have_defaults_and_no_unknown_words() {
        let settings = NixSettings::parse(WHOLE).unwrap();
        assert_eq!((settings.wait_s, settings.silent_s), (WAIT_S, SILENT_S));
        for (from, to, said) in [
            ("\"version\": 1", "\"version\": 2", "version"),
            ("sensitivity", "sensitive", "unknown field"),
            (
                "\"submitter\"",
                "\"waitS\": 601, \"submitter\"",
                "may be 600",
            ),
        ] {
            let error = NixSettings::parse(&WHOLE.replace(from, to)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
