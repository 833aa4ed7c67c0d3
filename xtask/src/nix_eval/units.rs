//! The units of machines, as `systemd-analyze verify` reads them: that no key is unknown, and that
//! their order doesn't go in a circle, which systemd would break by leaving one of them out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    asked::{Asked, find_trees, parse, trees_folder},
    evaluate::{controller_unit, json_of, nix, strings},
};
use crate::run::{repo_root, which};

/// Where the distribution has systemd's own units, which those of a machine come beside.
const UPSTREAM: &str = "/lib/systemd/system";

/// Machines of every kind: MIG, phones and the overlay's server, a Pi, and kubeadm's.
const MACHINES: [(&str, &str); 5] = [
    ("basement", "control-01"),
    ("basement", "gpu-17"),
    ("basement", "phones-01"),
    ("basement", "pi-01"),
    ("kubeadm", "h100-02"),
];

/// A unit with a program that does nothing in each command's place: what is in the store was never
/// built.
fn inert(name: &str, text: &str, upstream: bool) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut starts = false;
    let mut continued = false;
    for line in text.lines() {
        let goes_on = line.ends_with('\\');
        match line.split_once('=') {
            _ if continued => {}
            Some((key, value)) if key.starts_with("Exec") && !value.is_empty() => {
                starts |= key == "ExecStart";
                lines.push(match key {
                    "ExecStart" => "ExecStart=/bin/true",
                    "ExecStop" => "ExecStop=/bin/true",
                    _ => "",
                });
                continued = goes_on;
                continue;
            }
            _ => lines.push(line),
        }
        continued &= goes_on;
    }
    // Services whose modules the tree lacks, and systemd's own that this system lacks.
    if name.ends_with(".service") && !starts && !upstream {
        lines.extend(["[Service]", "ExecStart=/bin/true"]);
    }
    lines.join("\n") + "\n"
}

/// Writes a machine's units into a folder, and gives the names of the project's own.
fn write_units(units: &Value, folder: &Path) -> Vec<PathBuf> {
    let mut own = Vec::new();
    for (name, unit) in units.as_object().unwrap() {
        let upstream = Path::new(UPSTREAM).join(name).exists();
        let text = inert(name, unit["text"].as_str().unwrap(), upstream);
        let at = if upstream {
            folder.join(format!("{name}.d/overrides.conf"))
        } else {
            folder.join(name)
        };
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, text).unwrap();
        for (key, suffix) in [("wantedBy", "wants"), ("requiredBy", "requires")] {
            for by in strings(unit.get(key)) {
                let links = folder.join(format!("{by}.{suffix}"));
                fs::create_dir_all(&links).unwrap();
                let source = if upstream {
                    Path::new(UPSTREAM).join(name)
                } else {
                    Path::new("..").join(name)
                };
                symlink(source, links.join(name)).unwrap();
            }
        }
        if name.starts_with("undercroft") || name == "k3s.service" || name == "kubelet.service" {
            own.push(at);
        }
    }
    own
}

/// What systemd says of the units in a folder, and of the boot that they make; nothing where all is
/// well.
fn complaints(folder: &Path, own: &[PathBuf]) -> String {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(own)
        .args(["multi-user.target", "boot-complete.target"])
        .env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:{UPSTREAM}", folder.display()),
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The rest is about units of other systems' modules, whose programs or files aren't here.
    let about_ours = |line: &&str| line.contains("undercroft") || line.contains("ordering cycle");
    said.lines()
        .filter(about_ours)
        .collect::<Vec<_>>()
        .join("\n")
}

fn asked() -> Option<Asked> {
    let mut asked = parse(&["--release", "25.11"]).unwrap();
    let missing = find_trees(&mut asked, &trees_folder());
    if !missing.is_empty() {
        println!("SKIPPED: no trees of {}", missing.join(", "));
        return None;
    }
    for program in ["nix-instantiate", "systemd-analyze"] {
        if which(program).is_none() {
            println!("SKIPPED: {program} isn't here");
            return None;
        }
    }
    if !Path::new(UPSTREAM).is_dir() {
        println!("SKIPPED: this system has no units in {UPSTREAM}");
        return None;
    }
    Some(asked)
}

#[test]
fn systemd_takes_every_unit_and_their_order() {
    let Some(asked) = asked() else { return };
    for (example, node) in MACHINES {
        let attribute = format!("units.{node}");
        let units = json_of(nix(&asked, example, "25.11", &attribute), node).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own = write_units(&units, folder.path());
        assert!(own.len() > 4, "{node}: only {} units", own.len());
        assert_eq!(complaints(folder.path(), &own), "", "{node} of {example}");

        // It finds something where there is something to find.
        if node == "control-01" {
            let health = folder.path().join("undercroft-health.service");
            let text = fs::read_to_string(&health).unwrap();
            fs::write(&health, format!("{text}[Unit]\nBefore=basic.target\n")).unwrap();
            assert!(complaints(folder.path(), &own).contains("cycle"));
        }
    }
}

/// The exposure that `systemd-analyze security` gives the controller's unit at most, in tenths: what is left are
/// the network, which it is there for, and two capabilities.
const EXPOSURE_TENTHS_MAX: u32 = 20;

fn golden_controller() -> PathBuf {
    repo_root().join("nix/tests/golden/undercroft-controller.service")
}

#[test]
fn the_controllers_unit_is_as_nixos_writes_it() {
    let Some(asked) = asked() else { return };
    let unit = controller_unit(&asked, "25.11").unwrap();
    let text = format!("{}\n", unit["text"].as_str().unwrap().trim_end());
    if std::env::var_os("UNDERCROFT_WRITE_GOLDEN").is_some() {
        fs::write(golden_controller(), &text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(golden_controller()).unwrap(),
        text,
        "if the change is meant: UNDERCROFT_WRITE_GOLDEN=1 cargo test -p xtask controllers_unit"
    );
}

/// What systemd says of the controller's unit with one line of it changed: of its keys, and how exposed it is.
fn judged(from: &str, to: &str) -> Option<(String, u32)> {
    let text = fs::read_to_string(golden_controller()).unwrap();
    assert!(text.contains(from), "{from}");
    let text = text.replacen(from, to, 1);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("undercroft-controller.service");
    fs::write(&at, inert("undercroft-controller.service", &text, false)).unwrap();
    let said = complaints(folder.path(), std::slice::from_ref(&at));
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&at)
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    // "→ Overall exposure level for undercroft-controller.service: 1.9 OK"
    let level = table.lines().find_map(|line| line.split_once("service: "));
    let Some((_, level)) = level else {
        println!("SKIPPED: this systemd-analyze judges no unit offline");
        return None;
    };
    let number: f64 = level.split_whitespace().next().unwrap().parse().unwrap();
    Some((said, (number * 10.0).round() as u32))
}

#[test]
fn systemd_takes_the_controllers_unit_and_finds_it_confined() {
    if which("systemd-analyze").is_none() || !Path::new(UPSTREAM).is_dir() {
        println!("SKIPPED: systemd-analyze or systemd's own units aren't here");
        return;
    }
    let Some((said, exposure)) = judged("Type=notify", "Type=notify") else {
        return;
    };
    assert_eq!(said, "");
    assert!(exposure <= EXPOSURE_TENTHS_MAX, "{exposure}");
    // Both find something where there is something to find.
    let (said, _) = judged("WatchdogSec=", "WatchdogSecond=").unwrap();
    assert!(said.contains("WatchdogSecond"), "{said}");
    let (_, open) = judged("ProtectSystem=strict\n", "ProtectSystem=no\n").unwrap();
    assert!(open > exposure, "{open} and {exposure}");
}
