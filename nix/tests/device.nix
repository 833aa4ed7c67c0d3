# The name of a disk, for a test that looks whether udev makes it. Both are JSON.
{ disk, reported }:
let
  known = builtins.fromJSON reported;
in
(import ../lib).disks.device (builtins.fromJSON disk) (
  removeAttrs known (builtins.filter (name: known.${name} == null) (builtins.attrNames known))
)
