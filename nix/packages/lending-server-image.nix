# The container image of the server of lending, for the component `lending-server` of the cluster's
# tree. What is built is a program that writes the image's archive:
#
#   $(nix build --no-link --print-out-paths .#lending-server-image) >image.tar
#   skopeo copy docker-archive:image.tar docker://registry.example/lending-server:0.1.0
#
# There is the command in it, and what that is linked with: no shell, and nothing to be written to.
{
  dockerTools,
  undercroft,
}:
dockerTools.streamLayeredImage {
  name = "lending-server";
  tag = undercroft.version;
  config = {
    # The words behind it are the Deployment's.
    Entrypoint = [ "${undercroft}/bin/undercroft" ];
    # Nobody, by number: Kubernetes looks for a number where root isn't let in.
    User = "65532:65532";
  };
}
