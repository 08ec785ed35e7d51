#include "attack.h"

int report(long result) {
    puts(result == -1 ? strerrorname_np(errno) : "done");
    fflush(stdout);
    return result != -1;
}

long must(long result) {
    if (result == -1) {
        report(-1);
        exit(0);
    }
    return result;
}

void show(int fd) {
    char bytes[4096];
    ssize_t size = must(read(must(fd), bytes, sizeof bytes));
    fwrite(bytes, 1, size, stdout);
}

static void find(const struct attack *attacks, char **arguments) {
    for (; attacks->name; attacks++)
        if (!strcmp(attacks->name, arguments[1])) {
            attacks->run(arguments + 2);
            fflush(stdout);
            exit(0);
        }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    find(files, arguments);
    find(network, arguments);
    find(processes, arguments);
    find(kernel, arguments);
    fprintf(stderr, "no attack has this name: %s\n", arguments[1]);
    return 2;
}
