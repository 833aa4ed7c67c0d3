//! What is said between this crate and `undercroft-job`, which runs inside the sandbox.
//!
//! The order comes through standard input, a socket, whose writing half is closed after it. The answers go back the
//! same way, a line of JSON each. A job never has that socket: `undercroft-job` gives it up before it becomes the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::FileDigest;

/// Which order this is. Another isn't read.
pub const ORDER_VERSION: u32 = 1;
/// The longest order, in bytes.
pub const ORDER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The longest line that is answered, in bytes.
pub const WORD_BYTES_MAX: usize = 16 * 1024;

/// Where the program is.
pub const PROGRAM: &str = "/job/program";
/// Where the inputs are.
pub const INPUTS: &str = "/in";
/// Where the output is written, as `result`.
pub const OUTPUT: &str = "/out";
/// The name of the file in [`OUTPUT`] that is taken.
pub const RESULT: &str = "result";
/// Where a job may write what it likes. It begins there.
pub const SCRATCH: &str = "/scratch";
/// Where a build of Nix finds its inputs, and leaves its outputs.
pub const STORE: &str = "/nix/store";
/// Where a build of Nix begins, and may write what it likes.
pub const BUILD: &str = "/build";
/// Where a build of Nix may write, too.
pub const TEMPORARY: &str = "/tmp";
/// Memory that a build's processes share.
pub const SHARED_MEMORY: &str = "/dev/shm";
/// Whom a build takes itself for, and that there is a `localhost`.
pub const ETC: &str = "/etc";
/// Where `undercroft-job` and its libraries are.
pub const OWN: &str = "/undercroft";

/// The first argument of `undercroft-job` outside the sandbox: it joins groups, then becomes the command after `--`.
pub const ENTER: &str = "enter";
/// The first argument of `undercroft-job` inside the sandbox: it reads an order.
pub const OBEY: &str = "obey";
/// The first argument of `undercroft-job` when it is to print which files of this machine it is made of.
pub const NEEDS: &str = "needs";
/// An option of [`ENTER`]: the `cgroup.procs` of a group that is joined. May be given several times.
pub const GROUP: &str = "--group";

/// What is to be done inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Becomes the program.
    Exec,
    /// Runs the program as a WebAssembly component.
    Component {
        /// The largest memory of the component, in bytes.
        memory_bytes: u64,
    },
    /// Becomes the builder of a Nix derivation.
    Build {
        /// Which, below [`STORE`].
        builder: String,
        /// All of its environment.
        environment: BTreeMap<String, String>,
    },
    /// Confines itself, says how, and ends.
    Probe,
}

/// A file and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// The file, inside.
    pub file: String,
    /// Its digest.
    pub digest: FileDigest,
}

/// What `undercroft-job` is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOrder {
    /// [`ORDER_VERSION`].
    pub version: u32,
    /// What.
    pub task: Task,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// What is compared on the opened file that is then run.
    pub program: Option<FileDigest>,
    /// What is compared before.
    pub inputs: Vec<Checked>,
    /// The least version of Landlock.
    pub landlock_abi_min: u32,
    /// Files that may be open.
    pub open_files: u64,
    /// The largest file that may be written, in bytes.
    pub file_bytes: u64,
}

/// What `undercroft-job` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Word {
    /// It is confined, and becomes the job now, or runs it.
    Begins {
        /// The version of Landlock that holds it; 0 for none.
        landlock_abi: u32,
    },
    /// It does not become the job.
    Refused {
        /// Why, as a sentence.
        why: String,
    },
    /// It does not become the job, and would not on another machine either.
    Unfit {
        /// Why, as a sentence.
        why: String,
    },
    /// A component has ended otherwise than by its own word.
    Trapped {
        /// Why.
        why: String,
    },
}

/// Which files of this machine `undercroft-job` is made of, itself not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// [`ORDER_VERSION`], of the program.
    pub version: u32,
    /// The dynamic loader; `None` for a static program.
    pub loader: Option<String>,
    /// The libraries.
    pub libraries: Vec<String>,
}
