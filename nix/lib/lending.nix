# Lending, as the inventory has it: what the server of lending and the message system go by.
let
  inherit (import ./util.nix) filterAttrs;
  inherit (builtins) mapAttrs;

  # Containers aren't lent: a static program or a store path does.
  lent = [
    "wasm"
    "process"
    "nix"
  ];
in
{
  # inventory → the value of `undercroft.lending` on every node.
  # A PC without keys isn't enrolled yet.
  settings =
    inventory:
    let
      lending = inventory.lending or { };
      enable = lending.enabled or false;
      isDevice =
        _: pc:
        (pc.lend.enabled or false)
        && (pc.lend.nkey or null) != null
        && (pc.lend.owner_key or null) != null;
    in
    {
      inherit enable;
      account = lending.account or "LEND";
      natsUrl = lending.nats_url or null;
      serverKey = lending.server_key or null;
      devices = mapAttrs (_: pc: {
        inherit (pc.lend) nkey;
        ownerKey = pc.lend.owner_key;
      }) (if enable then filterAttrs isDevice (inventory.pcs or { }) else { });
      submitters = mapAttrs (_: submitter: {
        inherit (submitter) nkey tenant;
        brings = submitter.brings or "internal";
      }) (if enable then lending.submitters or { } else { });
      tenants = lending.tenants or [ ];
      runtimes = builtins.filter (runtime: builtins.elem runtime lent) (
        lending.runtimes or [ "wasm" ]
      );
      maxSensitivity = lending.max_sensitivity or "public";
      leaseS = lending.lease_s or 60;
      attempts = lending.attempts or 5;
      jobWallS = lending.job_wall_s or 3600;
    };

  # What `undercroft lend server --config` reads: crates/lending/src/server/rules.rs has its form.
  serverFile = fleet: settings: {
    version = 1;
    inherit fleet;
    inherit (settings)
      attempts
      devices
      jobWallS
      leaseS
      maxSensitivity
      runtimes
      tenants
      ;
    submitters = mapAttrs (_: submitter: {
      inherit (submitter) brings tenant;
    }) settings.submitters;
  };
}
