//! The system packages that the tasks need, installed from the distribution when missing.

use std::path::{Path, PathBuf};

use crate::run::{Failed, Step, cache_dir, which};

/// What the packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Building, and the virtual rack.
    Try,
    /// The tests' peers too.
    Test,
    /// The benchmarks' peers too.
    Bench,
}

/// A package, and the file that shows that it is there.
struct Package {
    name: &'static str,
    proof: Proof,
    need: Need,
    why: &'static str,
}

enum Proof {
    Program(&'static str),
    AnyFile(&'static [&'static str]),
}

const PACKAGES: &[Package] = &[
    program(
        "gcc",
        "cc",
        Need::Try,
        "compiles the SQLite that is built in",
    ),
    program(
        "libc6-dev",
        "cc",
        Need::Try,
        "the C library's headers for it",
    ),
    program(
        "qemu-system-x86",
        "qemu-system-x86_64",
        Need::Try,
        "the rack's machines",
    ),
    Package {
        name: "ovmf",
        proof: Proof::AnyFile(&[
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_CODE.fd",
        ]),
        need: Need::Try,
        why: "their UEFI firmware",
    },
    program("nix-bin", "nix", Need::Try, "builds and copies closures"),
    program("iproute2", "ip", Need::Try, "the rack's network"),
    program(
        "openssh-client",
        "ssh",
        Need::Try,
        "every connection to a machine",
    ),
    program("util-linux", "unshare", Need::Try, "namespaces"),
    program("zstd", "zstd", Need::Try, "compresses initial ramdisks"),
    program(
        "patchelf",
        "patchelf",
        Need::Try,
        "makes Debian's programs into store objects",
    ),
    program("kmod", "depmod", Need::Try, "orders kernel modules"),
    program(
        "git",
        "git",
        Need::Test,
        "repositories that track what they shouldn't",
    ),
    program(
        "qemu-system-arm",
        "qemu-system-aarch64",
        Need::Test,
        "the arm64 machine",
    ),
    Package {
        name: "qemu-efi-aarch64",
        proof: Proof::AnyFile(&["/usr/share/AAVMF/AAVMF_CODE.fd"]),
        need: Need::Test,
        why: "its UEFI firmware",
    },
    program("sway", "sway", Need::Test, "a compositor, without a screen"),
    program("wtype", "wtype", Need::Test, "presses keys there"),
    program("xvfb", "Xvfb", Need::Test, "an X server without a screen"),
    program("xdotool", "xdotool", Need::Test, "presses keys there"),
    program(
        "util-linux",
        "setpriv",
        Need::Test,
        "a compositor as nobody",
    ),
    program(
        "dnsmasq-base",
        "dnsmasq",
        Need::Test,
        "the DHCP server beside our proxy",
    ),
    program(
        "isc-dhcp-relay",
        "dhcrelay",
        Need::Test,
        "the DHCP relay before our server",
    ),
    program(
        "curl",
        "curl",
        Need::Test,
        "an HTTP and TFTP client as a peer",
    ),
    program("tftp-hpa", "tftp", Need::Test, "a TFTP client as a peer"),
    program(
        "jq",
        "jq",
        Need::Test,
        "what NixOS machines' scripts write JSON with",
    ),
    program(
        "shellcheck",
        "shellcheck",
        Need::Test,
        "reads those scripts",
    ),
    program(
        "bubblewrap",
        "bwrap",
        Need::Test,
        "the sandboxes of lent jobs",
    ),
    program(
        "age",
        "age",
        Need::Test,
        "what servers encrypt their snapshots of etcd with",
    ),
    program(
        "adb",
        "adb",
        Need::Test,
        "the server that a phone host's scripts ask",
    ),
    program(
        "lua5.1",
        "lua5.1",
        Need::Test,
        "runs the health checks that Argo CD is given",
    ),
    program(
        "gdisk",
        "sgdisk",
        Need::Test,
        "partitions image files in tests",
    ),
    program(
        "fdisk",
        "sfdisk",
        Need::Test,
        "writes partition tables of other kinds in tests",
    ),
    program(
        "dosfstools",
        "mkfs.vfat",
        Need::Test,
        "FAT file systems in tests",
    ),
    Package {
        name: "openssh-server",
        proof: Proof::AnyFile(&["/usr/sbin/sshd"]),
        need: Need::Test,
        why: "the SSH server that tests start and connect to",
    },
    program(
        "nodejs",
        "node",
        Need::Bench,
        "the worker to compare a lent PC's daemon with",
    ),
    program(
        "npm",
        "npm",
        Need::Bench,
        "brings that worker's NATS client",
    ),
    program(
        "mtools",
        "mcopy",
        Need::Test,
        "reads a machine's boot partition",
    ),
];

const fn program(name: &'static str, file: &'static str, need: Need, why: &'static str) -> Package {
    Package {
        name,
        proof: Proof::Program(file),
        need,
        why,
    }
}

/// Packages with services of their own. They are unpacked beside the project rather than
/// installed, so that nothing starts on the host.
const UNPACKED: &[(&str, &str, Need, &str)] = &[
    (
        "nginx",
        "usr/sbin/nginx",
        Need::Bench,
        "the HTTP server to compare with",
    ),
    (
        "docker-registry",
        "usr/bin/docker-registry",
        Need::Test,
        "a registry of charts and images as a peer",
    ),
];

impl Package {
    fn is_there(&self) -> bool {
        match self.proof {
            Proof::Program(name) => which(name).is_some(),
            Proof::AnyFile(files) => files.iter().any(|file| Path::new(file).exists()),
        }
    }
}

/// Installs what is missing, saying so, and returns the folders to put in front of PATH.
pub(crate) fn ensure(need: Need) -> Result<Vec<PathBuf>, Failed> {
    install(|package| package.need <= need, |unpacked| unpacked <= need)
}

/// Installs those of these names that are missing.
pub(crate) fn ensure_named(names: &[&str]) -> Result<(), Failed> {
    install(|package| names.contains(&package.name), |_| false).map(drop)
}

fn install(
    is_wanted: impl Fn(&Package) -> bool,
    is_unpacked: impl Fn(Need) -> bool,
) -> Result<Vec<PathBuf>, Failed> {
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|p| is_wanted(p) && !p.is_there())
        .collect();
    let unpacked: Vec<_> = UNPACKED
        .iter()
        .filter(|(_, _, n, _)| is_unpacked(*n))
        .collect();
    let folder = cache_dir().join("tools");
    let to_unpack: Vec<_> = unpacked
        .iter()
        .filter(|(_, file, ..)| {
            let name = file.rsplit('/').next().unwrap_or(file);
            which(name).is_none() && !folder.join(file).exists()
        })
        .collect();
    let folders = vec![folder.join("usr/sbin"), folder.join("usr/bin")];
    if missing.is_empty() && to_unpack.is_empty() {
        return Ok(folders);
    }
    for package in &missing {
        eprintln!("missing: {:<18} {}", package.name, package.why);
    }
    for (name, _, _, why) in &to_unpack {
        eprintln!("missing: {name:<18} {why} (unpacked under .cache, not installed)");
    }
    if std::env::var_os("UNDERCROFT_NO_INSTALL").is_some() {
        eprintln!("UNDERCROFT_NO_INSTALL is set: not installing; what needs them is skipped");
        return Ok(folders);
    }
    if which("apt-get").is_none() {
        return Err(Failed::new(
            "packages",
            "there is no apt-get here: install the packages above by your system's own means, or \
             set UNDERCROFT_NO_INSTALL=1 to go on without them",
        ));
    }
    let begin = as_root()?;
    apt(&begin, &["update", "--quiet"])?;
    if missing.iter().any(|p| p.name == "openssh-server") {
        keep_ssh_server_off(&begin)?;
    }
    if !missing.is_empty() {
        let mut words = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        words.extend(missing.iter().map(|p| p.name));
        apt(&begin, &words)?;
    }
    for (name, ..) in to_unpack {
        unpack(name, &folder)?;
    }
    Ok(folders)
}

/// The words that make a command root's: none for root, sudo for another who has it.
fn as_root() -> Result<Vec<String>, Failed> {
    let uid = Step::new("who am I", "id").args(["-u"]).output()?;
    if uid.trim() == "0" {
        Ok(Vec::new())
    } else if which("sudo").is_some() {
        Ok(vec!["sudo".to_owned()])
    } else {
        Err(Failed::new(
            "packages",
            "installing packages needs root, and there is no sudo: install the packages above as \
             root, or set UNDERCROFT_NO_INSTALL=1 to go on without them",
        ))
    }
}

/// Installing Debian's SSH server starts it. Nobody who runs tests has asked for that, so its units
/// are masked first; where systemd doesn't run, nothing would start it.
fn keep_ssh_server_off(begin: &[String]) -> Result<(), Failed> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    eprintln!(
        "masking ssh.service and ssh.socket, so that the SSH server isn't started; undo it with \
         `systemctl unmask ssh.service ssh.socket`"
    );
    as_given(begin, &["systemctl", "mask", "ssh.service", "ssh.socket"])
}

fn as_given(begin: &[String], words: &[&str]) -> Result<(), Failed> {
    let mut all: Vec<String> = begin.to_vec();
    all.extend(words.iter().map(|word| (*word).to_owned()));
    let (program, rest) = all
        .split_first()
        .ok_or_else(|| Failed::new("packages", "an empty command"))?;
    Step::new("system packages", program)
        .args(rest)
        .interactive()
        .run()
}

fn apt(begin: &[String], words: &[&str]) -> Result<(), Failed> {
    let mut all = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    all.extend(words);
    as_given(begin, &all)
}

/// Downloads a package, which apt checks against the archive's signature, and unpacks it.
fn unpack(name: &str, folder: &Path) -> Result<(), Failed> {
    let downloads = cache_dir().join("tools-debs");
    for path in [folder, &downloads] {
        std::fs::create_dir_all(path)
            .map_err(|e| Failed::new("packages", format!("{}: {e}", path.display())))?;
    }
    let script = "cd \"$1\" && apt-get download --quiet \"$2\" && dpkg -x \"$2\"_*.deb \"$3\"";
    Step::new(&format!("unpack {name}"), "sh")
        .args(["-c", script, "sh"])
        .args([downloads.as_os_str(), name.as_ref(), folder.as_os_str()])
        .run()
}
