# Tests of the pure half's functions: { name; expected; actual; } each. The result is how many there
# are, and those that differ.
let
  undercroft = import ../lib;
  overlay = import ../lib/overlay.nix;
  inherit (undercroft)
    addresses
    disks
    fleet
    gpu
    kubernetes
    longhorn
    ;

  test = name: expected: actual: { inherit name expected actual; };

  minimal = {
    fleet.name = "cellar";
    network = {
      node_cidr = "10.0.0.0/24";
      server_address = "10.0.0.2";
    };
    classes.box = { };
    nodes.box-01 = {
      class = "box";
      address = "10.0.0.11";
      disks = [ { serial = "S1"; } ];
    };
  };
  settings = inventory: (fleet.nodes { inherit inventory; }).box-01;
  with' = part: minimal // part;
  clustered =
    part:
    with' {
      kubernetes = {
        distribution = "k3s";
        founder = "box-01";
      }
      // part;
      nodes.box-01 = minimal.nodes.box-01 // {
        role = "server";
      };
    };
  flags = part: (fleet.derived (settings (clustered part))).k3sFlags;
  cron =
    hours:
    builtins.head (
      builtins.filter (flag: builtins.match "--etcd-snapshot-schedule.*" flag != null) (
        flags { snapshot_interval_h = hours; }
      )
    );

  mirrored = {
    layout = "zfs-mirror";
    espMb = 1024;
    root = [
      {
        device = "/dev/a";
        serial = "A";
        wwn = null;
      }
      {
        device = "/dev/b";
        serial = "B";
        wwn = null;
      }
    ];
    longhorn = [
      {
        device = "/dev/c";
        serial = null;
        wwn = "0x5002";
        sizeGb = null;
      }
    ];
    longhornPartitionGb = 50;
    longhornFsType = "ext4";
    encryptionKeyFile = "/run/key";
  };

  tests = [
    (test "the 10th address of a network that doesn't begin at an octet" "10.43.160.10" (
      addresses.nth "10.43.175.0/19" 10
    ))
    (test "the 10th address of half of all addresses" "128.0.0.10" (addresses.nth "130.1.2.3/1" 10))
    (test "the length of a prefix" 22 (addresses.prefixLength "10.20.0.0/22"))
    (test "a name isn't an address" [ true false ] (
      map addresses.isAddress [
        "10.0.0.1"
        "k8s.example"
      ]
    ))

    (test "a disk by its serial number alone" "/dev/disk/by-serial/WD-1_x" (
      disks.device { serial = "WD-1 x"; } { }
    ))
    (test "a disk by its WWN" "/dev/disk/by-id/wwn-0x5002538e40f3a1b2" (
      disks.device { wwn = "0x5002538e40f3a1b2"; } { }
    ))
    (test "an NVMe disk by its EUI" "/dev/disk/by-id/nvme-eui.0025" (
      disks.device { wwn = "eui.0025"; } { }
    ))
    (test "an NVMe disk as the machine reported it"
      "/dev/disk/by-id/nvme-Samsung_SSD_990_PRO_2TB_S7DN"
      (
        disks.device { serial = "S7DN"; } {
          serial = "S7DN";
          wwn = "eui.0025";
          model = "Samsung SSD 990 PRO 2TB";
          transport = "nvme";
        }
      )
    )
    (test "a SATA disk takes the WWN that the machine reported" "/dev/disk/by-id/wwn-0x5002" (
      disks.device { serial = "S7DN"; } {
        wwn = "0x5002";
        model = "Samsung SSD 870";
        transport = "sata";
      }
    ))
    (test "a report's disk is found by serial number" "/dev/disk/by-id/nvme-M_S1" (
      let
        facts.box-01.disks = [
          {
            serial = "other";
            model = "X";
            transport = "nvme";
          }
          {
            serial = "S1";
            wwn = null;
            model = "M";
            transport = "nvme";
          }
        ];
        nodes = fleet.nodes {
          inventory = minimal;
          inherit facts;
        };
      in
      (builtins.head nodes.box-01.disks.root).device
    ))

    (test "each root disk of a mirror has a boot partition" [ "/boot" "/boot-2" ] (
      disks.espMounts mirrored
    ))
    (test "none of a mirror's boot partitions is waited for, and a single disk's is"
      [
        true
        true
        false
      ]
      (
        let
          esp = layout: place: layout.disk.${place}.content.partitions.ESP.content;
          waits = layout: place: builtins.elem "nofail" (esp layout place).mountOptions;
          single = disks.devices (
            mirrored
            // {
              layout = "zfs";
              root = [ (builtins.head mirrored.root) ];
            }
          );
        in
        [
          (waits (disks.devices mirrored) "root0")
          (waits (disks.devices mirrored) "root1")
          (waits single "root0")
        ]
      )
    )
    (test "Longhorn's partition comes before its disks"
      [
        "/var/lib/longhorn"
        "/var/lib/longhorn-2"
      ]
      (map (mount: mount.path) (disks.longhornMounts mirrored))
    )
    (test "the mounts are those of the layout" true (
      let
        layout = (disks.devices mirrored).disk;
        at = partition: "${partition.content.mountpoint} /dev/disk/by-partuuid/${partition.uuid}";
        places = map at [
          layout.root0.content.partitions.longhorn
          layout.longhorn0.content.partitions.longhorn
        ];
      in
      places == map (mount: "${mount.path} ${mount.device}") (disks.longhornMounts mirrored)
    ))
    (test "partitions have GUIDs that their disks' numbers give, each its own" [ 6 true ] (
      let
        layout = (disks.devices mirrored).disk;
        uuids = builtins.concatMap (
          disk: map (partition: partition.uuid) (builtins.attrValues disk.content.partitions)
        ) (builtins.attrValues layout);
        # The same disk in another place of another machine.
        elsewhere =
          (disks.devices {
            inherit (mirrored) espMb longhornFsType;
            layout = "ext4";
            root = builtins.tail mirrored.root;
            longhorn = [ ];
            longhornPartitionGb = null;
          }).disk.root0;
        same = elsewhere.content.partitions.ESP.uuid == layout.root1.content.partitions.ESP.uuid;
      in
      [
        (builtins.length (undercroft.util.unique uuids))
        (
          same
          && builtins.all (
            uuid:
            builtins.match "[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}" uuid != null
          ) uuids
        )
      ]
    ))
    (test "only the first disk of a mirror has Longhorn's partition" false (
      (disks.devices mirrored).disk.root1.content.partitions ? longhorn
    ))
    (test "a key for encryption is given up after the installation" [ "aes-256-gcm" "file:///run/key" true ] (
      let
        pool = (disks.devices (mirrored // { layout = "zfs-encrypted"; })).zpool.zroot;
      in
      [
        pool.rootFsOptions.encryption
        pool.rootFsOptions.keylocation
        (pool.postCreateHook == "zfs set keylocation=prompt zroot")
      ]
    ))
    (test "ext4 has no pool" false (disks.devices (mirrored // { layout = "ext4"; }) ? zpool))
    (test "a data disk is nobody's to lay out" "/data/WD_1" (
      disks.dataMount {
        serial = "WD 1";
        wwn = null;
      }
    ))

    (test "Longhorn keeps a share of a known size" [ 5368709120 0 ] (
      map (disk: disk.storageReserved) (
        builtins.fromJSON (
          longhorn.annotation {
            longhorn = {
              reservedPercent = 10;
              diskTags = [ ];
            };
            disks = mirrored;
          }
        )
      )
    ))

    (test "snapshots at hours that divide the day" "--etcd-snapshot-schedule-cron=0 */12 * * *" (
      cron 12
    ))
    (test "snapshots each hour" "--etcd-snapshot-schedule-cron=0 * * * *" (cron 1))
    (test "snapshots every other day" "--etcd-snapshot-schedule-cron=0 0 */2 * *" (cron 48))
    (test "snapshots at no round number of hours" "--etcd-snapshot-schedule-cron=@every 30h" (cron 30))
    (test "an agent is told nothing that only servers know" [ "--node-name=box-01" "--node-ip=10.0.0.11" "--node-label=undercroft.dev/class=box" ] (
      let
        inventory = clustered { founder = "other"; };
        agent = settings (
          inventory
          // {
            nodes = {
              box-01 = minimal.nodes.box-01 // {
                role = "agent";
              };
              other = minimal.nodes.box-01 // {
                role = "server";
                address = "10.0.0.12";
              };
            };
          }
        );
      in
      (fleet.derived agent).k3sFlags
    ))
    (test "a server that joins asks the founder by address, an agent the endpoint"
      [
        null
        "https://10.0.0.11:6443"
        "https://api.example:6443"
      ]
      (
        let
          node = role: {
            class = "box";
            address = if role == "founder" then "10.0.0.11" else "10.0.0.12";
            role = if role == "agent" then "agent" else "server";
          };
          nodes = fleet.nodes {
            inventory = with' {
              kubernetes = {
                distribution = "k3s";
                founder = "founder";
                api_endpoint = "api.example";
              };
              nodes = {
                founder = node "founder";
                joiner = node "joiner";
                worker = node "agent";
              };
            };
          };
        in
        map (name: nodes.${name}.kubernetes.serverUrl) [
          "founder"
          "joiner"
          "worker"
        ]
      )
    )
    (test "without Kubernetes roles mean nothing" [ false "none" { } ] (
      let
        bare = settings (with' {
          nodes.box-01 = minimal.nodes.box-01 // {
            role = "server";
          };
        });
      in
      [
        bare.kubernetes.enable
        bare.kubernetes.role
        bare.kubernetes.servers
      ]
    ))
    (test "a registry's own address comes last" true (
      builtins.match ".*registry-1[.]docker[.]io.*mirror[.]example.*" (
        builtins.replaceStrings [ "\n" ] [ " " ] (
          (kubernetes.containerdHosts {
            kubernetes.registryMirrors."docker.io" = [ "https://mirror.example" ];
          })."docker.io"
        )
      ) != null
    ))

    (test "a host id is stable, and each machine's own" [ true false ] (
      let
        id = name: (settings (with' { fleet.name = name; })).node.hostId;
      in
      [
        (id "cellar" == id "cellar")
        (id "cellar" == id "attic")
      ]
    ))

    (test "what cards can do"
      [
        "turing-or-later"
        "before-turing"
        "blackwell"
        "blackwell"
        true
        false
      ]
      [
        (gpu.facts "rtx-4090").generation
        (gpu.facts "gtx-1080").generation
        (gpu.facts "rtx-5090").generation
        (gpu.facts "rtx-pro-6000-blackwell").generation
        (gpu.facts "a100-80gb").migCapable
        (gpu.facts "a1000").migCapable
      ]
    )
    (test "the last driver of a card"
      [
        null
        null
        "legacy_580"
        "legacy_580"
        "legacy_580"
        "legacy_470"
        "legacy_470"
      ]
      (
        map (model: (gpu.facts model).lastBranch) [
          "rtx-4090"
          "h100-80gb"
          "v100-32gb"
          "titan-xp"
          "gtx-750-ti"
          "gtx-780"
          "k80"
        ]
      )
    )
    (test "the overlay's policy has no word that an older Headscale refuses"
      {
        keys = [
          "acls"
          "autoApprovers"
          "groups"
          "tagOwners"
        ];
        autogroups = false;
        people = [
          "ada@"
          "ada"
        ];
      }
      (
        let
          policy =
            version:
            overlay.policy {
              users.ada.role = "admin";
              routes = [ "10.0.0.0/24" ];
              inherit version;
            };
          at = version: builtins.head (policy version).groups."group:admin";
        in
        {
          keys = builtins.attrNames (policy "0.28.0");
          autogroups = builtins.match ".*autogroup.*" (builtins.toJSON (policy "0.28.0")) != null;
          people = [
            (at "0.26.0")
            (at "0.25.1")
          ];
        }
      )
    )
    (test "machines that share their cards alike have one configuration"
      [
        "exclusive"
        "time-slicing-4"
        "mig-single"
        "mig-mixed"
      ]
      (
        map gpu.profile [
          { sharing = "none"; }
          {
            sharing = "time-slicing";
            replicas = 4;
          }
          {
            sharing = "mig";
            migConfig = "all-1g.10gb";
          }
          {
            sharing = "mig";
            migConfig = "all-balanced";
          }
        ]
      )
    )
  ];
in
{
  count = builtins.length tests;
  failed = builtins.filter (each: each.expected != each.actual) tests;
}
