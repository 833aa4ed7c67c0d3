//! The build of a Nix derivation, as a sandbox sees it.
//!
//! It needs no Nix: a builder is a program whose inputs lie at their places in the store, which begins in a folder of its
//! own with the environment that it was given, and leaves its outputs at their places. What Nix' own sandbox shows
//! beside that is in `src/libstore/linux/build/linux-derivation-builder.cc` of Nix: a few devices, shared memory, and an
//! `/etc` with three files. No terminals are among it here.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use undercroft_nar::ArchiveLimits;

use crate::{
    Bounds, DiskBound, FileDigest, SandboxError, TakenOutput,
    order::{BUILD, STORE},
};

/// Store paths of one build, at most: each is a mount, and bubblewrap takes 9,000 words.
const PATHS_MAX: usize = 2_500;
/// Whom a builder takes itself for, as in Nix' own sandbox: its user and its group.
pub(crate) const USER: &str = "1000";
/// See [`USER`].
pub(crate) const GROUP: &str = "100";
/// The file in a job's folder that its outputs are packed into.
const PACKED: &str = "packed";

/// A store path that a build reads.
#[derive(Debug, Clone)]
pub struct StorePath {
    /// Its name in the store.
    pub name: String,
    /// Where it lies, absolute. It isn't changed while the job runs.
    pub tree: PathBuf,
}

/// What is built.
#[derive(Debug, Clone)]
pub struct BuilderSpec {
    /// What is run: a path below `/nix/store`.
    pub program: String,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// What it reads. The caller knows what they are.
    pub paths: Vec<StorePath>,
    /// An archive of what its folder begins with, as `build`.
    pub files: Option<PathBuf>,
    /// What it makes: names, and names in the store.
    pub outputs: BTreeMap<String, String>,
    /// What `/bin/sh` is, below `/nix/store`.
    pub shell: Option<String>,
}

impl BuilderSpec {
    pub(crate) fn check(&self, disk: DiskBound) -> Result<(), SandboxError> {
        let refuse = |why: String| Err(SandboxError::Spec { why });
        if self.paths.len() > PATHS_MAX {
            return refuse(format!("more than {PATHS_MAX} store paths to read"));
        }
        let names = self.paths.iter().map(|path| &path.name);
        if let Some(name) = names.chain(self.outputs.values()).find(|n| !is_plain(n)) {
            return refuse(format!("{name:?} is no name in the store"));
        }
        let is_inside = |path: &&String| path.starts_with(STORE) && !path.contains("/../");
        let mut programs = [&self.program].into_iter().chain(&self.shell);
        if let Some(program) = programs.find(|path| !is_inside(path)) {
            return refuse(format!("{program} isn't below {STORE}"));
        }
        match disk {
            DiskBound::Watched { .. } => Ok(()),
            DiskBound::InMemory { .. } => refuse("a build's files lie on the disk".to_owned()),
        }
    }

    /// All files of this machine that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let trees = self.paths.iter().map(|path| &path.tree);
        trees.chain(&self.files)
    }

    /// Makes what a build begins with, in a job's folder.
    pub(crate) fn prepare(&self, folder: &Path, bounds: &Bounds) -> Result<(), SandboxError> {
        let make = |name: &str| {
            let path = folder.join(name);
            fs::create_dir(&path).map_err(SandboxError::file("make", path))
        };
        let scratch = folder.join("scratch");
        for name in ["scratch/build", "scratch/tmp", "etc"] {
            make(name)?;
        }
        // As Nix writes them.
        for (name, text) in [
            (
                "passwd",
                format!(
                    "root:x:0:0:Nix build user:{BUILD}:/noshell\nnixbld:x:{USER}:{GROUP}:Nix build user:{BUILD}:/noshell\nnobody:x:65534:65534:Nobody:/:/noshell\n"
                ),
            ),
            (
                "group",
                format!("root:x:0:\nnixbld:!:{GROUP}:\nnogroup:x:65534:\n"),
            ),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ] {
            let path = folder.join("etc").join(name);
            fs::write(&path, text).map_err(SandboxError::file("write", path))?;
        }
        let Some(archive) = &self.files else {
            return Ok(());
        };
        let mut file = File::open(archive).map_err(SandboxError::file("open", archive))?;
        let place = |name: &str| (name == "build").then(|| "files".to_owned());
        undercroft_nar::unpack(&mut file, &scratch, limits(bounds), &place).map_err(|error| {
            SandboxError::Spec {
                why: format!("what it begins with can't be unpacked: {error}"),
            }
        })?;
        self.take_over(&scratch)
    }

    /// The files that it begins with are its own: it may change them.
    fn take_over(&self, scratch: &Path) -> Result<(), SandboxError> {
        let (from, to) = (scratch.join("files"), scratch.join("build"));
        fs::remove_dir(&to).map_err(SandboxError::file("remove", &to))?;
        fs::rename(&from, &to).map_err(SandboxError::file("move", from))
    }
}

/// How large what a build reads or makes may be.
fn limits(bounds: &Bounds) -> ArchiveLimits {
    let entries = match bounds.disk {
        DiskBound::Watched { files, .. } => files.into(),
        DiskBound::InMemory { .. } => 0,
    };
    ArchiveLimits {
        bytes: bounds.output_bytes,
        entries,
    }
}

/// Packs all outputs into one archive. No process of the job is left, so nobody changes them any more.
pub(crate) fn take(
    folder: &Path,
    outputs: &BTreeMap<String, String>,
    bounds: &Bounds,
) -> Result<TakenOutput, SandboxError> {
    let path = folder.join(PACKED);
    let failed = |tried| SandboxError::file(tried, &path);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("make"))?;
    let mut to = std::io::BufWriter::new(file);
    undercroft_nar::pack(&folder.join("out"), outputs, limits(bounds), &mut to).map_err(
        |error| SandboxError::Output {
            why: error.to_string(),
        },
    )?;
    to.flush().map_err(failed("write"))?;
    drop(to);
    let file = File::open(&path).map_err(failed("open"))?;
    let (digest, bytes) = FileDigest::of(&file, u64::MAX).map_err(failed("read"))?;
    if bytes > bounds.output_bytes {
        return Err(SandboxError::Output {
            why: format!(
                "its outputs have {bytes} bytes together, and at most {} are taken",
                bounds.output_bytes
            ),
        });
    }
    let file = File::open(&path).map_err(failed("open"))?;
    Ok(TakenOutput {
        file,
        bytes,
        digest,
    })
}

fn is_plain(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.len() <= 255 && name.bytes().all(is_letter)
}
