use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const MAX: u64 = 1000;

fn folder() -> (tempfile::TempDir, Confined) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("outside"), "secret").unwrap();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    std::fs::write(dir.path().join("elsewhere/file"), "secret").unwrap();
    (dir, Confined::new(root))
}

#[test]
fn a_name_leads_downwards_or_nowhere() {
    let (dir, confined) = folder();
    let outside = dir.path().join("outside");
    for name in [
        "../outside",
        "a/../../outside",
        "",
        ".",
        "..",
        outside.to_str().unwrap(),
    ] {
        assert!(
            matches!(confined.read(name, MAX), Err(ConfinedError::Outside { .. })),
            "{name}"
        );
        assert!(
            confined.replace(name, b"x", Modes::PUBLIC).is_err(),
            "{name}"
        );
        assert!(confined.remove(name).is_err(), "{name}");
    }
    assert_eq!(std::fs::read(outside).unwrap(), b"secret");
    assert_eq!(confined.read("nothing/at/all", MAX).unwrap(), None);
    assert_eq!(confined.list("nothing").unwrap(), []);
}

#[test]
fn no_link_is_followed_wherever_it_stands() {
    let (dir, confined) = folder();
    let root = confined.root().to_owned();
    symlink("../outside", root.join("link")).unwrap();
    symlink("../elsewhere", root.join("folder")).unwrap();
    symlink("/proc/self", root.join("proc")).unwrap();
    symlink("nothing", root.join("dangling")).unwrap();
    std::fs::create_dir(root.join("inner")).unwrap();
    std::fs::write(root.join("inner/file"), "own").unwrap();
    symlink("inner/file", root.join("own")).unwrap();
    for name in ["link", "folder/file", "proc/environ", "dangling", "own"] {
        let refused = |error: ConfinedError| {
            assert!(
                matches!(error, ConfinedError::Link { .. }),
                "{name}: {error}"
            );
        };
        refused(confined.read(name, MAX).unwrap_err());
        refused(confined.read_beginning(name, MAX).unwrap_err());
        refused(confined.replace(name, b"x", Modes::PUBLIC).unwrap_err());
        refused(confined.write_new(name, b"x", Modes::PUBLIC).unwrap_err());
        refused(confined.remove(name).unwrap_err());
        refused(confined.open_own(name).unwrap_err());
        refused(confined.require_own(name).unwrap_err());
        refused(confined.make_executable(name).unwrap_err());
    }
    assert!(confined.list("folder").is_err());
    assert_eq!(confined.kind("folder").unwrap(), Some(FileKind::Link));
    assert_eq!(
        std::fs::read(dir.path().join("outside")).unwrap(),
        b"secret"
    );
    let elsewhere = std::fs::read_dir(dir.path().join("elsewhere")).unwrap();
    assert_eq!(elsewhere.count(), 1);
}

#[test]
fn only_files_of_a_sane_size_are_read() {
    let (_dir, confined) = folder();
    let root = confined.root().to_owned();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), 0o600.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    std::fs::create_dir(root.join("folder")).unwrap();
    for name in ["fifo", "socket", "folder"] {
        let refused = confined.read(name, MAX).unwrap_err();
        assert!(
            matches!(refused, ConfinedError::NotAFile { .. }),
            "{refused}"
        );
        assert!(confined.replace(name, b"x", Modes::PUBLIC).is_err());
        assert!(confined.remove(name).is_err());
        assert!(confined.open_own(name).is_err());
    }
    let huge = File::create(root.join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(matches!(
        confined.read("huge", MAX),
        Err(ConfinedError::TooLarge { .. })
    ));
    let beginning = confined.read_beginning("huge", MAX).unwrap().unwrap();
    assert_eq!(beginning.len(), 1000);
    std::fs::write(root.join("exact"), vec![b'x'; 1000]).unwrap();
    assert_eq!(confined.read("exact", MAX).unwrap().unwrap().len(), 1000);
}

#[test]
fn what_is_written_is_whole_and_nothing_else_is_left() {
    let (_dir, confined) = folder();
    for (i, state) in [false, true].into_iter().enumerate() {
        if state {
            std::fs::create_dir(confined.root().join(".undercroft")).unwrap();
        }
        let name = format!("a/{i}/file");
        confined.write_new(&name, b"one", Modes::PRIVATE).unwrap();
        assert!(matches!(
            confined.write_new(&name, b"two", Modes::PRIVATE),
            Err(ConfinedError::Exists { .. })
        ));
        assert_eq!(confined.read(&name, MAX).unwrap().unwrap(), b"one");
        confined.replace(&name, b"three", Modes::PUBLIC).unwrap();
        assert_eq!(confined.read(&name, MAX).unwrap().unwrap(), b"three");
        let meta = std::fs::metadata(confined.root().join(&name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o644);
        let entries = confined.list(format!("a/{i}")).unwrap();
        assert_eq!(entries.len(), 1, "{entries:?}");
    }
    assert_eq!(confined.list(".undercroft").unwrap(), []);
    assert!(confined.remove("a/0/file").unwrap());
    assert!(!confined.remove("a/0/file").unwrap());
    assert!(confined.remove_empty_folder("a/0").unwrap());
    assert!(!confined.remove_empty_folder("a").unwrap());
}

/// A folder that is a link one moment and a folder the next, while it is written to and read from.
#[test]
fn a_link_that_comes_and_goes_never_leads_out() {
    let (dir, confined) = folder();
    let root = confined.root().to_owned();
    std::fs::create_dir(root.join("real")).unwrap();
    std::fs::write(root.join("real/file"), "own").unwrap();
    symlink("../elsewhere", root.join("link")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for target in ["real", "link"] {
                    let _ = std::fs::rename(root.join(target), root.join("folder"));
                    let _ = std::fs::rename(root.join("folder"), root.join(target));
                }
            }
        });
        for _ in 0..3000 {
            if let Ok(Some(bytes)) = confined.read("folder/file", MAX) {
                assert_ne!(bytes, b"secret");
            }
            let _ = confined.replace("folder/file", b"new", Modes::PUBLIC);
            let _ = confined.remove("folder/other");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let elsewhere = dir.path().join("elsewhere");
    assert_eq!(std::fs::read(elsewhere.join("file")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 1);
}

#[test]
fn what_was_left_behind_is_known_and_taken_away() {
    let (_dir, confined) = folder();
    let root = confined.root().to_owned();
    std::fs::create_dir(root.join("secrets")).unwrap();
    let left = [
        ".undercroft-new-0123456789abcdef",
        ".new-Ab12Cd",
        ".tmpAb12Cd",
    ];
    let kept = [
        ".undercroft-new-0123",
        ".new-",
        ".tmp",
        ".tmp-Ab12C",
        ".newer",
        "x.new-Ab12Cd",
    ];
    for name in left.iter().chain(&kept) {
        std::fs::write(root.join("secrets").join(name), "half").unwrap();
    }
    symlink("/etc/passwd", root.join("secrets/.tmpLink00")).unwrap();
    // One that is being written.
    let busy = File::create(root.join("secrets/.new-Busy00")).unwrap();
    rustix::fs::flock(&busy, rustix::fs::FlockOperation::LockExclusive).unwrap();
    confined.clear_leftovers("secrets");
    for name in left {
        assert!(!root.join("secrets").join(name).exists(), "{name}");
    }
    for name in kept.iter().chain(&[".new-Busy00", ".tmpLink00"]) {
        assert!(
            root.join("secrets").join(name).symlink_metadata().is_ok(),
            "{name}"
        );
    }
}

#[test]
fn a_file_of_ones_own_has_one_name_and_is_closed() {
    let (dir, confined) = folder();
    let file = confined.open_own("state/lock").unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let path = confined.root().join("state/lock");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    confined.require_own("state/lock").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    std::fs::hard_link(dir.path().join("outside"), confined.root().join("second")).unwrap();
    assert!(matches!(
        confined.open_own("second"),
        Err(ConfinedError::SecondName { .. })
    ));
    confined.require_own("nothing").unwrap();
    assert_eq!(confined.kind("nothing").unwrap(), None);
}
