/* Tries to get out of a sandbox: `attack NAME ARGUMENTS`. Prints what it got, or the name of the error, and exits 0. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct attack {
    const char *name;
    void (*run)(char **arguments);
};

/* Each ends with an entry without a name. */
extern const struct attack files[], network[], processes[], kernel[];

/* Prints "done", or the name of errno when the result is -1; gives whether it was done. */
int report(long result);

/* Prints what is to be read there, or the name of errno. */
void show(int fd);

/* As report(), but says nothing when it was done, and ends the program when not. */
long must(long result);

/* A system call past the C library: all 64 bits of its arguments reach the kernel. */
#define HIGH_BIT (1UL << 32)
