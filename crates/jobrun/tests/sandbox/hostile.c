// A job that tries what its first argument says.
//
// `try` makes every single attempt and prints a line for each: its name, and what the kernel answered. `OPEN` stands
// where nothing stopped it. The other words are jobs of their own: bombs, survivors, and outputs that aren't files.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void said(const char *trial, long result) {
    printf("%s: %s\n", trial, result < 0 ? strerror(errno) : "OPEN");
    fflush(stdout);
}

static int write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return -1;
    long n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

static void try_read(const char *trial, const char *path) { said(trial, open(path, O_RDONLY)); }
static void try_write(const char *trial, const char *path) { said(trial, open(path, O_WRONLY)); }

static void try_unix(const char *trial, const char *path, int is_abstract) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + is_abstract, path, sizeof to.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return said(trial, fd);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(path) + !is_abstract;
    said(trial, connect(fd, (struct sockaddr *)&to, size));
}

static void try_tcp(const char *trial, unsigned address, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    said(trial, fd < 0 ? fd : connect(fd, (struct sockaddr *)&to, sizeof to));
}

static int child(void *unused) {
    (void)unused;
    return 0;
}

static void try_clone(const char *trial, int flags) {
    static char stack[65536];
    said(trial, clone(child, stack + sizeof stack, flags | SIGCHLD, 0));
}

// A call of the 32-bit kernel, which a filter for 64 bits doesn't know.
static void try_32_bit(void) {
#ifdef __x86_64__
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
        _exit(result > 0 ? 1 : 0);
    }
    waitpid(pid, &status, 0);
    int is_stopped = WIFSIGNALED(status) || WEXITSTATUS(status) == 0;
    printf("a call of the 32-bit kernel: %s\n", is_stopped ? "killed" : "OPEN");
    errno = 0;
    said("a call of the x32 kernel", syscall(0x40000000 + SYS_getpid));
#endif
}

static void try_files(char **bait) {
    try_read("the owner's file", bait[0]);
    try_read("the owner's home", "/root");
    try_read("people's homes", "/home");
    try_read("/etc/passwd", "/etc/passwd");
    try_read("/etc/machine-id", "/etc/machine-id");
    try_read("/run", "/run");
    try_read("/var", "/var");
    try_read("/sys", "/sys");
    try_read("control groups", "/sys/fs/cgroup");
    try_read("/nix", "/nix");
    try_read("where mounts lie on the owner's disk", "/proc/self/mountinfo");
    try_read("the environment of a process", "/proc/1/environ");
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/environ", bait[3]);
    try_read("the environment of an owner's process", path);
    try_read("the kernel's log", "/dev/kmsg");
    try_read("the machine's memory", "/dev/mem");
    try_read("a terminal", "/dev/tty");
    try_read("new terminals", "/dev/ptmx");
    try_read("graphics", "/dev/dri");
    try_read("virtual machines", "/dev/kvm");
    try_read("mounts without privileges", "/dev/fuse");
    try_read("the sandbox's own program", "/undercroft/job");
    try_write("the input", "/in/text");
    said("the program's rights", chmod("/job/program", 0777));
    try_write("what dumps are given to", "/proc/sys/kernel/core_pattern");
    said("a folder at the top", mkdir("/x", 0700));
    said("a file beside the input", write_text("/in/other", "x"));
    said("the input's rights", chmod("/in/text", 0777));
    said("the input removed", unlink("/in/text"));
    said("the input under another name", link("/in/text", "/out/same"));
    said("the input moved", rename("/in/text", "/out/moved"));
    said("a pipe with a name", mkfifo("/out/pipe", 0600));
    said("a device", mknod("/out/device", S_IFBLK | 0600, 0x0801));
    symlink("/etc/passwd", "/out/link");
    try_read("a link out of the output", "/out/link");
    unlink("/out/link");
}

static void try_others(char **bait) {
    try_unix("the owner's socket", bait[1], 0);
    try_unix("an agent of keys", getenv("SSH_AUTH_SOCK") ? getenv("SSH_AUTH_SOCK") : "/run/user/0/keyring/ssh", 0);
    try_unix("D-Bus", "/run/dbus/system_bus_socket", 0);
    try_unix("Docker", "/var/run/docker.sock", 0);
    try_unix("tailscaled", "/var/run/tailscale/tailscaled.sock", 0);
    try_unix("the compositor", "/run/user/1000/wayland-0", 0);
    try_unix("the owner's abstract socket", bait[2], 1);
    try_tcp("a port of the loopback", 0x7f000001, atoi(bait[4]));
    try_tcp("the metadata address", 0xa9fea9fe, 80);
    try_tcp("the overlay", 0x64646464, 53);
    said("a socket of IPv6", socket(AF_INET6, SOCK_DGRAM, 0));
    said("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    said("packets", socket(AF_PACKET, SOCK_RAW, 0));
    said("the hypervisor's socket", socket(AF_VSOCK, SOCK_STREAM, 0));
    said("the kernel's crypto", socket(AF_ALG, SOCK_SEQPACKET, 0));
    int owner = atoi(bait[3]);
    said("a signal to an owner's process", kill(owner, 0));
    said("ptrace", syscall(SYS_ptrace, 16, owner, 0, 0));
    said("another's memory", syscall(SYS_process_vm_readv, owner, 0, 0, 0, 0, 0));
    said("another's open files", syscall(SYS_pidfd_getfd, 0, 0, 0));
}

static void try_kernel(void) {
    char ring[256] = {0};
    said("io_uring", syscall(SYS_io_uring_setup, 1, ring));
    said("bpf", syscall(SYS_bpf, 0, ring, sizeof ring));
    said("userfaultfd", syscall(SYS_userfaultfd, 1));
    said("perf_event_open", syscall(SYS_perf_event_open, ring, 0, -1, -1, 0));
    said("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    said("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -3));
    said("mount", mount("none", "/scratch", "tmpfs", 0, 0));
    said("the new mounts", syscall(SYS_fsopen, "tmpfs", 0));
    said("umount", umount2("/in", MNT_DETACH));
    said("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    said("chroot", chroot("/out"));
    said("setns", setns(0, 0));
    said("unshare", unshare(CLONE_NEWUSER));
    try_clone("a nested user namespace", CLONE_NEWUSER);
    try_clone("a nested mount namespace", CLONE_NEWNS);
    try_clone("a nested network", CLONE_NEWNET);
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    said("a nested user namespace by clone3", syscall(SYS_clone3, &arguments, sizeof arguments));
    said("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    said("init_module", syscall(SYS_init_module, ring, sizeof ring, ""));
    said("finit_module", syscall(SYS_finit_module, 0, "", 0));
    said("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    said("swapon", syscall(SYS_swapon, "/scratch/x", 0));
    said("the clock", syscall(SYS_clock_settime, CLOCK_REALTIME, ring));
    said("the machine's name", sethostname("x", 1));
    said("the kernel's log by call", syscall(SYS_syslog, 2, ring, sizeof ring));
    said("a file by its handle", syscall(SYS_open_by_handle_at, AT_FDCWD, ring, 0));
    said("becoming root", setuid(0));
    said("a filter of its own", syscall(SYS_seccomp, 1, 0, 0));
    said("out of the idle class", syscall(SYS_sched_setscheduler, 0, 0, ring));
    said("a better nice", setpriority(PRIO_PROCESS, 0, -5));
    said("hidden from a look", prctl(PR_SET_DUMPABLE, 0));
    unsigned size = 0;
    said("a command line of its own making", prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0));
    said("typing for the owner", ioctl(0, TIOCSTI, "x"));
    struct rlimit more = {1 << 20, 1 << 20};
    said("more open files", setrlimit(RLIMIT_NOFILE, &more));
    try_32_bit();
}

static void facts(void) {
    char line[256];
    for (char **one = environ; *one; one++) printf("environment: %s\n", *one);
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("open: %d\n", fd);
    printf("standard input: %ld bytes\n", (long)read(0, line, sizeof line));
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10) || !strncmp(line, "Seccomp", 7)) printf("%s", line);
    if (readlink("/proc/self/exe", line, sizeof line - 1) > 0) printf("program: %.12s\n", line);
    gethostname(line, sizeof line);
    printf("host: %s\nuser: %d\nprocess: %d\nsession: %s\n", line, getuid(), getpid(), getsid(0) ? "own" : "another's");
}

static void endless(void) {
    for (int signal = 1; signal < 65; signal++) sigaction(signal, &(struct sigaction){.sa_handler = SIG_IGN}, 0);
    for (;;) pause();
}

static void spin(void) {
    for (int signal = 1; signal < 65; signal++) sigaction(signal, &(struct sigaction){.sa_handler = SIG_IGN}, 0);
    for (volatile long i = 0;; i++);
}

// Each in a session of its own, twice removed, and deaf to every signal.
static void survivors(int count, int are_busy) {
    for (int i = 0; i < count; i++)
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                setsid();
                prctl(PR_SET_PDEATHSIG, 0);
                if (are_busy) spin();
                endless();
            }
            _exit(0);
        }
    while (wait(0) > 0);
    printf("%d survive\n", count);
    fflush(stdout);
}

static void fork_bomb(void) {
    int made = 0;
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) endless();
        if (pid < 0) break;
        made++;
    }
    printf("%d processes, then: %s\n", made, strerror(errno));
    fflush(stdout);
}

static void memory_bomb(void) {
    for (;;) {
        char *some = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (some != MAP_FAILED) memset(some, 1, 1 << 20);
    }
}

static void fill(const char *name, long bytes, int is_unnamed) {
    static char block[1 << 20];
    memset(block, 7, sizeof block);
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    if (is_unnamed) unlink(name);
    for (long at = 0; at < bytes; at += sizeof block)
        if (write(fd, block, sizeof block) < 0) {
            said("written", -1);
            break;
        }
    if (!is_unnamed) close(fd);
}

static int copy_file(const char *from, const char *to, int mode) {
    static char block[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0700);
    long n;
    while ((n = read(in, block, sizeof block)) > 0)
        if (write(out, block, n) != n) return -1;
    close(in);
    return n < 0 || close(out) < 0 ? -1 : chmod(to, mode);
}

static void *unnamed_files(void *unused) {
    (void)unused;
    char name[64];
    for (long i = 0;; i++) {
        snprintf(name, sizeof name, "/scratch/%ld", i);
        fill(name, 4 << 20, 1);
    }
}

static int disk(const char *how) {
    char name[64];
    if (!strcmp(how, "file")) fill("/scratch/one", LONG_MAX / 2, 0);
    if (!strcmp(how, "closed")) {
        // A program that can't be read closes its process to those who look.
        char *again[] = {"again", "disk", "unnamed", 0};
        if (copy_file("/job/program", "/scratch/again", 0111) == 0) execv("/scratch/again", again);
        return 6;
    }
    if (!strcmp(how, "headless")) {
        // The first thread ends, and another goes on.
        pthread_t other;
        if (pthread_create(&other, 0, unnamed_files, 0)) return 7;
        pthread_exit(0);
    }
    if (!strcmp(how, "hidden")) {
        mkdir("/scratch/dark", 0700);
        fill("/scratch/dark/file", 8 << 20, 0);
        chmod("/scratch/dark", 0);
        endless();
    }
    for (long i = 0;; i++) {
        snprintf(name, sizeof name, "/scratch/%ld", i);
        if (!strcmp(how, "bytes")) fill(name, 4 << 20, 0);
        if (!strcmp(how, "unnamed")) fill(name, 4 << 20, 1);
        if (!strcmp(how, "inodes") && write_text(name, "") < 0) return 4;
        if (!strcmp(how, "memory") && (fill(name, 4 << 20, 0), i > 64)) return 5;
    }
}

static int output(const char *how) {
    int fd;
    if (!strcmp(how, "link")) return symlink("/etc/passwd", "/out/result");
    if (!strcmp(how, "folder")) return mkdir("/out/result", 0700);
    if (!strcmp(how, "pipe")) return mkfifo("/out/result", 0600) < 0 ? 3 : 0;
    if (!strcmp(how, "socket")) {
        struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/out/result"};
        return bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&at, sizeof at) < 0 ? 3 : 0;
    }
    if (!strcmp(how, "sparse")) {
        fd = open("/out/result", O_WRONLY | O_CREAT, 0600);
        return ftruncate(fd, 32 << 20) < 0 ? 3 : 0;
    }
    // One that stays behind swaps file and link for as long as it lives.
    if (fork() == 0) {
        setsid();
        write_text("/out/file", "good");
        symlink("/etc/passwd", "/out/link");
        for (;;) {
            syscall(SYS_renameat2, AT_FDCWD, "/out/file", AT_FDCWD, "/out/result", 0);
            syscall(SYS_renameat2, AT_FDCWD, "/out/link", AT_FDCWD, "/out/result", 2);
            write_text("/out/file", "good");
            symlink("/etc/passwd", "/out/link");
        }
    }
    usleep(50000);
    return 0;
}

static int hard_to_wipe(void) {
    for (int i = 0; i < 3000; i++) {
        if (mkdir("deeper", 0700) < 0 || chdir("deeper") < 0) return 3;
        if (i % 100 == 0) write_text("file", "x");
    }
    chdir("/scratch");
    for (int i = 0; i < 500; i++) {
        char name[64];
        snprintf(name, sizeof name, ".wiped-%d", i);
        mkdir(name, 0700);
        snprintf(name, sizeof name, ".wiped-%d/\x01\xff\n%d", i, i);
        mkdir(name, 0700);
        chmod(name, 0);
        snprintf(name, sizeof name, ".wiped-%d", i);
        chmod(name, i % 2 ? 0 : 0500);
    }
    return chmod("/scratch", 0) < 0 ? 4 : 0;
}

static int copy(void) {
    char text[4096];
    int in = open("/in/text", O_RDONLY);
    long n = in < 0 ? -1 : read(in, text, sizeof text - 1);
    if (n < 0) return 9;
    text[n] = 0;
    printf("read %ld bytes\n", n);
    return write_text("/out/result", text) < 0 ? 8 : 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *how = argc > 2 ? argv[2] : "";
    if (!strcmp(what, "try") && argc == 7) {
        try_files(argv + 2);
        try_others(argv + 2);
        try_kernel();
    } else if (!strcmp(what, "facts")) {
        facts();
    } else if (!strcmp(what, "copy")) {
        return copy();
    } else if (!strcmp(what, "exit")) {
        return atoi(how);
    } else if (!strcmp(what, "survive")) {
        survivors(atoi(how), argc > 3 && !strcmp(argv[3], "busy"));
        if (argc > 3) endless();
    } else if (!strcmp(what, "fork")) {
        fork_bomb();
    } else if (!strcmp(what, "memory")) {
        memory_bomb();
    } else if (!strcmp(what, "disk")) {
        return disk(how);
    } else if (!strcmp(what, "log")) {
        for (;;) puts("a line of a log that has no end");
    } else if (!strcmp(what, "files")) {
        int count = 0;
        while (open("/dev/null", O_RDONLY) >= 0) count++;
        printf("%d files, then: %s\n", count + 3, strerror(errno));
    } else if (!strcmp(what, "spin")) {
        spin();
    } else if (!strcmp(what, "output")) {
        return output(how);
    } else if (!strcmp(what, "hard-to-wipe")) {
        return hard_to_wipe();
    } else {
        return 2;
    }
    return 0;
}
