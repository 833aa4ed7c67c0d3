# The command `undercroft`, of this repository's sources.
{
  lib,
  rustPlatform,
}:
rustPlatform.buildRustPackage {
  pname = "undercroft";
  inherit ((lib.importTOML ../../Cargo.toml).workspace.package) version;

  # What is compiled, and nothing whose change would compile it again: pages, examples, modules.
  src = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [
      ../../Cargo.lock
      ../../Cargo.toml
      ../../crates
      ../../xtask
      ../lib
      ../rack-system
    ];
  };
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [
    "--package"
    "undercroft"
  ];
  # The tests want the programs of others, root, and a network: `cargo xtask test`.
  doCheck = false;

  meta = {
    description = "From powered off to a running NixOS fleet, from one file";
    license = lib.licenses.asl20;
    mainProgram = "undercroft";
    platforms = lib.platforms.linux;
  };
}
