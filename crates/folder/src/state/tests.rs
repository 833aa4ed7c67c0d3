use std::os::unix::fs::symlink;

use super::*;

#[test]
fn only_a_file_that_hides_everything_counts() {
    for (text, hides) in [
        (IGNORE_TEXT, true),
        ("*", true),
        ("*\r\n", true),
        ("*\n!operator-identity.txt\n", false),
        ("", false),
        (
            "# What Undercroft knows of this fleet. It holds priv",
            false,
        ),
        ("*.txt\n", false),
    ] {
        assert_eq!(ignores_all(text.as_bytes()), hides, "{text:?}");
    }
}

#[test]
fn a_new_folder_is_closed_and_hidden_and_an_old_one_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(STATE_FOLDER);
    assert!(!verify(&state).unwrap());
    make(&state).unwrap();
    let ignore = state.join(IGNORE_FILE);
    assert_eq!(std::fs::read_to_string(&ignore).unwrap(), IGNORE_TEXT);
    for broken in ["", "# What Undercroft", "*\n!*.txt\n"] {
        std::fs::write(&ignore, broken).unwrap();
        std::fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        make(&state).unwrap();
        assert_eq!(std::fs::read_to_string(&ignore).unwrap(), IGNORE_TEXT);
        assert_eq!(
            std::fs::metadata(&state).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    std::fs::write(&ignore, "# mine\n*\n").unwrap();
    make(&state).unwrap();
    assert_eq!(std::fs::read_to_string(&ignore).unwrap(), "# mine\n*\n");
}

#[test]
fn links_and_special_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(STATE_FOLDER);
    std::fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", &state).unwrap();
    assert!(matches!(verify(&state), Err(StateError::Link { .. })));
    assert!(matches!(make(&state), Err(StateError::Link { .. })));
    std::fs::remove_file(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    assert!(verify(&state).is_err());
    std::fs::remove_file(&state).unwrap();
    make(&state).unwrap();
    let link = state.join("rack/machines/a/disk0.img");
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink("/dev/null", &link).unwrap();
    let error = verify(&state).unwrap_err();
    assert!(error.to_string().contains("disk0.img"), "{error}");
    std::fs::remove_file(&link).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &link, 0o600.into()).unwrap();
    assert!(matches!(verify(&state), Err(StateError::Special { .. })));
    std::fs::remove_file(&link).unwrap();
    assert!(verify(&state).unwrap());
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        undercroft_testkit::skip("only root can give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(STATE_FOLDER);
    make(&state).unwrap();
    let key = state.join("operator-identity.txt");
    std::fs::write(&key, "").unwrap();
    std::os::unix::fs::chown(&key, Some(4321), None).unwrap();
    let error = verify(&state).unwrap_err();
    assert!(
        matches!(error, StateError::Foreign { owner: 4321, .. }),
        "{error}"
    );
    // Where root works in the folder of that user, it is as it should be.
    std::os::unix::fs::chown(dir.path(), Some(4321), None).unwrap();
    assert!(verify(&state).unwrap());
}
