# The overlay's policy: who may reach what, from the people and networks of the inventory.
#
# Headscale 0.29, docs/ref/policy.md: a HuJSON file in Tailscale's syntax, of which plain JSON is a
# part; grants rather than ACLs; a user is written with a `@` at the end.
let
  inherit (builtins)
    attrNames
    filter
    listToAttrs
    map
    ;

  # Roles in the order in which the policy lists them.
  roles = [
    "admin"
    "developer"
    "viewer"
  ];

  # What developers use of the fleet: its pages, the Kubernetes API, and the message system.
  developerPorts = [
    "tcp:80"
    "tcp:443"
    "tcp:4222"
    "tcp:6443"
    "icmp:*"
  ];
  viewerPorts = [
    "tcp:80"
    "tcp:443"
  ];

  # Tag of every machine of the fleet. A tagged machine belongs to no person, and its key doesn't
  # expire.
  nodeTag = "tag:node";
in
{
  inherit nodeTag;

  # url "https://HOST:PORT/…" → { scheme; host; port; }
  url =
    text:
    let
      parts = builtins.match "(https?)://([^/:]+)(:([0-9]+))?(/.*)?" (if text == null then "" else text);
      at = builtins.elemAt parts;
      default = if at 0 == "https" then 443 else 80;
    in
    if parts == null then
      throw "undercroft.overlay.serverUrl: ${toString text} is no URL such as https://headscale.example.org"
    else
      {
        scheme = at 0;
        host = at 1;
        port = if at 3 == null then default else builtins.fromJSON (at 3);
      };

  # Whether a name is a domain or lies in it.
  within =
    domain: name:
    let
      length = builtins.stringLength;
      start = length name - length domain - 1;
    in
    name == domain || start >= 0 && builtins.substring start (length name) name == ".${domain}";

  # policy { users; routes; } → the policy as an attribute set, to be written with toJSON.
  #   users   name → { role; … }
  #   routes  networks, such as "10.20.0.0/22", that machines of the fleet may announce
  #
  # - A group per role that somebody has.
  # - Admins reach everything of the fleet. Developers and viewers reach ports.
  # - Everybody reaches their own devices, nobody another person's.
  # - Machines reach machines, and no person's device.
  # - Networks that the inventory names are approved when a machine announces them, no others.
  policy =
    {
      users ? { },
      routes ? [ ],
    }:
    let
      members = role: filter (name: users.${name}.role == role) (attrNames users);
      present = filter (role: members role != [ ]) roles;
      has = role: members role != [ ];
      group = role: "group:${role}";
      fleet = [ nodeTag ] ++ routes;
      when = condition: value: if condition then [ value ] else [ ];
    in
    {
      groups = listToAttrs (
        map (role: {
          name = group role;
          value = map (name: "${name}@") (members role);
        }) present
      );
      tagOwners.${nodeTag} = when (has "admin") (group "admin");
      autoApprovers.routes = listToAttrs (
        map (network: {
          name = network;
          value = [ nodeTag ];
        }) routes
      );
      grants =
        when (has "admin") {
          src = [ (group "admin") ];
          dst = fleet;
          ip = [ "*" ];
        }
        ++ when (has "developer") {
          src = [ (group "developer") ];
          dst = fleet;
          ip = developerPorts;
        }
        ++ when (has "viewer") {
          src = [ (group "viewer") ];
          dst = fleet;
          ip = viewerPorts;
        }
        ++ when (users != { }) {
          src = [ "autogroup:member" ];
          dst = [ "autogroup:self" ];
          ip = [ "*" ];
        }
        ++ [
          {
            src = [ nodeTag ];
            dst = [ nodeTag ];
            ip = [ "*" ];
          }
        ];
    };
}
