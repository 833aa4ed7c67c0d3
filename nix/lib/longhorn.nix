# What Longhorn is told of a machine's disks.
let
  inherit (import ./disks.nix) longhornMounts;
  inherit (import ./util.nix) indexed;
  bytesPerGib = 1073741824;
in
{
  # Whether the machine gives Longhorn disks that its node is to be marked for.
  wanted =
    undercroft:
    undercroft.longhorn.enable
    && longhornMounts undercroft.disks != [ ];

  # The value of the annotation node.longhorn.io/default-disks-config. Longhorn reads it while the
  # node has no disks yet, and one error in it voids all of it. A share can't be said there, only
  # bytes, and of a disk of unknown size none can be kept free.
  annotation =
    undercroft:
    let
      inherit (undercroft.longhorn) reservedPercent diskTags;
      sizeGb = mount: if mount.sizeGb == null then 0 else mount.sizeGb;
    in
    builtins.toJSON (
      indexed (place: mount: {
        name = "undercroft-${toString (place + 1)}";
        inherit (mount) path;
        allowScheduling = true;
        storageReserved = sizeGb mount * bytesPerGib / 100 * reservedPercent;
        tags = diskTags;
      }) (longhornMounts undercroft.disks)
    );
}
