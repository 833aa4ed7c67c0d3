//! What Nix asks for: its `build.json`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use undercroft_folder::named::read_text_bounded;
use undercroft_lend::build::{BUILD_FOLDER, PATHS_MAX, STORE, in_store, is_store_name};

use super::settings::NixSettings;

/// The version of Nix' form that is known.
const VERSION: u32 = 1;
/// The largest request, in bytes. Scripts and all input paths stand in it.
const REQUEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where Nix puts the attributes of a derivation that are structured.
const ATTRIBUTES: &str = ".attrs.json";
/// The largest file of attributes that is looked into, in bytes.
const ATTRIBUTES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A build that Nix asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NixRequest {
    version: u32,
    pub(super) builder: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// A folder of the build's own, which Nix removes.
    pub(super) top_tmp_dir: PathBuf,
    /// The build's folder, with what Nix has put there.
    pub(super) tmp_dir: PathBuf,
    pub(super) tmp_dir_in_sandbox: String,
    pub(super) store_dir: String,
    pub(super) real_store_dir: PathBuf,
    pub(super) system: String,
    pub(super) input_paths: Vec<String>,
    pub(super) outputs: BTreeMap<String, String>,
}

/// Why nothing is built.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// It can't be read.
    #[error("can't read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't what Nix writes.
    #[error("{} is no build of Nix: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
}

impl undercroft_model::advice::Advice for BadRequest {
    fn kind(&self) -> undercroft_model::advice::ErrorKind {
        undercroft_model::advice::ErrorKind::Input
    }

    fn hint(&self) -> Option<String> {
        Some("Nix starts this by itself: `external-builders` of nix.conf names it, and Nix adds the file.".to_owned())
    }
}

impl NixRequest {
    /// Reads one.
    ///
    /// # Errors
    /// When it can't be read, or isn't one that is known here.
    pub fn read(path: &Path) -> Result<Self, BadRequest> {
        let failed = |source| BadRequest::File {
            path: path.to_owned(),
            source,
        };
        let text = read_text_bounded(path, REQUEST_BYTES_MAX).map_err(failed)?;
        Self::parse(&text).map_err(|detail| BadRequest::Malformed {
            path: path.to_owned(),
            detail,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let request: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if request.version != VERSION {
            return Err(format!(
                "it is of version {}, and version {VERSION} is known",
                request.version
            ));
        }
        let folders = [
            &request.top_tmp_dir,
            &request.tmp_dir,
            &request.real_store_dir,
        ];
        if let Some(folder) = folders.iter().find(|folder| !folder.is_absolute()) {
            return Err(format!("{} isn't absolute", folder.display()));
        }
        let paths = request.input_paths.iter().chain(request.outputs.values());
        for path in paths {
            let name = path.strip_prefix(&request.store_dir);
            let name = name.and_then(|name| name.strip_prefix('/'));
            if !name.is_some_and(is_store_name) {
                return Err(format!("{path:?} is no path of {}", request.store_dir));
            }
        }
        Ok(request)
    }

    /// The name of a store path.
    pub(super) fn name<'a>(&self, path: &'a str) -> &'a str {
        path.rsplit('/').next().unwrap_or(path)
    }

    /// What it makes: names of outputs, and of their store paths.
    pub(super) fn output_names(&self) -> BTreeMap<String, String> {
        let outputs = self.outputs.iter();
        outputs
            .map(|(name, path)| (name.clone(), self.name(path).to_owned()))
            .collect()
    }

    /// Whether something below the store is in what it reads.
    pub(super) fn reads(&self, path: &str) -> bool {
        let name = in_store(path).and_then(|inside| inside.split('/').next());
        name.is_some_and(|name| self.input_paths.iter().any(|path| self.name(path) == name))
    }

    /// Whether its result is known before: it may use the network then, and is never lent.
    pub(super) fn is_fixed(&self) -> bool {
        if self.env.contains_key("outputHash") {
            return true;
        }
        let file = File::open(self.tmp_dir.join(ATTRIBUTES));
        let Ok(file) = file else {
            return false;
        };
        let read = serde_json::from_reader::<_, serde_json::Value>(io::BufReader::new(
            file.take(ATTRIBUTES_BYTES_MAX),
        ));
        // What can't be read is taken for what needs more.
        read.map_or(true, |attributes| attributes.get("outputHash").is_some())
    }

    /// What it needs of a machine beyond its kind.
    pub(super) fn features(&self) -> &str {
        let named = self.env.get("requiredSystemFeatures");
        named.map_or("", |named| named.trim())
    }

    /// Why it isn't brought to lent PCs, if it isn't.
    pub(super) fn why_not_lent(&self, settings: &NixSettings) -> Option<String> {
        if !matches!(settings.sensitivity.as_deref(), Some("public" | "internal")) {
            return Some(
                "builds of this machine are secret, as its settings have no `sensitivity`"
                    .to_owned(),
            );
        }
        if self.store_dir != STORE || self.tmp_dir_in_sandbox != BUILD_FOLDER {
            return Some(format!(
                "only builds in {STORE} and {BUILD_FOLDER} are lent"
            ));
        }
        if self.is_fixed() {
            return Some("its result is fixed, and what makes it may use the network".to_owned());
        }
        if !self.features().is_empty() {
            return Some(format!("it needs {}", self.features()));
        }
        if self.input_paths.len() > PATHS_MAX {
            return Some(format!("it reads more than {PATHS_MAX} store paths"));
        }
        match self.reads(&self.builder) {
            true => None,
            false => Some(format!(
                "its builder {} is none of its inputs",
                self.builder
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Nix 2.34.8 writes it.
    const REQUEST: &str = r#"{"args":["-c","echo hi > $out"],"builder":"/nix/store/m90kwfahv5nkg2dgl8hqm6g54mzgng74-bash","env":{"NIX_BUILD_TOP":"/build","out":"/nix/store/pk0n059cxqsyllnn70c58snwlk8b2w2f-one"},"inputPaths":["/nix/store/m90kwfahv5nkg2dgl8hqm6g54mzgng74-bash"],"outputs":{"out":"/nix/store/pk0n059cxqsyllnn70c58snwlk8b2w2f-one"},"realStoreDir":"/nix/store","storeDir":"/nix/store","system":"x86_64-linux","tmpDir":"/absent/build","tmpDirInSandbox":"/build","topTmpDir":"/absent","version":1}"#;

    fn settings(sensitivity: Option<&str>) -> NixSettings {
        let mut settings: NixSettings = serde_json::from_str(
            r#"{ "version": 1, "natsUrl": "tls://nats:4222", "keyFile": "/k", "submitter": "ci", "tenant": "research",
            "limits": { "cpu_percent": 100, "memory_mb": 512, "disk_mb": 512, "wall_s": 600 } }"#,
        )
        .unwrap();
        settings.sensitivity = sensitivity.map(str::to_owned);
        settings
    }

    #[test]
    fn what_isn_t_lent_has_its_reason() {
        let why = |from: &str, to: &str, sensitivity| {
            let request = NixRequest::parse(&REQUEST.replace(from, to)).unwrap();
            request.why_not_lent(&settings(sensitivity))
        };
        assert_eq!(why("", "", Some("public")), None);
        let all = [
            why("", "", None),
            why("\"/build\"", "\"/elsewhere\"", Some("public")),
            why(
                "{\"NIX_BUILD_TOP\"",
                "{\"outputHash\":\"x\",\"NIX_BUILD_TOP\"",
                Some("public"),
            ),
            why(
                "{\"NIX_BUILD_TOP\"",
                "{\"requiredSystemFeatures\":\"kvm\",\"NIX_BUILD_TOP\"",
                Some("internal"),
            ),
            why(
                "\"builder\":\"/nix/store/m90kwfahv5nkg2dgl8hqm6g54mzgng74-bash\"",
                "\"builder\":\"/bin/sh\"",
                Some("public"),
            ),
        ];
        insta::assert_debug_snapshot!(all);
    }

    #[test]
    fn what_isn_t_nix_is_refused() {
        let error =
            |from: &str, to: &str| NixRequest::parse(&REQUEST.replace(from, to)).unwrap_err();
        assert!(error("\"version\":1", "\"version\":2").contains("version 2"));
        assert!(error("/absent/build", "build").contains("isn't absolute"));
        assert!(error("-one\"}", "-one/../x\"}").contains("no path of /nix/store"));
        assert!(NixRequest::parse("{}").is_err());
    }
}
