# What Longhorn is told of a machine's disks.
let
  inherit (import ./disks.nix) longhornMounts;
  inherit (import ./util.nix) optionalAttrs;
  bytesPerGib = 1073741824;
in
{
  # Whether the machine gives Longhorn disks that its node should be marked for.
  wanted =
    undercroft:
    undercroft.longhorn.enable
    && undercroft.kubernetes.enable
    && longhornMounts undercroft.disks != [ ];

  # The value of the annotation node.longhorn.io/default-disks-config. Longhorn reads it while the
  # node has no disks yet, and one error in it voids all of it. A share can't be said there, only
  # bytes; for a disk of unknown size Longhorn's own default share holds.
  annotation =
    undercroft:
    let
      inherit (undercroft.longhorn) reservedPercent diskTags;
    in
    builtins.toJSON (
      map (
        mount:
        {
          inherit (mount) path;
          allowScheduling = true;
          tags = diskTags;
        }
        // optionalAttrs (mount.sizeGb != null) {
          storageReserved = mount.sizeGb * bytesPerGib / 100 * reservedPercent;
        }
      ) (longhornMounts undercroft.disks)
    );
}
