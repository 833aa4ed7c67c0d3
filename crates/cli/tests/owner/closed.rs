//! What is closed to a user is said as what it is.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::desk::{ADA, BOB, Desk, finish, give};

/// Commands that use what is known of a fleet.
const USES: &[&[&str]] = &[
    &["status"],
    &["approve"],
    &["events"],
    &["doctor", "box-01"],
    &["plan"],
    &["ssh", "box-01"],
    &["secrets", "list"],
    &["secrets", "init"],
    &["rack", "status"],
];

#[test]
fn a_state_folder_that_sudo_has_left_is_known_and_the_command_that_mends_it_works() {
    let Some(desk) = Desk::new() else { return };
    assert_eq!(desk.as_user(ADA, &["secrets", "init"]).code, 0);
    let state = desk.fleet().join(".undercroft");
    for args in USES {
        give(&state, 0);
        for ran in [desk.as_user(ADA, args), desk.sudo(ADA, args)] {
            let text = &ran.text;
            assert!([1, 65].contains(&ran.code), "{args:?}: {text}");
            assert!(text.contains("belongs to root (uid 0)"), "{args:?}: {text}");
            let mend = text.split("sudo chown").nth(1);
            let mend = mend.unwrap_or_else(|| panic!("{args:?}: {text}"));
            let mend = format!("chown{}", mend.lines().next().unwrap());
            assert_eq!(
                finish(Command::new("sh").args(["-c", &mend])).code,
                0,
                "{mend}"
            );
            assert_eq!(
                desk.not_adas(&desk.fleet()),
                [] as [std::path::PathBuf; 0],
                "{mend}"
            );
            give(&state, 0);
        }
    }
}

#[test]
fn what_is_somebody_elses_never_seems_to_be_missing() {
    let Some(desk) = Desk::new() else { return };
    assert_eq!(desk.as_user(ADA, &["secrets", "init"]).code, 0);
    for args in USES {
        let ran = desk.as_user(BOB, args);
        let text = &ran.text;
        assert_ne!(ran.code, 0, "{args:?}: {text}");
        for words in [
            format!("belongs to uid {ADA}"),
            format!("you are uid {BOB}"),
        ] {
            assert!(text.contains(&words), "{args:?}: {text}");
        }
        assert!(text.contains("sudo -u"), "{args:?}: {text}");
        for wrong in [
            "code 14",
            "No machine waits",
            "Nothing was carried out",
            "is missing",
        ] {
            assert!(!text.contains(wrong), "{args:?}: {text}");
        }
    }
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_file_that_is_closed_is_named_with_its_owner() {
    let Some(desk) = Desk::new() else { return };
    assert_eq!(desk.as_user(ADA, &["secrets", "init"]).code, 0);
    assert_eq!(desk.as_user(ADA, &["plan"]).code, 2);
    desk.sudo(ADA, &["up", "--yes"]);
    let cases: &[(&str, &[&str])] = &[
        (".undercroft/journal.db", &["status"]),
        (".undercroft/journal.db", &["approve"]),
        (".undercroft/operator-identity.txt", &["secrets", "init"]),
        ("secrets", &["secrets", "init"]),
        ("secrets/host-keys", &["secrets", "check"]),
        ("undercroft.toml", &["check"]),
    ];
    for (file, args) in cases {
        let path = desk.fleet().join(file);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let closed = if path.is_dir() { 0o700 } else { 0o600 };
        // Root's, and the user's own but closed.
        for (owner, mode) in [(0, closed), (ADA, 0o000)] {
            std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let ran = desk.as_user(ADA, args);
            let text = &ran.text;
            assert_ne!(ran.code, 0, "{file} {args:?}: {text}");
            assert!(text.contains(file), "{file} {args:?}: {text}");
            let way = if owner == 0 {
                "sudo chown -R"
            } else {
                "chmod u+rwX"
            };
            assert!(text.contains(way), "{file} {args:?}: {text}");
            assert!(!text.contains("code 14"), "{file} {args:?}: {text}");
        }
        std::os::unix::fs::chown(&path, Some(ADA), None).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
