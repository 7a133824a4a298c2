/* The floor's parent: floor_parent TASKS CONCURRENCY HELPER. Spawns HELPER for each task, at most
   CONCURRENCY at a time, and waits for every one. The least that a supervisor with one host per
   task can do. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 4) return 64;
    long tasks = atol(argv[1]), concurrency = atol(argv[2]), started = 0, live = 0;
    char *child[] = {argv[3], 0};
    char *envp[] = {"PATH=/usr/bin:/bin", 0};
    while (started < tasks || live > 0) {
        if (started < tasks && live < concurrency) {
            pid_t pid;
            if (posix_spawn(&pid, argv[3], 0, 0, child, envp) != 0) return 71;
            started++;
            live++;
            continue;
        }
        int status;
        if (waitpid(-1, &status, 0) < 0) return 71;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return 70;
        live--;
    }
    return 0;
}
