// What is lent in the benchmark. `now out` writes the time at which it begins to its result, `now` to its output, in
// nanoseconds since the Unix epoch. `stay N` leaves N processes that heed no signal, each in a session of its own, says
// so in a file, and stays.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void deaf(void) {
    for (int signal = 1; signal < 65; signal++) sigaction(signal, &(struct sigaction){.sa_handler = SIG_IGN}, 0);
    for (;;) pause();
}

static int say(const char *path, long long number) {
    FILE *to = path ? fopen(path, "w") : stdout;
    return !to || fprintf(to, "%lld\n", number) < 0 || fclose(to);
}

int main(int argc, char **argv) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (argc > 2 && !strcmp(argv[1], "stay")) {
        int count = atoi(argv[2]);
        prctl(PR_SET_NAME, "benchhostile");
        for (int i = 1; i < count; i++) {
            if (fork() == 0) {
                setsid();
                if (fork() == 0) {
                    setsid();
                    deaf();
                }
                _exit(0);
            }
            // One that has ended counts until it is waited for, and a job may have so many alone.
            wait(0);
        }
        if (say("/out/up", count)) return 3;
        deaf();
    }
    return say(argc > 2 ? "/out/result" : 0, now.tv_sec * 1000000000LL + now.tv_nsec);
}
