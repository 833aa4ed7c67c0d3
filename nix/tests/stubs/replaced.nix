# Modules of nixpkgs that have changed beyond adding options, by the path of their options.
{
  # extraFlags was a text, and is a text or a list since 24.05.
  "services.k3s" = {
    module = "services/cluster/k3s/default.nix";
    unless = "services.k3s.tokenFile";
  };
}
