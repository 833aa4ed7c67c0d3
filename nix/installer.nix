# The installer as a NixOS system that is booted over the network, for machines whose operator
# has nixpkgs. It runs the same programs as the installer that is made from Debian's packages, and
# says the same to the controller.
#
# It builds on nixpkgs' own netboot-minimal profile. Use it through ./installer-image.nix.
{
  config,
  lib,
  pkgs,
  modulesPath,
  ...
}:
let
  # The programs find each other, and what they keep, under /undercroft.
  programs = pkgs.runCommandLocal "undercroft-installer-programs" { } ''
    cp -r ${../crates/build/src/installer/assets/undercroft} $out
    chmod -R u+w $out
    # NixOS has its own SSH server and its own network setup.
    rm $out/sshd $out/network $out/dhcp-event
  '';
  version = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).workspace.package.version;
  state = "/run/undercroft";
in
{
  imports = [ (modulesPath + "/installer/netboot/netboot-minimal.nix") ];

  # os-release says VARIANT_ID=installer already: the installer profiles of nixpkgs set it.
  networking.hostName = "undercroft-installer";
  networking.useDHCP = lib.mkForce true;
  # The profile brings NetworkManager, from 25.05 on in the minimal image too: two clients would ask
  # for an address each.
  networking.networkmanager.enable = lib.mkForce false;
  boot.kernelParams = [ "panic=10" ];

  environment.systemPackages = [
    pkgs.gptfdisk
    pkgs.dosfstools
    pkgs.e2fsprogs
    pkgs.efibootmgr
  ];
  environment.etc."undercroft-installer".text = "undercroft-installer ${version} (nix)\n";
  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];
  # What is copied to the new root was built and checked by the operator.
  nix.settings.require-sigs = false;
  nix.settings.substituters = lib.mkForce [ ];

  # A layout names a disk by its serial number, as the inventory does.
  services.udev.extraRules = (import ./lib).disks.udevRules;

  systemd.tmpfiles.rules = [ "L+ /undercroft - - - - ${programs}" ];

  # Keys only; the host key is this boot's own, and the operator's keys come from the controller.
  services.openssh = {
    enable = true;
    hostKeys = [
      {
        type = "ed25519";
        path = "${state}/ssh_host_ed25519_key";
      }
    ];
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = lib.mkForce "prohibit-password";
    };
  };
  systemd.services.sshd.wantedBy = lib.mkOverride 0 [ "multi-user.target" ];
  # The installer profiles log a user in on every console, and give root an empty password.
  services.getty.autologinUser = lib.mkForce null;
  users.users.root.initialHashedPassword = lib.mkForce "!";
  users.users.nixos.initialHashedPassword = lib.mkForce "!";

  systemd.services.undercroft-identity = {
    description = "This boot's identity";
    wantedBy = [ "multi-user.target" ];
    # From 25.05 on a unit of nixpkgs makes host keys that aren't there yet: it comes after.
    before = [
      "sshd.service"
      "sshd-keygen.service"
    ];
    requiredBy = [ "sshd.service" ];
    path = [
      config.programs.ssh.package
      pkgs.gawk
    ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      UMask = "0077";
    };
    script = ''
      mkdir -p ${state}
      key=${state}/ssh_host_ed25519_key
      [ -e $key ] || ssh-keygen -q -t ed25519 -N "" -C "" -f $key
      awk '{ print $1, $2 }' $key.pub >${state}/host_key
      ssh-keygen -l -E sha256 -f $key.pub | awk '{ print $2 }' >${state}/fingerprint
      head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >${state}/nonce
      echo >>${state}/nonce
      : >${state}/identified
    '';
  };

  systemd.services.undercroft-address = {
    description = "The address that the controller can reach";
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ];
    path = [
      pkgs.iproute2
      pkgs.gawk
    ];
    serviceConfig = {
      Type = "oneshot";
      Restart = "on-failure";
      RestartSec = 2;
    };
    # The source address of the way to the controller, which takes a report only from the address
    # that it names; or else the first global address.
    script = ''
      controller=$(awk 'BEGIN { RS = "[ \n]" } sub("^undercroft.report=http://", "") { sub("[:/].*", ""); print; exit }' /proc/cmdline)
      address=$(ip -4 -o route get "$controller" 2>/dev/null | awk '{ for (i = 1; i < NF; i++) if ($i == "src") { print $(i + 1); exit } }')
      [ -n "$address" ] ||
        address=$(ip -4 -o addr show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
      [ -n "$address" ]
      mkdir -p ${state}
      echo "$address" >${state}/address
    '';
  };

  systemd.services.undercroft-report = {
    description = "The report to the controller";
    wantedBy = [ "multi-user.target" ];
    path = [
      pkgs.busybox
      pkgs.util-linux
    ];
    serviceConfig = {
      ExecStart = "/undercroft/report";
      Restart = "always";
      RestartSec = 5;
    };
  };

  systemd.services.undercroft-console = {
    description = "This boot's identity on every console";
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.busybox ];
    serviceConfig = {
      ExecStart = "/undercroft/console";
      Restart = "always";
      RestartSec = 5;
    };
  };
}
