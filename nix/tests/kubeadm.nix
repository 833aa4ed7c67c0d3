# What the machines of an inventory give kubeadm, with the secrets that a fleet has: the files as
# the modules write them, for tests that have the real kubeadm read them.
{
  src,
  # Of the package of Kubernetes.
  version,
}:
let
  undercroft = import ../lib;
  fleet = undercroft.fleet.read src;
  files =
    settings:
    let
      isServer = settings.kubernetes.role == "server";
      values = undercroft.kubeadm (
        settings
        // {
          kubernetes = settings.kubernetes // {
            inherit version;
          };
          secrets.wanted = if isServer then { "kubeadm/encryption-config.yaml" = { }; } else { };
        }
      );
    in
    {
      init = values.initFile;
      join = builtins.toJSON values.joinConfiguration;
      inherit (settings.node) name address;
      inherit (settings.kubernetes)
        role
        founder
        founderAddress
        serverUrl
        ;
    };
in
builtins.mapAttrs (_: files) (undercroft.fleet.nodes fleet)
