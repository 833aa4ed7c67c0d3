# The pure half over one inventory, as JSON-able values: what nix/tests/golden/*.json keep.
{ src }:
let
  undercroft = import ../lib;
  fleet = undercroft.fleet.read src;
  common = undercroft.fleet.shared { inherit (fleet) inventory operatorKeys; };
in
{
  nodes = builtins.mapAttrs (_: settings: {
    inherit settings;
    derived = undercroft.fleet.derived settings;
  }) (undercroft.fleet.nodes fleet);
  pcs = builtins.mapAttrs (_: pc: {
    inherit (pc) settings;
    homes = builtins.mapAttrs (_: home: home.settings) pc.homes;
  }) (undercroft.pcs.pcs common);
}
