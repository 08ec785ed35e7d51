/* The kernel itself: its rare system calls, the terminal, mounts. */
#include "attack.h"
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <linux/tiocl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>

static char nothing[4096];

/* Types a character into its own terminal, and reads it as a shell would. */
static void type_with(unsigned long request) {
    struct termios it;
    struct pollfd input = {0, POLLIN, 0};
    must(tcgetattr(0, &it));
    it.c_lflag &= ~(ICANON | ECHO);
    must(tcsetattr(0, TCSANOW, &it));
    must(syscall(SYS_ioctl, 0, request, "x"));
    char byte = 0;
    /* The end of an empty input may be there before. */
    for (int tries = 0; byte != 'x' && tries < 2; tries++) {
        if (poll(&input, 1, 10000) != 1 || read(0, &byte, 1) != 1) return;
    }
    if (byte == 'x') puts("typed");
}

static void type_into_terminal(char **a) {
    (void)a;
    type_with(TIOCSTI);
}

static void type_with_high_bits(char **a) {
    (void)a;
    type_with(TIOCSTI | HIGH_BIT);
}

static void paste_into_console(char **a) {
    (void)a;
    report(syscall(SYS_ioctl, 0, 0x541C, nothing));
}

static void mount_it(char **a) { report(mount("none", a[0], "tmpfs", 0, NULL)); }
static void bind_it(char **a) { report(mount(a[0], a[1], NULL, MS_BIND, NULL)); }
static void unmount(char **a) { report(umount2(a[0], MNT_DETACH)); }
static void remount(char **a) { report(mount(NULL, a[0], NULL, MS_REMOUNT | MS_BIND, NULL)); }
static void new_mount(char **a) { report(syscall(430, "tmpfs", 0)); (void)a; }
static void open_tree_copy(char **a) { report(syscall(428, AT_FDCWD, a[0], 1)); }

static void new_root(char **a) {
    must(chroot(a[0]));
    report(chdir("/"));
}

static void bpf(char **a) {
    union bpf_attr about = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    report(syscall(SYS_bpf, BPF_MAP_CREATE, &about, sizeof about));
    (void)a;
}

static void count_events(char **a) {
    struct perf_event_attr about = {.type = PERF_TYPE_SOFTWARE, .size = sizeof about, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1};
    report(syscall(SYS_perf_event_open, &about, 0, -1, -1, 0));
    (void)a;
}

static void handle_faults(char **a) {
    /* UFFD_USER_MODE_ONLY: what users may. */
    report(syscall(SYS_userfaultfd, 1));
    (void)a;
}

/* FAN_REPORT_FID: what users may. */
static void watch_files(char **a) {
    report(syscall(SYS_fanotify_init, 0x200, 0));
    (void)a;
}

static void read_log(char **a) {
    report(syscall(SYS_syslog, 3, nothing, 100));
    (void)a;
}

/* So many more layers of Landlock, each of which refuses nothing that anybody needs; and then a program, or how many there were room for. */
static void nest(char **a) {
    const uint64_t block_devices[2] = {1 << 11, 0};
    int made = 0;
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    for (; made < atoi(a[0]); made++) {
        int rules = must(syscall(444, block_devices, sizeof block_devices, 0));
        if (syscall(446, rules, 0)) break;
        close(rules);
    }
    if (a[1]) must(execvp(a[1], a + 1));
    printf("%d %s\n", made, strerrorname_np(errno));
}

/* System calls with arguments that do no harm. What the kernel says shows whether it looked at them. */
static void harmless(char **a) {
    const struct {
        const char *name;
        long number, arguments[5];
    } calls[] = {
        {"pivot_root", SYS_pivot_root, {(long)"/nowhere", (long)"/nowhere"}},
        {"move_mount", 429, {-1, (long)"", -1, (long)"", 0}},
        {"fsconfig", 431, {-1, 99, 0, 0, 0}},
        {"fsmount", 432, {-1, 0, 0}},
        {"fspick", 433, {-1, (long)"/nowhere", 0}},
        {"mount_setattr", 442, {-1, (long)"/nowhere", 0xffff, (long)nothing, 32}},
        {"open_tree_attr", 467, {-1, (long)"/nowhere", 0, 0, 0}},
        {"init_module", SYS_init_module, {(long)nothing, 0, (long)""}},
        {"finit_module", SYS_finit_module, {-1, (long)"", 0}},
        {"delete_module", SYS_delete_module, {(long)"no_such_module_here", O_NONBLOCK}},
        {"kexec_load", SYS_kexec_load, {0, 99, 0, -1}},
        {"kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, 0, 0xffff}},
        {"reboot", SYS_reboot, {0, 0, 0, 0}},
        {"swapon", SYS_swapon, {(long)"/nowhere", 0}},
        {"swapoff", SYS_swapoff, {(long)"/nowhere"}},
        {"acct", SYS_acct, {(long)"/nowhere"}},
        {"settimeofday", SYS_settimeofday, {1, 0}},
        {"clock_settime", SYS_clock_settime, {CLOCK_REALTIME, 1}},
        {"adjtimex", SYS_adjtimex, {0}},
        {"clock_adjtime", SYS_clock_adjtime, {CLOCK_REALTIME, 0}},
#ifdef __x86_64__
        {"iopl", SYS_iopl, {4}},
        {"ioperm", SYS_ioperm, {-1, 2, 1}},
#endif
        {"io_uring_enter", 426, {-1, 0, 0, 0, 0}},
        {"io_uring_register", 427, {-1, 99, 0, 0}},
    };
    for (size_t n = 0; n < sizeof calls / sizeof *calls; n++)
        if (!strcmp(calls[n].name, a[0])) {
            const long *it = calls[n].arguments;
            report(syscall(calls[n].number, it[0], it[1], it[2], it[3], it[4], 0));
        }
}

const struct attack kernel[] = {
    {"type_into_terminal", type_into_terminal},
    {"type_with_high_bits", type_with_high_bits},
    {"paste_into_console", paste_into_console},
    {"mount", mount_it},
    {"bind_mount", bind_it},
    {"unmount", unmount},
    {"remount", remount},
    {"new_mount", new_mount},
    {"open_tree_copy", open_tree_copy},
    {"new_root", new_root},
    {"bpf", bpf},
    {"count_events", count_events},
    {"handle_faults", handle_faults},
    {"watch_files", watch_files},
    {"read_log", read_log},
    {"nest", nest},
    {"harmless", harmless},
    {0},
};
