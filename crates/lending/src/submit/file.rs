//! A job as a person writes it down: a TOML file that names files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use undercroft_lend::{
    DeviceClass, Digest, Feature, JobId, Tenant,
    job::{ARGUMENTS_MAX, INPUTS_MAX, Limits, Runtime, SUBMISSION_BYTES_MAX, Submission},
};

/// The largest file of a job, in bytes: it is sent as one message.
pub const JOB_FILE_BYTES_MAX: u64 = SUBMISSION_BYTES_MAX as u64;

/// A job's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The job's name: the same twice is the same job.
    pub id: JobId,
    /// For whom.
    pub tenant: Tenant,
    /// What it runs in: `wasm`, `process`, `nix`.
    pub runtime: Runtime,
    /// The file that is run.
    pub artefact: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The files that it reads, by the names that they have there.
    #[serde(default)]
    pub inputs: BTreeMap<String, PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// `public` or `internal`.
    pub sensitivity: Option<String>,
    /// Which kind of device.
    pub class: Option<DeviceClass>,
    /// What the device must have.
    #[serde(default)]
    pub needs: BTreeSet<Feature>,
    /// Times that it may be started.
    pub attempts: Option<u32>,
    /// Seconds of work that are lost when it is killed.
    pub loss_s: Option<u32>,
    /// How many of a hundred such jobs another owner's device runs again, before their results count.
    pub rerun_percent: Option<u32>,
}

/// Why a file is no job's.
#[derive(Debug, thiserror::Error)]
pub enum BadJobFile {
    /// It is too large.
    #[error("a job's file has at most {SUBMISSION_BYTES_MAX} bytes, and this has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It isn't a job.
    #[error("{}", .0.to_string().trim_end())]
    Malformed(#[from] toml::de::Error),
    /// It names too much.
    #[error("it has {found} {what}, and may have {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many may be.
        max: usize,
    },
}

impl JobFile {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self, BadJobFile> {
        if text.len() > SUBMISSION_BYTES_MAX {
            return Err(BadJobFile::TooLarge { bytes: text.len() });
        }
        let file: Self = toml::from_str(text)?;
        for (what, found, max) in [
            ("arguments", file.arguments.len(), ARGUMENTS_MAX),
            ("inputs", file.inputs.len(), INPUTS_MAX),
        ] {
            if found > max {
                return Err(BadJobFile::TooMany { what, found, max });
            }
        }
        Ok(file)
    }

    /// The files that it needs: what is run, and then the inputs by name.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let inputs = self.inputs.values().map(PathBuf::as_path);
        std::iter::once(self.artefact.as_path()).chain(inputs)
    }

    /// What is sent, with the digests of [`Self::paths`].
    pub(super) fn submission(&self, digests: &mut impl Iterator<Item = Digest>) -> Submission {
        let mut next = || digests.next().unwrap_or_else(|| Digest::of(b""));
        Submission {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            runtime: self.runtime,
            class: self.class.clone(),
            artefact: next(),
            arguments: self.arguments.clone(),
            inputs: self
                .inputs
                .keys()
                .map(|name| (name.clone(), next()))
                .collect(),
            limits: self.limits.clone(),
            needs: self.needs.clone(),
            sensitivity: self.sensitivity.clone(),
            attempts: self.attempts,
            loss_s: self.loss_s,
            rerun_percent: self.rerun_percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
id = "render-1"
tenant = "research"
runtime = "process"
artefact = "render"
arguments = ["--frames", "1-10"]
sensitivity = "public"
[inputs]
scene = "scene.blend"
[limits]
cpu_percent = 100
memory_mb = 512
disk_mb = 256
wall_s = 600
"#;

    #[test]
    fn a_file_names_files_and_becomes_a_submission() {
        let file = JobFile::read(WHOLE).unwrap();
        let paths: Vec<&Path> = file.paths().collect();
        assert_eq!(paths, [Path::new("render"), Path::new("scene.blend")]);
        let mut digests = [Digest::of(b"r"), Digest::of(b"s")].into_iter();
        let submission = file.submission(&mut digests);
        assert_eq!(submission.artefact, Digest::of(b"r"));
        assert_eq!(submission.inputs["scene"], Digest::of(b"s"));
    }

    #[test]
    fn what_is_no_job_is_refused_with_its_place() {
        let error = |from: &str, to: &str| {
            let text = WHOLE.replace(from, to);
            JobFile::read(&text).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            [
                error("runtime = \"process\"", "runtime = \"oci\""),
                error("wall_s = 600", ""),
                error("wall_s", "wall_m"),
                error("\"render-1\"", "\"Render 1\""),
                error("memory_mb = 512", "memory_mb = -1"),
            ]
            .join("\n---\n")
        );
        let many = format!("arguments = [{}]", "\"a\",".repeat(257));
        assert_eq!(
            error("arguments = [\"--frames\", \"1-10\"]", &many),
            "it has 257 arguments, and may have 256"
        );
        let large = " ".repeat(SUBMISSION_BYTES_MAX + 1);
        assert!(matches!(
            JobFile::read(&large),
            Err(BadJobFile::TooLarge { .. })
        ));
    }
}
