# What the pure half derives beside a machine's settings, for one inventory: what a test compares
# with what the model, the catalogue of secrets and the rendered tree say of the same.
{ src }:
let
  undercroft = import ../lib;
  fleet = undercroft.fleet.read src;
  settings = undercroft.fleet.nodes fleet;
in
{
  secrets = builtins.mapAttrs (
    _: machine: undercroft.secrets.cluster machine // undercroft.secrets.overlay machine
  ) settings;
  taints = builtins.mapAttrs (
    _: machine: (undercroft.kubeadm machine).joinConfiguration.nodeRegistration.taints
  ) settings;
}
