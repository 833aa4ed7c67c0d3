# PCs and the people on them: the settings of each, and the names of their configurations.
let
  inherit (import ./util.nix) filterAttrs unique;

  both = own: offered: builtins.filter (item: builtins.elem item offered) own;

  lendSettings =
    inventory: pc:
    let
      lending = inventory.lending or { };
      lend = pc.lend or { };
      tenants = lending.tenants or [ ];
    in
    {
      enable = (lending.enabled or false) && (lend.enabled or false);
      slots = lend.slots or 1;
      cpuPercent = lend.cpu_percent or 50;
      memoryMb = lend.memory_mb or 2048;
      diskMb = lend.disk_mb or 4096;
      gpu = lend.gpu or false;
      network = lend.network or false;
      idleAfterS = lend.idle_after_s or 300;
      hours = lend.hours or null;
      runtimes = both (lend.runtimes or [ "wasm" ]) (lending.runtimes or [ "wasm" ]);
      # An owner who names nobody lends to all of the fleet's tenants.
      tenants = if (lend.tenants or [ ]) == [ ] then tenants else both lend.tenants tenants;
      natsUrl = lending.nats_url or null;
      account = lending.account or "LEND";
      maxSensitivity = lending.max_sensitivity or "public";
      leaseS = lending.lease_s or 60;
      heartbeatS = lending.heartbeat_s or 10;
      attempts = lending.attempts or 5;
      jobWallS = lending.job_wall_s or 3600;
      pauseS = lending.pause_s or 600;
    };

  pcSettings =
    common: name: pc:
    let
      users = pc.users or [ ];
      joins = pc.overlay or true;
      inherit (common) overlay;
    in
    {
      inherit (common) fleet;
      pc = {
        inherit name users;
        inherit (pc) os system;
        owner = if users == [ ] then null else builtins.head users;
        devCluster = pc.dev_cluster or true;
        overlay = joins;
        stateVersion = common.inventory.fleet.state_version or "25.11";
      };
      users = filterAttrs (user: _: builtins.elem user users) common.users;
      overlay = {
        enable = joins && overlay.kind != "none";
        inherit (overlay) kind;
        serverUrl = overlay.server_url or null;
        cidr = overlay.cidr or "100.64.0.0/10";
        baseDomain = overlay.base_domain or null;
      };
      lend = lendSettings common.inventory pc;
    };
in
{
  # The settings of each PC, and of each person on it. `inventory` is as fleet.nix reads it.
  pcs =
    common:
    builtins.mapAttrs (
      name: pc:
      let
        settings = pcSettings common name pc;
      in
      {
        inherit settings;
        inherit (pc) os system;
        modules = pc.modules or [ ];
        # Lending is the owner's: on a PC of several people it runs in the owner's session alone.
        homes = builtins.listToAttrs (
          map (user: {
            name = user;
            value = {
              modules = common.inventory.users.${user}.modules or [ ];
              settings = removeAttrs settings [ "users" ] // {
                pc = settings.pc // {
                  inherit user;
                };
                user = settings.users.${user} // {
                  name = user;
                };
                lend = settings.lend // {
                  enable = settings.lend.enable && user == settings.pc.owner;
                };
              };
            };
          }) (unique settings.pc.users)
        );
      }
    ) (common.inventory.pcs or { });
}
