//! The programs that one busybox is.

/// Names under which busybox is linked; programs of other packages with the same name go before
/// them. Debian's busybox-static has all of these, from bookworm on.
pub(crate) const APPLETS: [&str; 110] = [
    "[", "ash", "awk", "base64", "basename", "blockdev", "cat", "chgrp", "chmod", "chown",
    "chroot", "clear", "cmp", "cp", "cut", "date", "dd", "df", "diff", "dirname", "dmesg", "du",
    "echo", "egrep", "env", "expr", "false", "find", "findfs", "fold", "free", "grep", "groups",
    "gunzip", "gzip", "halt", "head", "hexdump", "hostname", "id", "init", "insmod", "ip", "kill",
    "less", "ln", "logger", "losetup", "ls", "lsmod", "md5sum", "mkdir", "mkfifo", "mknod",
    "mkswap", "mktemp", "modprobe", "more", "mount", "mv", "nc", "nproc", "od", "passwd", "ping",
    "poweroff", "printf", "ps", "pwd", "readlink", "realpath", "reboot", "rm", "rmdir", "rmmod",
    "route", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "stty", "swapoff", "swapon",
    "switch_root", "sync", "sysctl", "tail", "tar", "tee", "test", "timeout", "top", "touch", "tr",
    "true", "truncate", "udhcpc", "umount", "uname", "uniq", "uptime", "usleep", "vi", "wc",
    "wget", "which", "xargs",
];
