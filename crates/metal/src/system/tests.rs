use std::os::unix::fs::symlink;

use super::*;

const PATH: &str = "/nix/store/00000000000000000000000000000000-nixos-system-gpu-01-1";

fn node() -> NodeSystem {
    NodeSystem {
        name: "gpu-01".to_owned(),
        arch: Arch::X86_64,
        authorized_keys: Vec::new(),
    }
}

fn store_with_system(system: &str) -> (tempfile::TempDir, NixStore) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join(PATH.trim_start_matches('/'));
    fs::create_dir_all(real.join("bin")).unwrap();
    for file in [
        "init",
        "bin/switch-to-configuration",
        "../kernel",
        "../initrd",
    ] {
        fs::write(real.join(file), "x").unwrap();
    }
    for file in ["kernel", "initrd"] {
        symlink(format!("/nix/store/{file}"), real.join(file)).unwrap();
    }
    fs::write(real.join("system"), system).unwrap();
    let store = NixStore::Local {
        root: dir.path().to_owned(),
    };
    (dir, store)
}

#[test]
fn a_system_is_known_by_its_files_and_by_what_it_is_for() {
    let (dir, store) = store_with_system("x86_64-linux");
    check_system(PATH, &store, &node()).unwrap();
    fs::remove_file(dir.path().join("nix/store/kernel")).unwrap();
    insta::assert_snapshot!(check_system(PATH, &store, &node()).unwrap_err(), @r"
    /nix/store/00000000000000000000000000000000-nixos-system-gpu-01-1 isn't a NixOS system: it has no kernel
      try: name `config.system.build.toplevel` of a NixOS configuration
    ");
    let (_dir, store) = store_with_system("aarch64-linux");
    insta::assert_snapshot!(check_system(PATH, &store, &node()).unwrap_err(), @r"
    /nix/store/00000000000000000000000000000000-nixos-system-gpu-01-1 is for aarch64-linux, and gpu-01 is x86_64-linux
      try: set nixpkgs.hostPlatform of that configuration, or the node's system in undercroft.toml
    ");
}

#[test]
fn a_path_that_is_no_store_path_is_refused() {
    for path in [
        "/etc",
        "/nix/store",
        "/nix/store/x",
        "/nix/store/../../etc/passwd",
        "relative",
    ] {
        let error = check_system(path, &NixStore::Default, &node()).unwrap_err();
        assert!(
            matches!(error, SystemError::NoPath { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn a_folder_without_a_flake_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let builder = SystemBuilder::Flake {
        dir: dir.path().to_owned(),
        cache_dir: dir.path().to_owned(),
    };
    let error = builder.build(&node(), &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("has no flake.nix") && error.contains("undercroft init"),
        "{error}"
    );
}
