# The accounts of the message system, for a server outside the cluster.
#
# Lent PCs don't trust each other. With permissions by class and a shared `_INBOX.>`, one device can
# read another's work and acknowledge it; so each has subjects, a consumer and an inbox of its own.
let
  inherit (builtins) attrNames map;

  jobs = "LEND_JOBS";
  assignments = "LEND_ASSIGN";

  # device NAME → what the device may publish and subscribe to, as NATS' configuration says it.
  #   lend.want.NAME                      asks for work
  #   lend.out.NAME.JOB.EPOCH             gives results
  #   …MSG.NEXT.LEND_ASSIGN.NAME          pulls from its own durable consumer
  #   $JS.ACK.LEND_ASSIGN.NAME.>          acknowledges its own assignments
  #   _INBOX_NAME.>                       answers to its own requests
  device = name: {
    publish.allow = [
      "lend.want.${name}"
      "lend.out.${name}.>"
      "$JS.API.CONSUMER.INFO.${assignments}.${name}"
      "$JS.API.CONSUMER.MSG.NEXT.${assignments}.${name}"
      "$JS.ACK.${assignments}.${name}.>"
    ];
    subscribe.allow = [ "_INBOX_${name}.>" ];
  };
in
{
  inherit device;

  streams = {
    inherit jobs assignments;
  };

  # accounts { account; devices; services; } → the `accounts` of NATS' configuration.
  #   account   name of the account that lent work is confined to, such as "LEND"
  #   devices   name → { nkey; }  public keys (U…) of lent PCs
  #   services  name → { nkey; }  public keys of the matcher, the recorder and the gateway, which
  #             may do everything inside of the account
  # There are public keys only, so that the configuration may lie in the Nix store.
  accounts =
    {
      account ? "LEND",
      devices ? { },
      services ? { },
      system ? { },
    }:
    {
      ${account} = {
        jetstream = "enabled";
        users =
          map (name: { inherit (services.${name}) nkey; }) (attrNames services)
          ++ map (name: {
            inherit (devices.${name}) nkey;
            permissions = device name;
          }) (attrNames devices);
      };
      SYS.users = map (name: { inherit (system.${name}) nkey; }) (attrNames system);
    };
}
