/* Forks, is gone, and so on in the child, which has changed its session or group: as fast as it can, for a minute. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    signal(SIGTERM, SIG_IGN);
    time_t end = time(NULL) + 60;
    for (unsigned generation = 0; time(NULL) < end; generation++) {
        if (fork() > 0) _exit(0);
        if (generation % 2) setsid();
        else setpgid(0, 0);
    }
    return 0;
}
