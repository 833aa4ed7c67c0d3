# What every installed machine has.
{
  name,
  node,
  rootKeys,
  fleet,
}:
{ lib, modulesPath, ... }:
{
  imports = [ (modulesPath + "/installer/scan/not-detected.nix") ];

  networking.hostName = lib.mkDefault name;
  networking.useDHCP = lib.mkDefault true;
  system.stateVersion = lib.mkDefault (fleet.state_version or "24.11");

  # The labels that Undercroft's own layout gives; a disko module of one's own replaces them.
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
  fileSystems."/boot" = lib.mkDefault {
    device = "/dev/disk/by-label/ESP";
    fsType = "vfat";
    options = [ "umask=0077" ];
  };

  boot.loader.systemd-boot.enable = lib.mkDefault true;
  boot.loader.efi.canTouchEfiVariables = lib.mkDefault true;
  # A machine that can't come up says so and starts again, rather than waiting for a hand.
  boot.kernelParams = [ "panic=10" ];

  services.openssh = {
    enable = true;
    # The key that is made at plan time and delivered before the first boot.
    hostKeys = [
      {
        type = "ed25519";
        path = "/etc/ssh/ssh_host_ed25519_key";
      }
    ];
    settings.PasswordAuthentication = false;
    settings.KbdInteractiveAuthentication = false;
  };
  users.users.root.openssh.authorizedKeys.keys = rootKeys;
}
