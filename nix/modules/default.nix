# All NixOS modules of Undercroft, one concern each. A configuration that uses mkFleet has them
# already; any other may import this file, or single ones of it, and set undercroft.* by hand.
{
  imports = [
    ./node.nix
  ];
}
