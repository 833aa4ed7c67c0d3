//! A look at what has drifted, over the real OpenSSH: the script that a machine runs, with a folder that stands for
//! the machine, and what becomes of a machine that doesn't answer.

#![expect(
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "in a test a panic is the finding"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use tempfile::TempDir;
use undercroft_metal::drift::{DriftLooking, look};
use undercroft_model::{
    NodeName, Observation, SystemTarget,
    inventory::{Inventory, parse},
    view::FleetView,
};
use undercroft_planner::drift::{DriftKind, DriftLook, DriftMemory, DriftReport, MachineLook};
use undercroft_secrets::keys::{HostKeys, IdentitySource, OperatorKey};

use crate::{
    bench::{TOPLEVEL, inside, inspect, keygen, node, plan, report, sshd},
    observed::{Past, journal},
};

const RACK: &str = include_str!("../../../../examples/basement/undercroft.toml");
const BOOT_ID: &str = "0d6c6f4e-6d3f-4f2a-9a38-4e1f6d1c2b3a";
/// What is asked in the place of the machine's own root.
const WRAPPER: &str = "#!/bin/sh
PATH={at}/bin:$PATH
exec sh -c \"$(printf %s \"$SSH_ORIGINAL_COMMAND\" | sed 's#^root=$#root={at}/root#')\"
";

/// A machine: the server, and a folder that stands for its file system.
struct Stand {
    dir: TempDir,
    server: Child,
    operator: OperatorKey,
    host_keys: HostKeys,
    inventory: Inventory,
    targets: BTreeMap<NodeName, Result<SystemTarget, String>>,
    memory: DriftMemory,
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn program(at: &Path, script: &str) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let operator = OperatorKey::ensure(&path("state"), "basement").unwrap();
        let source = IdentitySource {
            state_dir: path("state"),
            identity_files: vec![],
            well_known: false,
        };
        let host_keys = HostKeys::open(&path("secrets"), &[], source).unwrap();
        host_keys.ensure(&node()).unwrap();
        // The server shows the machine's own key.
        let key = host_keys.private(&node()).unwrap();
        write_private(&path("host"), secrecy::ExposeSecret::expose_secret(&key));
        let server = sshd(dir.path(), &operator.authorized_key);
        let at = dir.path().display().to_string();
        fs::write(path("wrapper"), WRAPPER.replace("{at}", &at)).unwrap();
        let mut inventory = parse("undercroft.toml", RACK.as_bytes()).inventory.unwrap();
        inventory.nodes.retain(|name, _| *name == node());
        inventory.nodes.get_mut(&node()).unwrap().address = Ipv4Addr::LOCALHOST;
        let mut stand = Self {
            targets: BTreeMap::new(),
            memory: DriftMemory::default(),
            dir,
            server,
            operator,
            host_keys,
            inventory,
        };
        stand.furnish();
        let mut target = plan(inspect(), &(vec![], None)).nodes[&node()]
            .target
            .clone()
            .unwrap();
        target.toplevel = stand.root(TOPLEVEL).display().to_string();
        stand.targets.insert(node(), Ok(target));
        stand
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let at = self.root(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    fn lead(&self, path: &str, to: impl AsRef<Path>) {
        let at = self.root(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&at);
        symlink(to, at).unwrap();
    }

    /// What a machine holds on which all is well.
    fn furnish(&self) {
        let system = self.root(TOPLEVEL);
        self.put("/proc/sys/kernel/random/boot_id", format!("{BOOT_ID}\n"));
        self.put(&format!("{TOPLEVEL}/kernel"), vec![0; 3000]);
        self.put(&format!("{TOPLEVEL}/initrd"), vec![0; 7000]);
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGQY2qM4FiLW+0bl3/3lQUkQgHHTVhIuYRQjlTAQkpS4 ada@desk\n";
        self.put(&format!("{TOPLEVEL}/etc/ssh/authorized_keys.d/root"), key);
        self.put(
            &format!("{TOPLEVEL}/etc/ssh/authorized_keys.d/root.mode"),
            "0444",
        );
        self.put("/etc/ssh/authorized_keys.d/root", key);
        self.put(
            "/etc/ssh/sshd_config",
            "Port 22\nAuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u\n",
        );
        self.put(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\neve:x:1000:100:Eve:/home/eve:/bin/sh\n",
        );
        self.lead("/run/current-system", &system);
        self.lead("/run/booted-system", &system);
        self.lead(
            "/nix/var/nix/profiles/system-profiles/undercroft-proven-1-link",
            TOPLEVEL,
        );
        let entry = format!(
            "title NixOS\nlinux /k\noptions loglevel=4 init={TOPLEVEL}/init root=LABEL=nixos\n"
        );
        self.put("/boot/loader/entries/nixos-1.conf", entry);
        let wide: Vec<u8> = "nixos-1.conf\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let variable =
            "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        self.put(variable, [&[7, 0, 0, 0][..], &wide].concat());
        self.health("network", true, true);
        self.put(
            "/run/undercroft/boot.json",
            "{\"version\": 1, \"state\": \"proven\", \"fell_back\": null}",
        );
        self.units("");
        // Blocks as `df -P -k` prints them.
        let df = "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '/dev/sda1 1000000 1 500000 1% /'";
        program(&self.dir.path().join("bin/df"), df);
    }

    fn health(&self, check: &str, ok: bool, answered: bool) {
        let now_s = undercroft_process::clock::wall_ms_now() / 1000;
        let health = format!(
            "{{\n  \"version\": 1,\n  \"boot_id\": \"{BOOT_ID}\",\n  \"checked_at_s\": {now_s},\n  \"checks\": [{{\"name\": \"{check}\", \"ok\": {ok}, \"answered\": {answered}, \"output\": \"no carrier\"}}]\n}}\n"
        );
        self.put("/run/undercroft/health.json", health);
    }

    fn units(&self, failed: &str) {
        let script = format!("[ \"$1\" = list-units ] || exit 1\nprintf '%b' '{failed}'");
        program(&self.dir.path().join("bin/systemctl"), &script);
    }

    /// A journal by which the machine was up once, and is no member of a cluster.
    fn was_up(&self) -> FleetView {
        let mut observation = Observation {
            targets: self.targets.clone(),
            ..Observation::default()
        };
        let key = self.host_keys.public(&node()).unwrap().unwrap();
        observation.host_keys.insert(node(), key.fingerprint());
        let (plan, _) = undercroft_planner::plan(&self.inventory, &observation, None);
        let view = journal(&plan, &report(&key), Past::WasUp);
        assert!(view.installed()[&node()].proved_up);
        view
    }

    async fn look(&mut self) -> (DriftLook, DriftReport) {
        let view = self.was_up();
        let looked = look(DriftLooking {
            inventory: &self.inventory,
            only: None,
            view: &view,
            host_keys: &self.host_keys,
            identity: &self.operator.private_file,
        });
        let looked = looked.await.unwrap();
        let now_ms = undercroft_process::clock::wall_ms_now();
        let report = self
            .memory
            .take_in(&self.inventory, &self.targets, &looked, now_ms);
        (looked, report)
    }

    /// The kinds of what a look finds.
    async fn found(&mut self) -> Vec<DriftKind> {
        let (_, report) = self.look().await;
        report.findings.iter().map(|finding| finding.kind).collect()
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn machine(look: &DriftLook) -> &MachineLook {
    look.machines[&node()].as_ref().unwrap()
}

#[tokio::test]
async fn what_a_machine_holds_is_read_and_what_has_drifted_is_found() {
    if !inside("drift::what_a_machine_holds_is_read_and_what_has_drifted_is_found") {
        return;
    }
    let mut stand = Stand::new();
    let (seen, report) = stand.look().await;
    assert_eq!(report.findings, [], "{report:#?}");
    // No server of its cluster has joined: nobody is asked, and nothing is missed.
    assert_eq!(report.unseen, [], "{report:#?}");
    let of = machine(&seen);
    let system = stand.root(TOPLEVEL).display().to_string();
    assert_eq!(of.boot_id, BOOT_ID);
    assert_eq!(
        (of.current.as_ref(), of.booted.as_ref()),
        (Some(&system), Some(&system))
    );
    assert_eq!(of.default_system.as_deref(), Some(TOPLEVEL));
    assert_eq!(of.proven_system.as_deref(), Some(TOPLEVEL));
    assert_eq!(of.boot_files_bytes, Some(10_000));
    assert_eq!(of.store.unwrap().free_kib, 500_000);
    assert_eq!(of.esp.unwrap().total_kib, 1_000_000);
    assert_eq!(of.failed_units, Some(vec![]));
    assert_eq!(of.keys.as_ref().unwrap().authorized.len(), 1);

    // Everything at once.
    let other = stand.root("/nix/store/1111-other");
    fs::create_dir_all(&other).unwrap();
    let etc = stand.root(TOPLEVEL).join("etc");
    symlink(etc, other.join("etc")).unwrap();
    stand.lead("/run/current-system", &other);
    stand.put(
        "/boot/loader/entries/nixos-1.conf",
        "options init=/nix/store/2222-new/init quiet",
    );
    stand.put("/run/undercroft/boot.json", "{\"version\": 1, \"fell_back\": {\"system\": \"/nix/store/2222-new\", \"to_system\": \"/nix/store/3333-old\", \"failed\": []}}");
    stand.units("nginx.service loaded failed failed A web server\\n");
    stand.health("network", false, true);
    let key = fs::read_to_string(keygen_public(&stand.dir.path().join("eve"))).unwrap();
    stand.put(
        "/home/eve/.ssh/authorized_keys",
        format!("# a comment\nunits\ttold\nend\nno-pty {key}"),
    );
    let df = "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '/dev/sda1 1000000 1 5 1% /'";
    program(&stand.dir.path().join("bin/df"), df);
    program(&stand.dir.path().join("bin/date"), "echo 1000");
    // The health report's time is the machine's too.
    let health = fs::read_to_string(stand.root("/run/undercroft/health.json")).unwrap();
    let at = health.find("checked_at_s\": ").unwrap() + "checked_at_s\": ".len();
    let end = at + health[at..].find(',').unwrap();
    let health = format!("{}990{}", &health[..at], &health[end..]);
    stand.put("/run/undercroft/health.json", health);
    let found = stand.found().await;
    let all = DriftKind::ALL.into_iter().filter(|kind| !kind.is_of_api());
    assert_eq!(found, all.collect::<Vec<_>>());
    let (_, report) = stand.look().await;
    assert!(report.findings.iter().all(|finding| finding.is_drift()));
    let of_eve = report
        .findings
        .iter()
        .find(|f| f.kind == DriftKind::Key)
        .unwrap();
    assert!(
        of_eve
            .sentence
            .contains("as eve, in /home/eve/.ssh/authorized_keys"),
        "{of_eve:?}"
    );

    // One that doesn't answer has neither drifted further nor mended itself.
    stand.server.kill().unwrap();
    stand.server.wait().unwrap();
    let (_, away) = stand.look().await;
    assert_eq!(away.findings.len(), report.findings.len());
    assert!(
        away.findings
            .iter()
            .all(|finding| !finding.seen && finding.is_drift())
    );
    assert!(
        away.unseen[0].why.contains("127.0.0.1"),
        "{:?}",
        away.unseen
    );
}

#[tokio::test]
async fn what_a_machine_cannot_tell_is_not_seen() {
    if !inside("drift::what_a_machine_cannot_tell_is_not_seen") {
        return;
    }
    let mut stand = Stand::new();
    // Nothing of NixOS, no systemd, reports of another version, a file of keys that never ends.
    fs::remove_dir_all(stand.root("/run")).unwrap();
    fs::remove_dir_all(stand.root("/boot")).unwrap();
    program(&stand.dir.path().join("bin/systemctl"), "exit 1");
    program(&stand.dir.path().join("bin/df"), "exit 1");
    program(&stand.dir.path().join("bin/date"), "exit 1");
    stand.put("/run/undercroft/health.json", "{\"version\": 9}");
    stand.put("/run/undercroft/boot.json", "");
    let (_, report) = stand.look().await;
    assert_eq!(report.findings, [], "{report:#?}");
    let mut unseen: Vec<DriftKind> = report.unseen.iter().flat_map(|u| u.kinds.clone()).collect();
    unseen.sort();
    let quiet = [DriftKind::BootDefault, DriftKind::EspRoom];
    let all = DriftKind::ALL.into_iter();
    let all = all.filter(|kind| !kind.is_of_api() && !quiet.contains(kind));
    assert_eq!(unseen, all.collect::<Vec<_>>(), "{report:#?}");

    // A pipe in the place of a file of keys holds nobody up, nor does one that is too large.
    let mut stand = Stand::with_port_again(stand);
    fs::create_dir_all(stand.root("/home/eve/.ssh")).unwrap();
    let pipe = stand.root("/home/eve/.ssh/authorized_keys");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(stand.found().await, []);
    fs::remove_file(&pipe).unwrap();
    stand.put(
        "/home/eve/.ssh/authorized_keys",
        "ssh-ed25519 x\n".repeat(10_000),
    );
    let (_, report) = stand.look().await;
    assert_eq!(report.unseen.len(), 1, "{report:#?}");
    assert_eq!(report.unseen[0].kinds, [DriftKind::Key]);
}

impl Stand {
    /// A machine on which all is well, at the port of another that is gone.
    fn with_port_again(other: Self) -> Self {
        drop(other);
        Self::new()
    }
}

/// A fresh key's public half.
fn keygen_public(at: &Path) -> PathBuf {
    keygen(at);
    at.with_extension("pub")
}
