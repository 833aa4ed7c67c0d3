//! What a site has to boot machines with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use undercroft_model::System;

use crate::arch::IpxeBinary;

/// Kernel, initial RAM disk and parameters of an installer, by the names they are served under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedInstaller {
    /// The kernel's name under `/artifacts/`.
    pub kernel: String,
    /// The initial RAM disk's name under `/artifacts/`.
    pub initrd: String,
    /// Kernel parameters for every machine of this system.
    pub params: Vec<String>,
}

/// What this site can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The server's address on the boot network.
    pub address: Ipv4Addr,
    /// The HTTP server's port.
    pub http_port: u16,
    /// The installer of each system.
    pub installers: BTreeMap<System, ServedInstaller>,
    /// The iPXE builds that are served.
    pub ipxe: BTreeSet<IpxeBinary>,
    /// The names of all files that are served; those of a Raspberry Pi begin with `pi/`.
    pub artifacts: BTreeSet<String>,
}

impl Site {
    /// Whether a Raspberry Pi's boot ROM would find something: without its `config.txt` it starts
    /// nothing.
    pub fn has_pi_files(&self) -> bool {
        self.artifacts.contains(&format!("{PI_FOLDER}/config.txt"))
    }

    /// The URL of a path on our HTTP server; the path has no leading slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}/{path}", self.address, self.http_port)
    }
}

/// The folder of TFTP and HTTP names that hold the Raspberry Pi's boot files.
pub const PI_FOLDER: &str = "pi";

/// Whether a kernel parameter can stand in a script: one word, no control characters, and none of
/// iPXE's own `${` expansions.
pub fn is_plain_param(param: &str) -> bool {
    !param.is_empty()
        && !param.contains("${")
        && param.chars().all(|c| !c.is_whitespace() && !c.is_control())
        && !matches!(param, "||" | "&&")
}
