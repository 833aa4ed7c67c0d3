#!@busybox@/bin/sh
# As NixOS' program of this name: boot makes this system the default, test activates it now,
# switch does both.
PATH=@out@/sw/bin
export PATH
case ${1-} in
boot) exec @out@/libexec/install-boot ;;
switch) @out@/libexec/install-boot && exec @out@/activate ;;
test) exec @out@/activate ;;
dry-activate) echo "would activate @out@" ;;
*)
    echo "usage: switch-to-configuration switch|boot|test|dry-activate" >&2
    exit 1
    ;;
esac
