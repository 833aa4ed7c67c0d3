// A job that tries what its first argument says, and prints what stopped it.
//
// Each trial prints one line, `trial: ` and what the kernel answered. `OPEN` stands where nothing did.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void said(const char *trial, long result) {
    if (result < 0)
        printf("%s: %s\n", trial, strerror(errno));
    else
        printf("%s: OPEN\n", trial);
    fflush(stdout);
}

static int write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return -1;
    long n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "copy")) {
        char text[4096];
        int in = open("/in/text", O_RDONLY);
        long n = in < 0 ? -1 : read(in, text, sizeof text - 1);
        if (n < 0) return 9;
        text[n] = 0;
        printf("read %ld bytes\n", n);
        return write_text("/out/result", text) < 0 ? 8 : 0;
    }
    if (!strcmp(what, "exit")) return atoi(argv[2]);
    said(what, 0);
    return 77;
}
