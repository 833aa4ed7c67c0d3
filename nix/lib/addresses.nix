# IPv4 addresses and networks.
let
  inherit (import ./util.nix) mod split;

  power = exponent: if exponent == 0 then 1 else 2 * power (exponent - 1);

  parse =
    address:
    builtins.foldl' (sum: octet: sum * 256 + builtins.fromJSON octet) 0 (split "[.]" address);

  print =
    number:
    builtins.concatStringsSep "." (
      map (shift: toString (mod (number / shift) 256)) [
        16777216
        65536
        256
        1
      ]
    );

  parts = network: split "/" network;

  prefixLength = network: builtins.fromJSON (builtins.elemAt (parts network) 1);
in
{
  inherit parse print;

  # The length of a network's prefix: 22 of "10.20.0.0/22".
  inherit prefixLength;

  # The address at a place in a network, the network's own being 0: the 10th of "10.43.0.0/16" is
  # "10.43.0.10". Kubernetes wants its DNS service at a fixed place, and kubeadm and k3s both take
  # the 10th.
  nth =
    network: place:
    let
      size = power (32 - prefixLength network);
      first = parse (builtins.head (parts network)) / size * size;
    in
    print (first + place);

  # Whether a text is an address rather than a name.
  isAddress = text: builtins.match "[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+" text != null;
}
