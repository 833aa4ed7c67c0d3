# What somebody who works on a fleet needs beside `undercroft` itself.
{ pkgs }:
pkgs.mkShell {
  packages = [
    # Secrets.
    pkgs.age
    pkgs.sops
    # The cluster, and its manifests.
    pkgs.k3d
    pkgs.kubectl
    pkgs.kubernetes-helm
    # Over SSH to the machines.
    pkgs.openssh
  ];
}
