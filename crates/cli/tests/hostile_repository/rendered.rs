//! `gitops/.rendered` is a tracked file as every other: a line of it makes nothing ours.

use std::fs;

use undercroft_render::digest;

use crate::{SECRET, Victim, tells_nothing};

/// Claims files in the file of digests: each with its right digest, or with one that is wrong.
fn claim(victim: &Victim, files: &[&str], rightly: bool) {
    let path = victim.dir().join("gitops/.rendered");
    let mut text = fs::read_to_string(&path).unwrap();
    for file in files {
        let right = fs::read(victim.dir().join(file)).map(|bytes| digest(&bytes));
        let digest = match right {
            Ok(right) if rightly => right,
            _ => "0".repeat(64),
        };
        text.push_str(&format!("{digest}  {file}\n"));
    }
    fs::write(path, text).unwrap();
}

/// What a contributor would like to see or to be rid of.
const CLAIMED: &[&str] = &[
    ".undercroft/operator-identity.txt",
    ".undercroft/.gitignore",
    ".git/config",
    "undercroft.toml",
    "undercroft.lock",
    "secrets/operators.sops.yaml",
    "secrets/host-keys/control-01.age",
    "apps/_mine/key.yaml",
    "values/cilium.yaml",
    "facts/operators.pub",
    "gitops/notes.yaml",
    "gitops/.hidden.yaml",
    "gitops/applications/.hidden.yaml",
    "gitops/components/mine/key.yaml",
    "gitops/components/mine/deeper/values.yaml",
    "docs/key",
    "../outside/key",
    "gitops/../undercroft.toml",
    "gitops/applications/../../undercroft.toml",
];

#[test]
fn what_no_render_makes_is_neither_shown_nor_removed() {
    for rightly in [false, true] {
        let victim = Victim::in_use();
        for file in CLAIMED.iter().filter(|file| !file.contains("..")) {
            if !victim.dir().join(file).exists() {
                victim.write(file, &format!("# {SECRET}\n"));
            }
        }
        let rendered = victim.run(&["render"]);
        assert_eq!(
            rendered.code,
            65,
            "a hidden manifest is foreign: {}",
            rendered.text()
        );
        fs::remove_file(victim.dir().join("gitops/applications/.hidden.yaml")).unwrap();
        claim(&victim, CLAIMED, rightly);
        let before = victim.picture(victim.root.path());
        let checked = victim.run(&["render", "--check"]);
        tells_nothing(&checked, "render --check");
        assert!(
            checked.err.contains("operator-identity.txt"),
            "{}",
            checked.text()
        );
        assert_eq!(victim.picture(victim.root.path()), before);
        let rendered = victim.run(&["render"]);
        tells_nothing(&rendered, "render");
        assert_eq!(rendered.code, 0, "{}", rendered.text());
        let forced = victim.run(&["render", "--force"]);
        tells_nothing(&forced, "render --force");
        let after = victim.picture(victim.root.path());
        for (path, was) in &before {
            if !path.ends_with("gitops/.rendered") && !path.is_dir() {
                assert_eq!(
                    after.get(path).map(|now| &now.2),
                    Some(&was.2),
                    "{}",
                    path.display()
                );
            }
        }
        let text = fs::read_to_string(victim.dir().join("gitops/.rendered")).unwrap();
        assert!(!text.contains("operator-identity"), "{text}");
    }
}

#[test]
fn a_link_among_what_is_claimed_leads_nowhere() {
    for rightly in [false, true] {
        for (link, target, file) in [
            ("docs", "/proc/self", "docs/environ"),
            ("docs", "OUTSIDE", "docs/key"),
            (
                "gitops/applications/key.yaml",
                "OUTSIDE/key",
                "gitops/applications/key.yaml",
            ),
            (
                "gitops/components/mine",
                "OUTSIDE/inner",
                "gitops/components/mine/values.yaml",
            ),
            (
                "gitops/components/cert-manager",
                "OUTSIDE/inner",
                "gitops/components/x/values.yaml",
            ),
            (
                "gitops/applications/environ.yaml",
                "/proc/self/environ",
                "gitops/applications/environ.yaml",
            ),
        ] {
            let victim = Victim::in_use();
            let target = target.replace("OUTSIDE", victim.outside().to_str().unwrap());
            victim.link(link, target.as_ref());
            fs::write(victim.outside().join("inner/values.yaml"), SECRET).unwrap();
            claim(&victim, &[file], rightly);
            let outside = victim.picture(&victim.outside());
            for words in [
                ["render", "--check"].as_slice(),
                &["render"],
                &["render", "--force"],
                &["dev", "config"],
            ] {
                tells_nothing(&victim.run(words), link);
            }
            assert_eq!(victim.picture(&victim.outside()), outside, "{link}");
        }
    }
}

#[test]
fn a_file_within_the_tree_that_no_render_made_is_named_and_not_shown() {
    let victim = Victim::in_use();
    for file in [
        "gitops/components/mine/values.yaml",
        "gitops/components/mine/manifests/key.yaml",
        "gitops/applications/mine.yaml",
        "gitops/components/cert-manager/values.yaml",
        "gitops/README.md",
    ] {
        victim.write(file, &format!("key: {SECRET}\n"));
    }
    claim(
        &victim,
        &[
            "gitops/components/mine/values.yaml",
            "gitops/applications/mine.yaml",
        ],
        false,
    );
    for words in [["render", "--check"].as_slice(), &["render"]] {
        let ran = victim.run(words);
        tells_nothing(&ran, "a file of somebody's own");
        assert_ne!(ran.code, 0);
        for file in [
            "mine/values.yaml",
            "mine/manifests/key.yaml",
            "gitops/README.md",
        ] {
            assert!(ran.text().contains(file), "{file}: {}", ran.text());
        }
    }
    assert!(victim.dir().join("gitops/applications/mine.yaml").exists());
}

#[test]
fn control_characters_in_names_dont_reach_the_terminal() {
    let victim = Victim::in_use();
    let name = "gitops/applications/a\u{1b}[2J\u{202e}.yaml";
    victim.write(name, "a: 1\n");
    claim(&victim, &["docs/\u{1b}]0;x\u{7}"], false);
    for words in [["render", "--check"].as_slice(), &["render"]] {
        let text = victim.run(words).text();
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
    }
    victim.link("apps/a\u{1b}[2J", "/".as_ref());
    let text = victim.run(&["render"]).text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
