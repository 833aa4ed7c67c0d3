# The overlay's policy: who may reach what, from the people and networks of the inventory.
#
# Headscale, docs/ref/policy.md: a HuJSON file in Tailscale's syntax, of which plain JSON is a part.
# Rules are `acls`, which every Headscale reads: grants came with 0.29, and a NixOS release from
# 24.11 to 26.05 has 0.23 to 0.28, which refuses a policy with a key that it doesn't know. For the
# same reason nobody is named by an autogroup, which came with 0.27.
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
  developerPorts = "80,443,4222,${toString (import ./kubernetes.nix).apiPort}";
  viewerPorts = "80,443";

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

  # policy { users; routes; version; } → the policy as an attribute set, to be written with toJSON.
  #   users    name → { role; … }
  #   routes   networks, such as "10.20.0.0/22", that machines of the fleet may announce
  #   version  of Headscale: from 0.26 on a user is written with a `@`
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
      version ? "0.26",
    }:
    let
      members = role: filter (name: users.${name}.role == role) (attrNames users);
      present = filter (role: members role != [ ]) roles;
      has = role: members role != [ ];
      group = role: "group:${role}";
      user = name: if builtins.compareVersions version "0.26" < 0 then name else "${name}@";
      fleet = [ nodeTag ] ++ routes;
      when = condition: values: if condition then values else [ ];
      rule = src: targets: ports: {
        action = "accept";
        inherit src;
        dst = map (target: "${target}:${ports}") targets;
      };
    in
    {
      groups = listToAttrs (
        map (role: {
          name = group role;
          value = map user (members role);
        }) present
      );
      tagOwners.${nodeTag} = when (has "admin") [ (group "admin") ];
      autoApprovers.routes = listToAttrs (
        map (network: {
          name = network;
          value = [ nodeTag ];
        }) routes
      );
      acls =
        when (has "admin") [ (rule [ (group "admin") ] fleet "*") ]
        ++ when (has "developer") [
          (rule [ (group "developer") ] fleet developerPorts // { proto = "tcp"; })
          # A protocol without ports is given with all of them.
          (rule [ (group "developer") ] fleet "*" // { proto = "icmp"; })
        ]
        ++ when (has "viewer") [ (rule [ (group "viewer") ] fleet viewerPorts // { proto = "tcp"; }) ]
        ++ map (name: rule [ (user name) ] [ (user name) ] "*") (attrNames users)
        ++ [ (rule [ nodeTag ] [ nodeTag ] "*") ];
    };
}
