use std::process::Command;

use super::*;

fn git(dir: &Path, args: &[&str]) -> bool {
    Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A repository, made with these arguments, that tracks files before and after the state folder.
fn repository(init: &[&str]) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    if !git(dir.path(), &[&["init", "-q"], init].concat()) {
        undercroft_testkit::skip(format!("git can't `init` here with {init:?}"));
        return None;
    }
    for file in [
        "a",
        ".undercroft-not/a",
        "fleet/a/b/c/d/e",
        "z".repeat(300).as_str().get(..200).unwrap(),
    ] {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    assert!(git(dir.path(), &["add", "-A"]));
    Some(dir)
}

#[test]
fn what_git_tracks_is_found_in_every_form_of_the_index() {
    let forms: [(&[&str], &[&[&str]]); 5] = [
        (&[], &[]),
        (&[], &[&["update-index", "--index-version", "4"]]),
        (
            &[],
            &[
                &["update-index", "--index-version", "3"],
                &["update-index", "--skip-worktree", "a"],
            ],
        ),
        (&["--object-format=sha256"], &[]),
        (&[], &[&["update-index", "--split-index"]]),
    ];
    for (init, then) in forms {
        let Some(dir) = repository(init) else {
            return;
        };
        for words in then {
            assert!(git(dir.path(), words), "{words:?}");
        }
        let state = dir.path().join(".undercroft");
        assert_eq!(first_tracked(&state).unwrap(), None, "{init:?} {then:?}");
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("journal.db"), "x").unwrap();
        assert_eq!(first_tracked(&state).unwrap(), None);
        assert!(git(dir.path(), &["add", "-f", ".undercroft/journal.db"]));
        assert_eq!(
            first_tracked(&state).unwrap().as_deref(),
            Some(".undercroft/journal.db"),
            "{init:?} {then:?}"
        );
        // It may be gone from the folder and still be in the index.
        std::fs::remove_dir_all(&state).unwrap();
        assert!(first_tracked(&state).unwrap().is_some());
        assert!(git(
            dir.path(),
            &["rm", "-q", "-r", "--cached", ".undercroft"]
        ));
        if then.iter().all(|words| !words.contains(&"--split-index")) {
            assert_eq!(first_tracked(&state).unwrap(), None);
        }
    }
}

#[test]
fn a_fleet_may_be_a_folder_of_a_repository_and_a_worktree() {
    let Some(dir) = repository(&[]) else {
        return;
    };
    let fleet = dir.path().join("fleet");
    std::fs::create_dir(fleet.join(".undercroft")).unwrap();
    std::fs::write(fleet.join(".undercroft/x"), "").unwrap();
    assert!(git(&fleet, &["add", "-f", ".undercroft/x"]));
    let found = first_tracked(&fleet.join(".undercroft")).unwrap();
    assert_eq!(found.as_deref(), Some("fleet/.undercroft/x"));
    assert_eq!(
        first_tracked(&dir.path().join(".undercroft")).unwrap(),
        None
    );
    assert!(git(dir.path(), &["commit", "-qm", "x"]));
    let other = tempfile::tempdir().unwrap();
    let tree = other.path().join("tree");
    assert!(git(
        dir.path(),
        &["worktree", "add", "-q", "-b", "b", tree.to_str().unwrap()]
    ));
    let found = first_tracked(&tree.join("fleet/.undercroft")).unwrap();
    assert_eq!(found.as_deref(), Some("fleet/.undercroft/x"));
}

#[test]
fn a_link_and_a_repository_within_are_entries_too() {
    let Some(dir) = repository(&[]) else {
        return;
    };
    let state = dir.path().join(".undercroft");
    std::os::unix::fs::symlink("/tmp", &state).unwrap();
    assert!(git(dir.path(), &["add", "-f", ".undercroft"]));
    assert_eq!(
        first_tracked(&state).unwrap().as_deref(),
        Some(".undercroft")
    );
}

#[test]
fn an_index_that_is_cut_off_or_of_another_kind_is_no_answer() {
    let Some(dir) = repository(&[]) else {
        return;
    };
    let index = dir.path().join(".git/index");
    let state = dir.path().join(".undercroft");
    let whole = std::fs::read(&index).unwrap();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert!(search(cut, 20, b".undercroft").is_none_or(|(found, _)| found.is_none()));
        assert!(search(cut, 32, b".undercroft").is_none_or(|(found, _)| found.is_none()));
    }
    std::fs::write(&index, "DIRC and more").unwrap();
    assert!(first_tracked(&state).is_err());
    std::fs::remove_file(&index).unwrap();
    assert_eq!(first_tracked(&state).unwrap(), None);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_index_or_none(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        version in 0_u8..6,
        entries in 0_u8..4,
    ) {
        let head = [b"DIRC\0\0\0".as_slice(), &[version, 0, 0, 0, entries]].concat();
        for length in NAME_BYTES {
            let _ = search(&bytes, length, b".undercroft");
            let _ = search(&[head.as_slice(), &bytes].concat(), length, b".undercroft");
        }
    }
}
