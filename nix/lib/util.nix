# The few functions that the other files share. nixpkgs' lib has them too; here there is none.
let
  optional = condition: value: if condition then [ value ] else [ ];
  split = separator: text: builtins.filter builtins.isString (builtins.split separator text);
in
{
  inherit optional split;

  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: set: if condition then set else { };

  filterAttrs =
    keep: set:
    builtins.listToAttrs (
      builtins.concatMap (
        name:
        optional (keep name set.${name}) {
          inherit name;
          value = set.${name};
        }
      ) (builtins.attrNames set)
    );

  mapToList = f: set: map (name: f name set.${name}) (builtins.attrNames set);

  # The items in order, each once. Quadratic: for short lists.
  unique = builtins.foldl' (
    seen: item: if builtins.elem item seen then seen else seen ++ [ item ]
  ) [ ];

  # f of each item's place, counted from 0, and the item.
  indexed =
    f: items:
    builtins.genList (index: f index (builtins.elemAt items index)) (builtins.length items);

  # A text as udev writes it into the name of a link: other characters become "_".
  fileName = text: builtins.concatStringsSep "_" (split "[^A-Za-z0-9#+.:=@_-]" text);

  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;

  # Latin letters in lower case.
  lower = builtins.replaceStrings (split "," "A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z") (
    split "," "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z"
  );

  mod = a: b: a - (a / b) * b;
}
