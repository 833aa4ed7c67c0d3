// A builder of a derivation: it looks around, and leaves its outputs. What is wrong is its exit code.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int wrong(int code, const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return code;
}

static int put(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    return file && fputs(text, file) >= 0 && fclose(file) == 0;
}

int main(int argc, char **argv) {
    char cwd[256], inside[512];
    const char *out = getenv("out"), *input = getenv("input");
    if (argc > 1 && !strcmp(argv[1], "again")) return 42;
    if (argc > 1 && !strcmp(argv[1], "nothing")) return 0;
    if (argc > 1 && !strcmp(argv[1], "socket")) {
        // Bound, it is a file of a kind that no archive has.
        struct { unsigned short family; char path[108]; } at = {AF_UNIX, ""};
        snprintf(at.path, sizeof at.path, "%s", out);
        return bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&at, sizeof at) ? wrong(20, "bind") : 0;
    }
    if (!getcwd(cwd, sizeof cwd) || strcmp(cwd, "/build")) return wrong(2, cwd);
    if (getuid() != 1000 || getgid() != 100) return wrong(3, "user");
    for (char **one = environ; *one; one++)
        if (strncmp(*one, "out=", 4) && strncmp(*one, "input=", 6)) return wrong(4, *one);
    if (strcmp(argv[0], "builder")) return wrong(5, argv[0]);
    if (!access("/bin/sh", F_OK) || !access("/home", F_OK) || !access("/job", F_OK)) return wrong(6, "files");
    if (open("/proc/self/mountinfo", O_RDONLY) >= 0) return wrong(7, "mountinfo");
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0) return wrong(8, "a socket");
    // What it reads stays as it is.
    snprintf(inside, sizeof inside, "%s/text", input);
    if (open(inside, O_WRONLY) >= 0 || !unlink(inside) || !chmod(inside, 0777)) return wrong(9, "the input");
    if (!put("/etc/passwd", "x")) errno = 0; else return wrong(10, "/etc");
    if (put("/outside", "x")) return wrong(11, "/");
    for (const char *const *to = (const char *const[]){"/build/x", "/tmp/x", "/dev/shm/x", "/dev/null", 0}; *to; to++)
        if (!put(*to, "x")) return wrong(12, *to);
    if (access("/build/given", R_OK)) return wrong(13, "/build/given");
    // What it has just built can be run.
    char self[256] = "/nix/store/";
    strcat(self, getenv("input") + strlen("/nix/store/"));
    strcat(self, "/builder");
    int status, from = open(self, O_RDONLY), to = open("/build/own", O_WRONLY | O_CREAT, 0755);
    char bytes[65536];
    for (long n; (n = read(from, bytes, sizeof bytes)) > 0;)
        if (write(to, bytes, n) != n) return wrong(14, "a copy");
    close(to);
    if (!fork()) return execl("/build/own", "own", "again", (char *)0);
    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 42) return wrong(15, "what was built");
    if (mkdir(out, 0755) || chdir(out) || !put("made", "made\n")) return wrong(16, "the output");
    if (symlink("/etc/passwd", "link") || mkdir("dark", 0)) return wrong(17, "the output");
    if (chmod("dark", 0700)) return wrong(18, "the output");
    puts("built");
    return 0;
}
