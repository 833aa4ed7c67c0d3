//! `cargo xtask peers`: the programs of others that tests hold Undercroft against, built from their
//! own source by Go and kept in the cache.
//!
//! No distribution that we know has them all at versions that work together, so that they are
//! built: each in `peers/NAME-VERSION/NAME` of the cache, beside a `SHA256SUMS` that is checked
//! before a program counts as there. The versions are pinned here; Go takes the modules from where
//! its own settings say, and checks them against its checksum database.
//!
//! The programs around Kubernetes are built in one made-up module that has all of them as
//! dependencies: `k8s.io/kubernetes` names its own parts by `replace` lines, which only count in
//! the module that is built, and what they share is compiled once.
//!
//! One program is of our own source: see [`own`]; and some come from Debian's packages: see [`debian`].

mod debian;
mod files;
mod own;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use files::{failed, make_dir, sum_line, write};

use crate::run::{Failed, Step, cache_dir, which};

/// The version of Kubernetes that tests run.
const KUBERNETES: &str = "1.34.4";

/// The modules that `k8s.io/kubernetes` has in its own repository, all published as v0.MINOR.PATCH.
const STAGING: &[&str] = &[
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "sample-cli-plugin",
    "sample-controller",
];

/// Argo CD's release, and the modules that it has in its own repository or pins by `replace` lines,
/// as its go.mod says. Its sync engine is a module without versions of its own: this is the commit
/// of the release.
const ARGO_CD: &str = "3.5.3";
const ARGO_CD_REPLACES: &[(&str, &str)] = &[
    (
        "github.com/argoproj/argo-cd/gitops-engine",
        "v0.0.0-20260914071520-c9c369efcc5b",
    ),
    ("github.com/golang/protobuf", "v1.5.4"),
    ("github.com/grpc-ecosystem/grpc-gateway", "v1.16.0"),
    ("golang.org/x/tools", "v0.35.0"),
    ("gopkg.in/yaml.v2", "v2.4.0"),
    ("gopkg.in/yaml.v3", "v3.0.1"),
    ("k8s.io/cri-streaming", ARGO_CD_KUBERNETES),
];
/// The version of Kubernetes' modules that this release of Argo CD is built with.
const ARGO_CD_KUBERNETES: &str = "v0.36.1";

/// A made-up module in which programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Sops,
    Kubernetes,
    Kwok,
    Nats,
    Headscale,
    ArgoCd,
    Prometheus,
}

/// A program to build.
struct Peer {
    name: &'static str,
    version: &'static str,
    module: &'static str,
    package: &'static str,
    group: Group,
    /// Whether `test` and `ci` build it by themselves. Helm is of use only with charts, which
    /// nothing here brings.
    for_tests: bool,
    why: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "sops",
        version: "3.13.3",
        module: "github.com/getsops/sops/v3",
        package: "github.com/getsops/sops/v3/cmd/sops",
        group: Group::Sops,
        for_tests: true,
        why: "reads the secrets that we write, and writes those that we read",
    },
    Peer {
        name: "etcd",
        version: "3.6.4",
        module: "go.etcd.io/etcd/server/v3",
        package: "go.etcd.io/etcd/server/v3",
        group: Group::Kubernetes,
        for_tests: true,
        why: "keeps what the API server is told",
    },
    Peer {
        name: "kube-apiserver",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        group: Group::Kubernetes,
        for_tests: true,
        why: "judges every manifest, and is what the bootstrap talks to",
    },
    Peer {
        // Most of what it is made of is the API server's, too.
        name: "kubeadm",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        package: "k8s.io/kubernetes/cmd/kubeadm",
        group: Group::Kubernetes,
        for_tests: true,
        why: "reads the files that machines give it, founds and joins",
    },
    Peer {
        // It takes more than a minute to build, for one test.
        name: "kube-controller-manager",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        group: Group::Kubernetes,
        for_tests: false,
        why: "signs what machines of a kubeadm cluster join by",
    },
    Peer {
        name: "kube-scheduler",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-scheduler",
        group: Group::Kubernetes,
        for_tests: false,
        why: "is waited for by kubeadm",
    },
    Peer {
        name: "etcdctl",
        version: "3.6.4",
        module: "go.etcd.io/etcd/etcdctl/v3",
        package: "go.etcd.io/etcd/etcdctl/v3",
        group: Group::Kubernetes,
        for_tests: true,
        why: "tells of etcd's members",
    },
    Peer {
        name: "kwok",
        version: "0.7.0",
        module: "sigs.k8s.io/kwok",
        package: "sigs.k8s.io/kwok/cmd/kwok",
        group: Group::Kwok,
        for_tests: true,
        why: "plays the kubelets",
    },
    Peer {
        name: "helm",
        version: "3.19.5",
        module: "helm.sh/helm/v3",
        package: "helm.sh/helm/v3/cmd/helm",
        group: Group::Kubernetes,
        for_tests: false,
        why: "renders the charts of the bootstrap",
    },
    Peer {
        name: "nats-server",
        version: "2.12.2",
        module: "github.com/nats-io/nats-server/v2",
        package: "github.com/nats-io/nats-server/v2",
        group: Group::Nats,
        for_tests: true,
        why: "reads the accounts that lent work is confined to",
    },
    Peer {
        // It takes minutes to build, for one test.
        name: "headscale",
        version: "0.29.2",
        module: "github.com/juanfont/headscale",
        package: "github.com/juanfont/headscale/cmd/headscale",
        group: Group::Headscale,
        for_tests: false,
        why: "reads the overlay's policy",
    },
    Peer {
        // Its module's versions are 0.3xx for releases 3.x. It takes minutes to build, for one test.
        name: "promtool",
        version: "0.305.0",
        module: "github.com/prometheus/prometheus",
        package: "github.com/prometheus/prometheus/cmd/promtool",
        group: Group::Prometheus,
        for_tests: false,
        why: "reads the rules over the controller's numbers, and tries them",
    },
    Peer {
        // All of Argo CD is this one program, which goes by the name that it is called by. It takes
        // long to build, too.
        name: "argocd",
        version: ARGO_CD,
        module: "github.com/argoproj/argo-cd/v3",
        package: "github.com/argoproj/argo-cd/v3/cmd",
        group: Group::ArgoCd,
        for_tests: false,
        why: "keeps a cluster by the rendered tree",
    },
];

/// The folder of the peers, for `UNDERCROFT_PEERS`.
pub(crate) fn folder() -> PathBuf {
    let cache = std::env::var_os("UNDERCROFT_CACHE_DIR").map(PathBuf::from);
    cache.unwrap_or_else(cache_dir).join("peers")
}

/// Builds the peers of these names, or all of them.
pub(crate) fn run(names: &[&str]) -> Result<(), Failed> {
    let unpacked = [debian::NIX, debian::SWAY];
    let others = unpacked.iter().map(|peer| peer.name).chain([own::NAME]);
    let known: Vec<&str> = PEERS.iter().map(|p| p.name).chain(others).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(failed(format!(
            "there is no peer {unknown}: there are {}",
            known.join(", ")
        )));
    }
    let wanted = |p: &&Peer| names.is_empty() || names.contains(&p.name);
    let peers: Vec<&Peer> = PEERS.iter().filter(wanted).collect();
    build(&folder(), &peers)?;
    for peer in &peers {
        println!("{}", peer.program(&folder()).display());
    }
    if names.is_empty() || names.contains(&own::NAME) {
        println!("{}", own::build(&folder())?.display());
    }
    for peer in unpacked {
        if names.is_empty() || names.contains(&peer.name) {
            println!("{}", peer.build(&folder())?.display());
        }
    }
    Ok(())
}

/// One peer's program, built if need be.
pub(crate) fn program(name: &str) -> Result<PathBuf, Failed> {
    let peer = PEERS.iter().find(|peer| peer.name == name);
    let peer = peer.ok_or_else(|| failed(format!("there is no peer {name}")))?;
    build(&folder(), &[peer])?;
    Ok(peer.program(&folder()))
}

/// What the tests need of the peers, as far as this machine can have it. What isn't there, or can't
/// be built, the tests that need it skip openly.
///
/// `UNDERCROFT_BUILD_PEERS=none` builds nothing.
pub(crate) fn for_tests() -> PathBuf {
    let folder = folder();
    let builds = std::env::var("UNDERCROFT_BUILD_PEERS").map_or(true, |wish| wish != "none");
    // It is built each time, since its source is here: where nothing has changed, in no time.
    if builds && let Err(why) = own::build(&folder) {
        eprintln!("{why}; the test that needs {} is skipped", own::NAME);
    }
    for peer in [debian::NIX, debian::SWAY] {
        if builds && let Err(why) = peer.build(&folder) {
            eprintln!("{why}; the tests that need {} are skipped", peer.name);
        }
    }
    let missing: Vec<&Peer> = PEERS
        .iter()
        .filter(|p| p.for_tests && !p.is_there(&folder))
        .collect();
    let names = |peers: &[&Peer]| {
        let names: Vec<&str> = peers.iter().map(|p| p.name).collect();
        names.join(", ")
    };
    if missing.is_empty() {
        return folder;
    }
    if !builds {
        eprintln!(
            "UNDERCROFT_BUILD_PEERS=none: not building {}; the tests that need them are skipped",
            names(&missing)
        );
        return folder;
    }
    if which("go").is_none() {
        eprintln!(
            "there is no Go here to build {}; the tests that need them are skipped",
            names(&missing)
        );
        return folder;
    }
    eprintln!(
        "building {}, once: about six minutes on two cores; UNDERCROFT_BUILD_PEERS=none leaves \
         them out",
        names(&missing)
    );
    for peer in missing {
        if let Err(why) = build(&folder, &[peer]) {
            eprintln!("{why}; the tests that need {} are skipped", peer.name);
        }
    }
    folder
}

fn build(folder: &Path, peers: &[&Peer]) -> Result<(), Failed> {
    for peer in peers {
        if peer.is_there(folder) {
            continue;
        }
        if which("go").is_none() {
            return Err(failed(format!(
                "building {} needs Go 1.25 or newer on PATH",
                peer.name
            )));
        }
        eprintln!("missing: {} {}: {}", peer.name, peer.version, peer.why);
        peer.build(folder)?;
    }
    Ok(())
}

impl Peer {
    fn dir(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}", self.name, self.version))
    }

    fn program(&self, folder: &Path) -> PathBuf {
        self.dir(folder).join(self.name)
    }

    /// Whether the program is there as it was built.
    fn is_there(&self, folder: &Path) -> bool {
        let sums = fs::read_to_string(self.dir(folder).join("SHA256SUMS")).unwrap_or_default();
        sum_line(&self.program(folder), self.name).is_ok_and(|line| line == sums)
    }

    fn build(&self, folder: &Path) -> Result<(), Failed> {
        let begun = Instant::now();
        let module = folder.join("src").join(self.group.name());
        write(&module.join("go.mod"), &self.group.go_mod())?;
        let dir = self.dir(folder);
        make_dir(&dir)?;
        // Built beside its place and moved there, so that a build that was cut off leaves nothing
        // that looks whole.
        let new = dir.join("new");
        Step::new(&format!("build {} {}", self.name, self.version), "go")
            .args(["-C".as_ref(), module.as_os_str()])
            .args(["build", "-mod=mod", "-trimpath", "-buildvcs=false"])
            .args(["-ldflags", &self.group.ldflags(), "-o"])
            .args([new.as_os_str()])
            .args([self.package])
            .env("CGO_ENABLED", "0")
            // The Go that is here, rather than one that it would download.
            .env("GOTOOLCHAIN", "local")
            .run()?;
        let program = self.program(folder);
        fs::rename(&new, &program).map_err(|e| failed(format!("{}: {e}", program.display())))?;
        write(&dir.join("SHA256SUMS"), &sum_line(&program, self.name)?)?;
        let took_s = begun.elapsed().as_secs();
        eprintln!("    {} is {} ({took_s} s)", self.name, program.display());
        Ok(())
    }
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::Sops => "sops",
            Self::Kubernetes => "kubernetes",
            Self::Kwok => "kwok",
            Self::Nats => "nats",
            Self::Headscale => "headscale",
            Self::ArgoCd => "argo-cd",
            Self::Prometheus => "prometheus",
        }
    }

    fn go_mod(self) -> String {
        let mut text = "module peers\n\ngo 1.25.8\n".to_owned();
        let mut modules: Vec<(&str, &str)> = PEERS
            .iter()
            .filter(|p| p.group == self)
            .map(|p| (p.module, p.version))
            .collect();
        modules.dedup();
        for (module, version) in modules {
            text.push_str(&format!("\nrequire {module} v{version}\n"));
        }
        let replaces = self.replaces();
        if !replaces.is_empty() {
            text.push_str("\nreplace (\n");
            for (module, version) in replaces {
                text.push_str(&format!("\t{module} => {module} {version}\n"));
            }
            text.push_str(")\n");
        }
        text
    }

    /// The modules that are taken at a certain version, whatever others ask for.
    fn replaces(self) -> Vec<(String, String)> {
        let staging = |version: &str| -> Vec<(String, String)> {
            STAGING
                .iter()
                .map(|part| (format!("k8s.io/{part}"), version.to_owned()))
                .collect()
        };
        match self {
            Self::Kubernetes => {
                let version = KUBERNETES.split_once('.').map_or("", |(_, rest)| rest);
                staging(&format!("v0.{version}"))
            }
            Self::ArgoCd => {
                let own = ARGO_CD_REPLACES.iter().copied();
                let own = own.map(|(module, version)| (module.to_owned(), version.to_owned()));
                own.chain(staging(ARGO_CD_KUBERNETES)).collect()
            }
            Self::Sops | Self::Kwok | Self::Nats | Self::Headscale | Self::Prometheus => Vec::new(),
        }
    }

    /// Without symbols; and with the version that the API server and Argo CD answer with, which their
    /// own builds take from git and from a file.
    fn ldflags(self) -> String {
        let mut flags = "-s -w".to_owned();
        if self == Self::Kubernetes {
            let mut parts = KUBERNETES.split('.');
            let (major, minor) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            for (name, value) in [
                ("gitVersion", format!("v{KUBERNETES}")),
                ("gitMajor", major.to_owned()),
                ("gitMinor", minor.to_owned()),
                ("gitTreeState", "clean".to_owned()),
            ] {
                flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
            }
        }
        if self == Self::ArgoCd {
            let variable = "github.com/argoproj/argo-cd/v3/common.version";
            flags.push_str(&format!(" -X {variable}={ARGO_CD}"));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_counts_as_there_only_as_it_was_built() {
        let folder = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
        let peer = &PEERS[0];
        assert!(!peer.is_there(&folder));
        let program = peer.program(&folder);
        write(&program, "a program").unwrap();
        assert!(!peer.is_there(&folder), "it has no checksum");
        let sum = sum_line(&program, peer.name).unwrap();
        write(&peer.dir(&folder).join("SHA256SUMS"), &sum).unwrap();
        assert!(peer.is_there(&folder));
        write(&program, "half a pro").unwrap();
        assert!(!peer.is_there(&folder), "it was changed");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_made_up_module_pins_every_part_of_kubernetes() {
        let text = Group::Kubernetes.go_mod();
        assert_eq!(
            text.matches("require k8s.io/kubernetes v1.34.4\n").count(),
            1
        );
        assert!(text.contains("\tk8s.io/client-go => k8s.io/client-go v0.34.4\n"));
        assert!(!Group::Sops.go_mod().contains("k8s.io"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        let error = run(&["kubectl"]).unwrap_err().to_string();
        assert!(error.contains("no peer kubectl") && error.contains("kube-apiserver"));
    }
}
