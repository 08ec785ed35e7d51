/* Installed set-user-ID root: nobody else may signal it until the file that it is given exists. Then it is the user's own
   again, for long. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **arguments) {
    uid_t user = getuid();
    if (count != 2) return 2;
    if (setresuid(0, 0, 0)) return 1;
    if (write(1, "ready\n", 6) != 6) return 1;
    for (int wait = 0; wait < 12000 && access(arguments[1], F_OK); wait++) usleep(10000);
    if (setresuid(user, user, user)) return 1;
    sleep(120);
    return 0;
}
