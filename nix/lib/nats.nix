# The accounts of the message system, for a server outside the cluster.
#
# Lent PCs don't trust each other. With permissions by class and a shared `_INBOX.>`, one device can
# read another's work and acknowledge it; so each has three subjects and an inbox of its own, and
# nothing of JetStream: the lending server alone owns what is stored. Nor do those who bring work
# trust each other: each has one subject and an inbox.
let
  inherit (builtins) attrNames map;

  # device NAME → what the device may publish and subscribe to, as NATS' configuration says it.
  #   lend.want.NAME             asks for work
  #   lend.beat.NAME             renews what it has
  #   lend.out.NAME.JOB.EPOCH    says how it ended, and brings the result
  #   _INBOX_NAME.>              answers to its own requests
  device = name: {
    publish.allow = [
      "lend.want.${name}"
      "lend.beat.${name}"
      "lend.out.${name}.>"
    ];
    subscribe.allow = [ "_INBOX_${name}.>" ];
  };

  # submitter NAME → the same for somebody who brings work. No device's name has a `_` in it.
  #   lend.submit.NAME           brings work, and asks how it stands
  #   _INBOX_submit_NAME.>       answers to its own requests
  submitter = name: {
    publish.allow = [ "lend.submit.${name}" ];
    subscribe.allow = [ "_INBOX_submit_${name}.>" ];
  };
in
{
  inherit device submitter;

  # accounts { account; devices; submitters; services; } → the `accounts` of NATS' configuration.
  #   account   name of the account that lent work is confined to, such as "LEND"
  #   devices   name → { nkey; }  public keys (U…) of lent PCs
  #   submitters  name → { nkey; }  public keys of those who bring work
  #   services  name → { nkey; }  public keys of the lending server, which may do everything inside
  #             of the account
  # There are public keys only, so that the configuration may lie in the Nix store.
  accounts =
    {
      account ? "LEND",
      devices ? { },
      submitters ? { },
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
          }) (attrNames devices)
          ++ map (name: {
            inherit (submitters.${name}) nkey;
            permissions = submitter name;
          }) (attrNames submitters);
      };
      SYS.users = map (name: { inherit (system.${name}) nkey; }) (attrNames system);
    };
}
