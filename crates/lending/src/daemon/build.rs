//! The build of a Nix derivation on a lent PC: what it reads is unpacked once, and kept by its digest for the next.
//!
//! No Nix is needed. A daemon of Nix would build in control groups of its own, which the owner's word doesn't reach within
//! its bound; so the builder runs as any other job does, with its inputs at their places.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use undercroft_lend::{
    Digest,
    build::{BUILD_BYTES_MAX, Build, FILES_INPUT},
    device::Hindrance,
    job::Job,
    wire::Holding,
};
use undercroft_sandbox::{BuilderSpec, StorePath};

use super::{content::Content, unbegun::NotBegun};
use crate::bus::Bus;

/// A build that can begin.
pub(super) struct Ready {
    pub(super) spec: BuilderSpec,
    pub(super) arguments: Vec<String>,
    /// How many bytes came for it.
    pub(super) bytes: u64,
}

/// What is built, when all that it reads is here.
pub(super) async fn builder(
    job: &Job,
    holding: &Holding,
    content: &Content,
    bus: &Bus,
) -> Result<Ready, NotBegun> {
    let (file, mut bytes) = content.have(bus, holding, job.artefact).await?;
    let build = match read(&file, job.artefact)? {
        Some(build) => build,
        None => {
            content.fetch_anew(job);
            let why = format!("{} isn't {} any more", file.display(), job.artefact);
            return Err(NotBegun::Returned(why, Hindrance::Device));
        }
    };
    let here = format!("{}-linux", std::env::consts::ARCH);
    if build.system != here {
        let why = format!("it is built on {}, and this is {here}", build.system);
        return Err(NotBegun::Returned(why, Hindrance::Fit));
    }
    let mut trees: BTreeMap<&String, PathBuf> = BTreeMap::new();
    let mut files = None;
    for (name, digest) in &job.inputs {
        if name == FILES_INPUT {
            let (file, more) = content.have(bus, holding, *digest).await?;
            bytes += more;
            files = Some(file);
            continue;
        }
        let inside = build.paths.iter().filter(|(_, input)| *input == name);
        let inside: BTreeSet<String> = inside.map(|(path, _)| path.clone()).collect();
        let (tree, more) = content.have_tree(bus, holding, *digest, inside).await?;
        bytes += more;
        trees.insert(name, tree);
    }
    let mut paths = Vec::new();
    for (name, input) in &build.paths {
        let tree = trees.get(input).map(|tree| tree.join(name));
        let tree = tree.filter(|tree| tree.symlink_metadata().is_ok());
        let without = || NotBegun::Failed(format!("the input {input} has no {name}"));
        let tree = tree.ok_or_else(without)?;
        paths.push(StorePath {
            name: name.clone(),
            tree,
        });
    }
    let spec = BuilderSpec {
        program: build.builder,
        environment: build.environment,
        paths,
        files,
        outputs: build.outputs,
        shell: build.shell,
    };
    Ok(Ready {
        spec,
        arguments: build.arguments,
        bytes,
    })
}

/// Reads what is to be built, whole, and compares what was read; `None` where it is another by now.
fn read(file: &Path, digest: Digest) -> Result<Option<Build>, NotBegun> {
    let failed = |error: std::io::Error| {
        let why = format!("can't read {}: {error}", file.display());
        NotBegun::Returned(why, Hindrance::Device)
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(BUILD_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(file)
        .map_err(failed)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if Digest::of(&bytes) != digest {
        // More than is read at most is the job's own fault, and what is read of it can't be understood.
        let is_cut = bytes.len() > BUILD_BYTES_MAX;
        let why = format!("what is to be built has more than {BUILD_BYTES_MAX} bytes");
        return if is_cut {
            Err(NotBegun::Failed(why))
        } else {
            Ok(None)
        };
    }
    let build = Build::read(&bytes).map_err(|error| NotBegun::Failed(error.to_string()))?;
    Ok(Some(build))
}
