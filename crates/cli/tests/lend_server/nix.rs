//! Builds of Nix by lent PCs: a real Nix asks for them, in namespaces of its own, and a PC's daemon builds in its sandbox.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use undercroft_testkit::{OrSkip as _, peer, program, skip};

use crate::{
    lender::Lender,
    pc::{PC, Pc},
    site::{Process, Site},
};

/// How long a build may take that is built at once.
const BUILT_WITHIN: Duration = Duration::from_secs(60);
/// How long it is waited for a PC, in seconds.
const WAIT_S: u32 = 3;
/// Becomes the root of namespaces of their own, and starts a command there.
const ENTER: &str = r#"
set -e
root=$1 nix=$2 etc=$3 shared=$4; shift 4
mount --rbind "$root" "$root"
mount --bind "$nix" "$root/nix"
mount --bind "$etc" "$root/etc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for name in tmp run root; do mount -t tmpfs tmpfs "$root/$name"; done
mkdir "$root/run/shared"
mount --rbind "$shared" "$root/run/shared"
cd "$root"
pivot_root . .
/usr/bin/busybox umount -l .
cd /
exec "$@"
"#;
/// Derivations without nixpkgs: a static shell, and static tools.
const DERIVATIONS: &str = r#"
let
  bash = builtins.path { path = /usr/bin/bash-static; name = "bash"; };
  tools = builtins.path { path = /run/shared/tools; name = "tools"; };
  build = name: more: script: derivation ({
    inherit name tools;
    system = "x86_64-linux";
    builder = bash;
    args = [ "-e" "-c" script ];
    PATH = "${tools}/bin";
  } // more);
in rec {
  alone = build "alone" { } "echo alone > $out";
  first = build "first" { } ''
    echo "built as $(busybox id -u):$(busybox id -g) in $PWD"
    [ ! -e /bin/sh ] && [ ! -e /home ] && [ ! -e /run ]
    read line < <(echo "one process' words are another's"); echo "$line"
    busybox mkdir $out; echo first > $out/text; busybox ln -s /etc/passwd $out/link
  '';
  second = build "second" { inherit first; outputs = [ "out" "dev" ]; passAsFile = [ "long" ]; long = "from a file"; } ''
    busybox cat $first/text $longPath > $out
    busybox mkdir $dev
    busybox cp /etc/passwd $dev/users
    echo "echo run" > $dev/script; busybox chmod +x $dev/script
    echo x > /dev/null; echo x > /dev/shm/x; echo x > /tmp/x; read line < /etc/hosts
    if echo x 2> /dev/null > $first/text; then exit 9; fi
  '';
  fails = build "fails" { } "echo it fails here; exit 3";
  fixed = build "fixed" { outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "sha256-DDBxQY5jVuYUiYyE7QZMqV6IVRvAgRtTS98ZUuza5TQ="; } "echo fixed > $out";
  # On a PC it would take long: what tells the two apart is a file that Nix' own sandbox has for the network.
  slow = build "slow" { inherit first; } ''
    if [ ! -e /etc/nsswitch.conf ]; then
      echo "it is slow here"; (busybox sleep 1000 & busybox setsid busybox sleep 1000 & wait); fi
    echo slow > $out
  '';
  after = build "after" { } "echo after > $out";
  # Each waits for a second, so that what one machine has of processors isn't what is measured.
  many = builtins.genList (number: build "many-${toString number}" { } "busybox sleep 1; echo done > $out") 20;
  lied = build "lied" { } "echo true > $out";
}
"#;

/// Somebody who builds with Nix.
struct Nix<'a> {
    site: &'a Site,
    root: PathBuf,
    shared: PathBuf,
}

impl<'a> Nix<'a> {
    /// `None`, said openly, where something of it isn't on this machine.
    fn of(site: &'a Site) -> Option<Self> {
        let root = peer("nix").or_skip()?.with_file_name("root");
        program("unshare", "util-linux").or_skip()?;
        let shared = site.file("nix-user");
        for name in ["tools/bin", "etc/nix", "nix/store", "bin", "cache"] {
            fs::create_dir_all(shared.join(name)).unwrap();
        }
        let copy = |from: &Path, to: &str| {
            fs::copy(from, shared.join(to)).unwrap();
        };
        copy(&root.join("usr/bin/busybox"), "tools/bin/busybox");
        copy(
            Path::new(env!("CARGO_BIN_EXE_undercroft")),
            "bin/undercroft",
        );
        copy(&site.file("ci.nk"), "ci.nk");
        copy(&site.nats.ca(), "ca.crt");
        fs::write(shared.join("default.nix"), DERIVATIONS).unwrap();
        let settings = json!({
            "version": 1, "natsUrl": site.nats.url(), "caFile": "/run/shared/ca.crt", "keyFile": "/run/shared/ci.nk",
            "submitter": "ci", "tenant": "research", "sensitivity": "public", "waitS": WAIT_S, "cacheDirectory": "/run/shared/cache",
            "limits": { "cpu_percent": 100, "memory_mb": 128, "disk_mb": 64, "wall_s": 300 },
        });
        fs::write(shared.join("builds.json"), settings.to_string()).unwrap();
        let builder = json!([{
            "systems": ["x86_64-linux"], "program": "/run/shared/bin/undercroft",
            "args": ["lend", "build", "--config", "/run/shared/builds.json"],
        }]);
        fs::write(
            shared.join("etc/nix/nix.conf"),
            format!(
                "experimental-features = nix-command external-builders\nbuild-users-group =\nsandbox = false\nsubstituters =\nexternal-builders = {builder}\n"
            ),
        )
        .unwrap();
        fs::write(shared.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(shared.join("etc/passwd"), "root:x:0:0::/root:/noshell\n").unwrap();
        let nix = Self { site, root, shared };
        let tried = nix.command(&["nix-build", "--version"]).output().unwrap();
        if !tried.status.success() {
            skip(format!(
                "no namespaces for Nix here: {}",
                String::from_utf8_lossy(&tried.stderr)
            ));
            return None;
        }
        Some(nix)
    }

    /// A command in namespaces of its own, but for the network's, where the site is.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.args(["sh", "-c", ENTER, "enter"]);
        command.args([
            &self.root,
            &self.shared.join("nix"),
            &self.shared.join("etc"),
            &self.shared,
        ]);
        command.args(words).env_clear().env("HOME", "/root");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    fn build_command(&self, attribute: &str) -> Command {
        let build = [
            "nix-build",
            "/run/shared/default.nix",
            "--no-out-link",
            "-A",
            attribute,
        ];
        let mut command = self.command(&build);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Builds it, and says what was told on the way.
    fn build(&self, attribute: &str) -> Built {
        let since = Instant::now();
        Built::of(&self.build_command(attribute).output().unwrap(), since)
    }

    /// What lies at a store path.
    fn text(&self, path: &str) -> String {
        let path = path.strip_prefix('/').unwrap();
        fs::read_to_string(self.shared.join(path)).unwrap()
    }

    /// Whether Nix has these paths as they were built.
    fn verify(&self) {
        let ran = self
            .command(&["nix-store", "--verify", "--check-contents"])
            .output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success() && !said.contains("modified"), "{said}");
    }
}

struct Built {
    is_built: bool,
    paths: Vec<String>,
    log: String,
    took: Duration,
}

impl Built {
    fn of(output: &Output, since: Instant) -> Self {
        let paths = String::from_utf8_lossy(&output.stdout).into_owned();
        Self {
            is_built: output.status.success(),
            paths: paths.lines().map(str::to_owned).collect(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: since.elapsed(),
        }
    }

    /// It was built, and told so.
    #[track_caller]
    fn well(self, said: &str) -> Self {
        assert!(
            self.is_built && self.log.contains(said),
            "{said}: {}",
            self.log
        );
        assert!(self.took < BUILT_WITHIN, "{:?}: {}", self.took, self.log);
        println!("{said}: {:.1?}", self.took);
        self
    }
}

#[test]
fn a_pc_builds_for_nix_and_what_it_gives_back_is_built_here() {
    let Some(site) = Site::new(&[PC]) else {
        return;
    };
    let (Some(pc), Some(nix)) = (Pc::of(&site), Nix::of(&site)) else {
        return;
    };
    // Nobody hands work out, and then nobody lends.
    let built = nix.build("alone").well("It is built here: nobody listens");
    assert_eq!(nix.text(&built.paths[0]), "alone\n");
    let server = site.server();
    let since = Instant::now();
    nix.build("after").well("no lent PC began within 3 s");
    assert!(since.elapsed() >= Duration::from_secs(WAIT_S.into()));

    pc.owner(&["enrol", "--grant", "--until", "1h"]);
    let _daemon = Process::start(pc.command(&["run"]));
    // What is built from another one, with two outputs.
    let built = nix
        .build("second")
        .well("It is built by desk, under its owner's consent");
    assert!(
        built.log.contains("built as 1000:100 in /build"),
        "{}",
        built.log
    );
    assert!(built.log.contains("words are another's"), "{}", built.log);
    assert!(!built.log.contains("built here"), "{}", built.log);
    assert_eq!(nix.text(&built.paths[0]), "first\nfrom a file");
    let dev = built.paths[0].replace("-second", "-second-dev");
    let dev = fs::read_dir(nix.shared.join("nix/store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.ends_with("-second-dev"))
        .unwrap_or(dev);
    assert!(
        nix.text(&format!("/nix/store/{dev}/users"))
            .contains("nixbld:x:1000:100")
    );
    nix.verify();
    let done = |line: &&String| line.contains("\"done\"") && line.contains("nix-");
    assert_eq!(
        server.lines().iter().filter(done).count(),
        2,
        "{:#?}",
        server.lines()
    );
    let log = pc.owner(&["log", "--json"]).out;
    assert!(log.contains("nix-"), "{log}");

    // A result that is known before may use the network.
    nix.build("fixed")
        .well("It is built here: its result is fixed");
    // What fails there fails here as well, before it counts.
    let built = nix.build("fails");
    let is_told = built
        .log
        .contains("(it failed as often as it may; the last time: exit code 3)");
    assert!(!built.is_built && is_told, "{}", built.log);
    assert!(
        built.log.matches("it fails here").count() >= 2,
        "{}",
        built.log
    );

    // Its owner takes it back in the middle.
    let since = Instant::now();
    let slow = nix.build_command("slow").spawn().unwrap();
    pc.wait_until_running("nix-");
    let revoked = pc.owner(&["revoke"]);
    assert!(
        revoked
            .out
            .contains("No process and no file of a job is left")
            && revoked.out.contains("ended: nix-"),
        "{}",
        revoked.text()
    );
    let built = Built::of(&slow.wait_with_output().unwrap(), since);
    let built = built.well("gave it back before it was done");
    assert_eq!(nix.text(&built.paths[0]), "slow\n");
    let verify = ["lend", "audit", "verify", "--device", PC];
    let mut verify = nix.site.sandbox.command(verify);
    let ran = nix
        .site
        .sandbox
        .finish(verify.arg(site.file(PC).join("entries")));
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(
        ran.out
            .contains("4 jobs begun, 4 receipts, 0 open; its owner lends nothing"),
        "{}",
        ran.text()
    );
    nix.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pc_lies_about_is_built_here() {
    let Some(mut site) = Site::new(&["liar"]) else {
        return;
    };
    let _server = site.server();
    let mut liar: Lender = site.lenders.remove(0);
    // It makes its inputs' bytes in capitals of whatever it is asked for, which is no archive.
    liar.lend().await;
    let (built, text) = tokio::task::spawn_blocking(move || {
        let nix = Nix::of(&site)?;
        let built = nix.build("lied").well("what liar made can't be taken: ");
        let text = nix.text(&built.paths[0]);
        Some((built, text))
    })
    .await
    .unwrap()
    .unzip();
    drop(liar);
    if let Some(built) = built {
        assert!(
            built.log.contains("where `nix-archive-1` belongs"),
            "{}",
            built.log
        );
        assert_eq!(text.as_deref(), Some("true\n"));
    }
}

/// A measurement, for a person to look at: the same builds where nothing is lent, and with PCs.
#[test]
fn twenty_builds_with_no_pc_one_and_three() {
    if std::env::var_os("UNDERCROFT_LENT_BUILDS").is_none() {
        skip(
            "it takes a minute; UNDERCROFT_LENT_BUILDS=1 measures twenty builds with no PC, one and three",
        );
        return;
    }
    const PCS: [&str; 3] = ["desk", "lap", "tower"];
    for count in [0, 1, 3] {
        let Some(site) = Site::new(&PCS) else {
            return;
        };
        let Some(nix) = Nix::of(&site) else {
            return;
        };
        let _server = site.server();
        let pcs = PCS.iter().take(count);
        let pcs: Vec<Pc<'_>> = pcs.filter_map(|name| Pc::named(&site, name, 2)).collect();
        let daemons = pcs.iter().map(|pc| {
            pc.owner(&["enrol", "--grant", "--until", "1h"]);
            Process::start(pc.command(&["run"]))
        });
        let _daemons: Vec<Process> = daemons.collect();
        if pcs.is_empty() {
            // What isn't to be lent isn't waited for.
            let settings = nix.shared.join("builds.json");
            let text = fs::read_to_string(&settings).unwrap();
            fs::write(&settings, text.replace("\"public\"", "null")).unwrap();
        } else {
            // What all of them read is brought before, as it is in a fleet that builds.
            nix.build("after").well("It is built by");
        }
        let jobs = if count == 3 { "6" } else { "2" };
        let since = Instant::now();
        let mut command = nix.build_command("many");
        let built = Built::of(&command.args(["-j", jobs]).output().unwrap(), since);
        assert!(built.is_built && built.paths.len() == 20, "{}", built.log);
        let away = built.log.matches("It is built by").count();
        println!(
            "{count} PCs, {jobs} at a time: {:.1?}, {away} of 20 by PCs",
            built.took
        );
    }
}
