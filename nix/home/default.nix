# A person's home on a PC: tools, identity, access to the fleet, a cluster of one's own, and
# lending. The same on every operating system; a module of one's own overrides anything.
{
  imports = [
    ./options.nix
    ./identity.nix
    ./tools.nix
    ./ssh.nix
    ./dev-cluster.nix
    ./lending.nix
  ];
}
