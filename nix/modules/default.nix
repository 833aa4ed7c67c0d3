# All NixOS modules of Undercroft, one concern each. A configuration that uses mkFleet has them
# already; any other may import this file, or single ones of it, and set undercroft.* by hand.
{
  imports = [
    ./boot.nix
    ./compat.nix
    ./controller.nix
    ./disks.nix
    ./gpu.nix
    ./hats.nix
    ./health.nix
    ./lending.nix
    ./lent-builds.nix
    ./kubernetes
    ./longhorn.nix
    ./nats.nix
    ./node-exporter.nix
    ./node.nix
    ./overlay/client.nix
    ./overlay/headscale.nix
    ./phones.nix
    ./pi.nix
    ./secrets.nix
    ./ssh.nix
    ./unfree.nix
    ./users.nix
  ];
}
