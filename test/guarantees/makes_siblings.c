/* Eight that make children of their parent, which exit at once: as fast as they can, for two minutes. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long sibling(void) { return syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0); }

int main(void) {
    signal(SIGTERM, SIG_IGN);
    time_t end = time(NULL) + 120;
    for (int made = 1; made < 8; made++) {
        if (sibling() == 0) break;
    }
    while (time(NULL) < end) {
        if (sibling() == 0) _exit(0);
    }
    return 0;
}
