# The pure half of the library: values in, values out, with nothing but Nix's own builtins. It can
# be evaluated, and is tested, where there is no nixpkgs.
{
  util = import ./util.nix;
  addresses = import ./addresses.nix;
  disks = import ./disks.nix;
  fleet = import ./fleet.nix;
  gpu = import ./gpu.nix;
  kubeadm = import ./kubeadm.nix;
  kubernetes = import ./kubernetes.nix;
  lending = import ./lending.nix;
  longhorn = import ./longhorn.nix;
  nats = import ./nats.nix;
  # What the command asks of an installed machine: crates/model, on_machine.rs, has the same.
  onMachine = builtins.fromJSON (builtins.readFile ./on-machine.json);
  overlay = import ./overlay.nix;
  pcs = import ./pcs.nix;
  secrets = import ./secrets.nix;
}
