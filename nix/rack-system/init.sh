#!@busybox@/bin/sh
# Stage 2: the system's first process, until busybox's init takes over.
PATH=@out@/sw/bin
export PATH
if [ "@broken@" = true ]; then
    echo "undercroft-system: @name@ is broken on purpose; init ends here"
    exit 1
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /dev/pts /dev/shm /run/undercroft
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -sfn @out@ /run/booted-system
@out@/activate
@out@/libexec/open-secrets
exec @busybox@/bin/init
