# Ada's home on each of her PCs: an ordinary Home Manager module, named in undercroft.toml.
{ pkgs, ... }:
{
  home.packages = [ pkgs.ripgrep ];

  programs.bash.enable = true;
  programs.git.enable = true;
}
