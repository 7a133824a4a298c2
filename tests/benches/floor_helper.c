/* The floor's second process: spawns `true`, waits for it, hands on its status. */
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    char *argv[] = {"true", 0};
    char *envp[] = {"PATH=/usr/bin:/bin", 0};
    pid_t pid;
    int status;
    if (posix_spawnp(&pid, "true", 0, 0, argv, envp) != 0) return 71;
    if (waitpid(pid, &status, 0) != pid) return 71;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 70;
}
