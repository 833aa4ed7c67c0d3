# Functions of nixpkgs that came after 20.09, with what evaluation needs of them: a file's text is
# JSON, whatever its format is to be.
{ lib, pkgs }:
let
  valueType =
    lib.types.nullOr (
      lib.types.oneOf [
        lib.types.bool
        lib.types.int
        lib.types.float
        lib.types.str
        lib.types.path
        (lib.types.attrsOf valueType)
        (lib.types.listOf valueType)
      ]
    )
    // {
      description = "value of a configuration file";
    };
  format = _: {
    type = valueType;
    lib.types.atom = valueType;
    generate = name: value: pkgs.writeText name (builtins.toJSON value);
  };
in
{
  formats = {
    elixirConf = format;
    gitIni = format;
    hcl1 = format;
    hocon = format;
    ini = format;
    iniWithGlobalSection = format;
    javaProperties = format;
    json = format;
    keyValue = format;
    libconfig = format;
    lua = format;
    php = format;
    pythonVars = format;
    systemd = format { };
    toml = format;
    xml = format;
    yaml = format;
    yaml_1_1 = format;
    yaml_1_2 = format;
  };

  # Modules look at these packages' versions.
  k3s_1_34 = pkgs.runCommand "k3s-stub" { version = "1.34.2+k3s1"; } "mkdir $out";
  kubernetesStub = pkgs.runCommand "kubernetes-stub" {
    version = "1.34.2";
    outputs = [
      "out"
      "man"
    ];
  } "mkdir $out $man";

  systemdMinimal = pkgs.systemd;

  # These stood under other names.
  util-linux = pkgs.utillinux;
  iproute2 = pkgs.iproute;
  inherit (pkgs.xorg) lndir;

  replaceVars = src: variables: pkgs.substituteAll ({ inherit src; } // variables);

  replaceVarsWith =
    arguments@{ replacements, ... }:
    pkgs.substituteAll (removeAttrs arguments [ "replacements" ] // replacements);

  writeShellApplication =
    {
      name,
      text,
      runtimeInputs ? [ ],
      ...
    }:
    pkgs.writeTextFile {
      inherit name;
      executable = true;
      destination = "/bin/${name}";
      text = ''
        #!${pkgs.runtimeShell}
        set -o errexit -o nounset -o pipefail
        export PATH="${lib.makeBinPath runtimeInputs}:$PATH"
        ${text}
      '';
    };
}
