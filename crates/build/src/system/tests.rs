use std::{os::unix::fs::symlink, path::Path};

use undercroft_model::advice::with_hint;

use super::*;

const PATH: &str = "/nix/store/00000000000000000000000000000000-nixos-system-gpu-01-1";

fn node() -> NodeSystem {
    NodeSystem {
        name: "gpu-01".to_owned(),
        arch: Arch::X86_64,
        authorized_keys: Vec::new(),
        secrets: None,
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
    insta::assert_snapshot!(with_hint(&check_system(PATH, &store, &node()).unwrap_err()), @r"
    /nix/store/00000000000000000000000000000000-nixos-system-gpu-01-1 isn't a NixOS system: it has no kernel
      try: name `config.system.build.toplevel` of a NixOS configuration
    ");
    let (_dir, store) = store_with_system("aarch64-linux");
    insta::assert_snapshot!(with_hint(&check_system(PATH, &store, &node()).unwrap_err()), @r"
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
    let error = with_hint(&builder.build(&node(), &mut |_| {}).unwrap_err());
    assert!(
        error.contains("has no flake.nix") && error.contains("undercroft init"),
        "{error}"
    );
}

/// Whether Nix is here; where it isn't, the skip is said.
fn has_nix() -> bool {
    let mut nix = std::process::Command::new("nix");
    let there = nix.arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED: nix isn't installed");
    }
    there
}

fn git(dir: &Path, words: &[&str]) -> bool {
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(dir).args(words);
    git.status().is_ok_and(|status| status.success())
}

#[test]
fn nix_never_copies_the_private_identity_and_sees_all_that_a_fleet_reads() {
    if !has_nix() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (flake, cache) = (dir.path().join("fleet"), dir.path().join("cache"));
    let mark = format!("# {}", dir.path().display());
    for (file, text) in [
        (
            "flake.nix",
            "{ outputs = _: { nixosConfigurations.other = { }; }; }",
        ),
        ("undercroft.toml", &mark),
        ("facts/operators.pub", "ssh-ed25519 AAAA"),
        ("secrets/agents.sops.yaml", "sops: {}"),
        ("secrets/host-keys/box-01.age", "for Undercroft itself"),
        (".gitignore", ".undercroft\n"),
        (
            ".undercroft/operator-identity.txt",
            "AGE-SECRET-KEY-PRIVATE",
        ),
    ] {
        fs::create_dir_all(flake.join(file).parent().unwrap()).unwrap();
        fs::write(flake.join(file), text).unwrap();
    }
    let build = || {
        let builder = SystemBuilder::Flake {
            dir: flake.clone(),
            cache_dir: cache.clone(),
        };
        builder.build(&node(), &mut |_| {}).unwrap_err()
    };
    let installer = || {
        let builder = crate::installer::InstallerBuilder::Nix {
            flake: flake.display().to_string(),
            cache_dir: cache.clone(),
        };
        with_hint(&builder.build(Arch::X86_64, &mut |_| {}).unwrap_err())
    };
    // Nix would copy all of it.
    let error = build();
    assert!(error.concerns_the_flake());
    let error = with_hint(&error);
    assert!(
        error.contains("isn't in a git repository") && error.contains("git init"),
        "{error}"
    );
    assert_eq!(installer(), error);

    if !git(&flake, &["init", "-q"]) {
        println!("SKIPPED: git can't `init` here");
        return;
    }
    // Nix would see a part of it.
    assert!(git(&flake, &["add", "flake.nix"]));
    let error = with_hint(&build());
    assert!(
        error.contains("`git add undercroft.toml facts/operators.pub secrets`"),
        "{error}"
    );
    // Wherever the inventory has them.
    let (named, made) = (
        flake.join("undercroft.toml"),
        fs::read(flake.join("undercroft.toml")).unwrap(),
    );
    let inventory = "[fleet]\nname = \"cellar\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\n\
                     server_address = \"10.0.0.2\"\n[secrets]\npath = \"kept\"\n";
    fs::write(&named, inventory).unwrap();
    fs::rename(flake.join("secrets"), flake.join("kept")).unwrap();
    let error = with_hint(&build());
    assert!(
        error.contains("`git add undercroft.toml facts/operators.pub kept`"),
        "{error}"
    );
    fs::rename(flake.join("kept"), flake.join("secrets")).unwrap();
    fs::write(&named, made).unwrap();
    let error = installer();
    assert!(error.contains("`git add undercroft.toml`"), "{error}");

    assert!(git(&flake, &["add", "-A"]));
    let error = build();
    assert!(
        matches!(&error, SystemError::NotInFlake { known, .. } if known == "other"),
        "{error}"
    );
    assert!(installer().contains("does not provide attribute"));
    // The store may be the machine's own: this fleet's copies in it name the test's folder.
    let store = NixStore::choose(&cache).unwrap().physical("/nix/store");
    let copies: Vec<PathBuf> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|copy| {
            let file = fs::read_to_string(copy.join("undercroft.toml"));
            file.is_ok_and(|text| text == mark)
        })
        .collect();
    assert!(!copies.is_empty(), "this is where Nix copies to");
    for copy in copies {
        assert!(copy.join("facts/operators.pub").exists());
        assert!(!copy.join(".undercroft").exists(), "{}", copy.display());
    }
}

#[test]
fn a_foreign_flake_is_refused_with_what_it_has() {
    if !has_nix() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().join("flake");
    fs::create_dir(&flake).unwrap();
    fs::write(flake.join("flake.nix"), "").unwrap();
    if !git(&flake, &["init", "-q"]) || !git(&flake, &["add", "flake.nix"]) {
        println!("SKIPPED: git can't `init` here");
        return;
    }
    let build = |text: &str| {
        fs::write(flake.join("flake.nix"), text).unwrap();
        let builder = SystemBuilder::Flake {
            dir: flake.clone(),
            cache_dir: dir.path().join("cache"),
        };
        builder.build(&node(), &mut |_| {}).unwrap_err()
    };
    let error = build("{ outputs = _: { nixosConfigurations.other = { }; }; }");
    assert!(
        matches!(&error, SystemError::NotInFlake { known, .. } if known == "other"),
        "{error}"
    );
    let error = build("{ outputs = _: { packages = { }; }; }");
    assert!(
        matches!(&error, SystemError::NotInFlake { known, .. } if known == "none"),
        "{error}"
    );
    let error = with_hint(&build("{ outputs = _: { nixosConfigurations = ; }; }"));
    assert!(
        error.contains("syntax error") && error.contains("try:"),
        "{error}"
    );
}

#[test]
fn what_disko_makes_anew_is_read_off_the_configuration() {
    if !has_nix() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().join("flake");
    fs::create_dir(&flake).unwrap();
    let text = r#"{ outputs = _: { nixosConfigurations = {
      two.config.disko.devices.disk = {
        root = { device = "/dev/disk/by-id/ata-S1"; type = "disk"; };
        other.device = "/dev/sdb";
      };
      none.config.disko.devices.disk = { };
      own.config.system.build.diskoScript = "somebody's";
    }; }; }"#;
    fs::write(flake.join("flake.nix"), text).unwrap();
    if !git(&flake, &["init", "-q"]) || !git(&flake, &["add", "flake.nix"]) {
        println!("SKIPPED: git can't `init` here");
        return;
    }
    let store = NixStore::choose(&dir.path().join("cache")).unwrap();
    let devices = |name: &str| flake::disko_devices(&flake, name, &store, &mut |_| {}).unwrap();
    // In the order of their names.
    let two = ["/dev/sdb", "/dev/disk/by-id/ata-S1"].map(str::to_owned);
    assert_eq!(devices("two").unwrap(), two);
    assert_eq!(devices("none"), Some(vec![]));
    assert_eq!(devices("own"), None);
}

#[test]
fn the_scripts_of_disko_are_built_where_a_configuration_has_them() {
    if !has_nix() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().join("flake");
    fs::create_dir(&flake).unwrap();
    let text = r#"{ outputs = _: {
      nixosConfigurations = let
        made = name: derivation {
          inherit name;
          # Nix' own builder, of an environment of nothing: no program is needed for it.
          system = "builtin";
          builder = "builtin:buildenv";
          derivations = [ ];
          manifest = builtins.toFile "manifest" "";
        };
        has = names: { config.system.build = builtins.listToAttrs
          (map (name: { inherit name; value = made name; }) names); };
      in {
        both = has [ "toplevel" "diskoScript" "mountScript" ];
        one = has [ "toplevel" "diskoScript" ];
        none = has [ "toplevel" ];
      };
    }; }"#;
    fs::write(flake.join("flake.nix"), text).unwrap();
    if !git(&flake, &["init", "-q"]) || !git(&flake, &["add", "flake.nix"]) {
        println!("SKIPPED: git can't `init` here");
        return;
    }
    let store = NixStore::choose(&dir.path().join("cache")).unwrap();
    for (name, scripts) in [
        ("both", (true, true)),
        ("one", (true, false)),
        ("none", (false, false)),
    ] {
        let built = flake::build(&flake, name, &store, &mut |_| {}).unwrap();
        let is = |path: &Option<String>, kind: &str| {
            path.as_ref().is_some_and(|path| path.ends_with(kind))
        };
        let found = (
            is(&built.disko_script, "-diskoScript"),
            is(&built.disko_mount_script, "-mountScript"),
        );
        assert_eq!(found, scripts, "{name}: {built:?}");
    }
}

#[test]
fn the_same_inputs_give_the_same_closure_and_another_generation_another() {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    if !cache.join("parts/index.json").is_file() {
        println!("SKIPPED: no packages in .cache/parts; `cargo xtask try` fetches them");
        return;
    }
    if !has_nix() {
        return;
    }
    let build = |generation, broken| {
        SystemBuilder::RackDebian {
            cache_dir: cache.clone(),
            generation,
            broken,
        }
        .build(&node(), &mut |line| println!("{line}"))
        .unwrap()
    };
    let first = build(1, false);
    assert!(
        first
            .toplevel
            .ends_with("-nixos-system-gpu-01-0.1.0.debian-rack"),
        "{first:?}"
    );
    assert!(first.closure_bytes > 50_000_000, "{first:?}");
    assert_eq!(build(1, false), first);
    assert_ne!(build(2, false).toplevel, first.toplevel);
    assert_ne!(build(1, true).toplevel, first.toplevel);

    let bootspec = first
        .store
        .resolve(&format!("{}/boot.json", first.toplevel))
        .unwrap();
    let bootspec: serde_json::Value = serde_json::from_slice(&fs::read(bootspec).unwrap()).unwrap();
    let bootspec = &bootspec["org.nixos.bootspec.v1"];
    assert_eq!(bootspec["toplevel"], first.toplevel);
    assert_eq!(bootspec["system"], "x86_64-linux");
    assert!(
        first
            .store
            .resolve(bootspec["kernel"].as_str().unwrap())
            .is_some()
    );

    // Nothing of Debian's file system may be left in how programs find their libraries.
    let nix = first
        .store
        .resolve(&format!("{}/sw/bin/nix-store", first.toplevel))
        .unwrap();
    let elf = crate::debian::elf::parse(&fs::read(nix).unwrap()).unwrap();
    assert!(elf.interpreter.unwrap().starts_with("/nix/store/"));
}
