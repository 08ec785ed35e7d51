/* Makes children of its parent that exit at once, for a minute. The pauses are for the system's table of processes, which
   the dead would fill. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    time_t end = time(NULL) + 60;
    while (time(NULL) < end) {
        if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) _exit(0);
        usleep(100);
    }
    return 0;
}
