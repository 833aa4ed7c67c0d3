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
    job::Job,
    wire::Holding,
};
use undercroft_sandbox::{BuilderSpec, StorePath};

use super::content::{Content, Using};
use crate::bus::Bus;

/// A build that can begin.
pub(super) struct Ready {
    pub(super) spec: BuilderSpec,
    pub(super) arguments: Vec<String>,
    /// What it reads stays as long as this does.
    pub(super) using: Using,
    /// How many bytes came for it.
    pub(super) bytes: u64,
}

/// What is built, when all that it reads is here.
pub(super) async fn builder(
    job: &Job,
    holding: &Holding,
    content: &Content,
    bus: &Bus,
    in_use: &BTreeSet<Digest>,
) -> Result<Ready, String> {
    let words = |error: super::content::ContentError| error.to_string();
    let (file, mut bytes) = content
        .have(bus, holding, job.artefact, in_use)
        .await
        .map_err(words)?;
    let build = read(&file, job.artefact)?;
    let here = format!("{}-linux", std::env::consts::ARCH);
    if build.system != here {
        return Err(format!(
            "it is built on {}, and this is {here}",
            build.system
        ));
    }
    let mut trees: BTreeMap<&String, PathBuf> = BTreeMap::new();
    let mut files = None;
    let mut using = content.using();
    for (name, digest) in &job.inputs {
        if name == FILES_INPUT {
            let (file, more) = content
                .have(bus, holding, *digest, in_use)
                .await
                .map_err(words)?;
            bytes += more;
            files = Some(file);
            continue;
        }
        let inside = build.paths.iter().filter(|(_, input)| *input == name);
        let inside: BTreeSet<String> = inside.map(|(path, _)| path.clone()).collect();
        let (tree, more) = content
            .have_tree(bus, holding, *digest, in_use, inside, &mut using)
            .await
            .map_err(words)?;
        bytes += more;
        trees.insert(name, tree);
    }
    let mut paths = Vec::new();
    for (name, input) in &build.paths {
        let tree = trees.get(input).map(|tree| tree.join(name));
        let tree = tree.filter(|tree| tree.symlink_metadata().is_ok());
        let tree = tree.ok_or_else(|| format!("the input {input} has no {name}"))?;
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
        using,
        bytes,
    })
}

/// Reads what is to be built, whole, and compares what was read.
fn read(file: &Path, digest: Digest) -> Result<Build, String> {
    let failed = |error: std::io::Error| format!("can't read {}: {error}", file.display());
    let mut bytes = Vec::new();
    let limit = u64::try_from(BUILD_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(file)
        .map_err(failed)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if Digest::of(&bytes) != digest {
        return Err(format!("{} isn't {digest} any more", file.display()));
    }
    Build::read(&bytes).map_err(|error| error.to_string())
}
