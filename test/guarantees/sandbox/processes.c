/* Other processes: signals, limits, memory, and what is shared by user ID. */
#include "attack.h"
#include <dirent.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/uio.h>

static char secret[4096];

static void tell(int number) {
    char text[] = "signal ..\n";
    text[7] = '0' + number / 10;
    text[8] = '0' + number % 10;
    if (write(1, text, 10) < 0) _exit(1);
}

/* Holds a secret in memory, in an open file, and in System V and POSIX IPC. Says where, and which signals come, until its input ends. */
static void victim(char **a) {
    struct {
        long type;
        char text[32];
    } message = {1, "SECRET message"};
    struct sigaction on_signal = {.sa_handler = tell, .sa_flags = SA_RESTART};
    /* One after the other, the lowest number first. */
    sigfillset(&on_signal.sa_mask);
    sigaction(SIGUSR1, &on_signal, NULL);
    sigaction(SIGURG, &on_signal, NULL);
    sigaction(SIGWINCH, &on_signal, NULL);

    int file = must(open(a[0], O_RDONLY));
    must(pread(file, secret, sizeof secret - 1, 0));
    int memory = must(shmget(IPC_PRIVATE, 4096, 0600)), queue = must(msgget(IPC_PRIVATE, 0600)), semaphore = must(semget(IPC_PRIVATE, 1, 0600));
    strcpy(shmat(memory, NULL, 0), "SECRET memory\n");
    must(msgsnd(queue, &message, sizeof message.text, 0));
    /* Its first character is a slash; the file system has none. */
    mqd_t posix = mq_open(a[1], O_CREAT | O_RDWR, 0600, NULL);

    printf("%d %p %d %d %d %d %s\n", getpid(), (void *)secret, file, memory, queue, semaphore, isatty(0) ? ttyname(0) : "-");
    fflush(stdout);
    for (char byte; read(0, &byte, 1) > 0;);

    shmctl(memory, IPC_RMID, NULL);
    msgctl(queue, IPC_RMID, NULL);
    semctl(semaphore, 0, IPC_RMID);
    if (posix != (mqd_t)-1) mq_unlink(a[1]);
}

/* What is left of what it holds. */
static void ask_ipc(char **a) {
    struct shmid_ds memory;
    struct msqid_ds queue;
    printf("%s ", shmctl(atoi(a[0]), IPC_STAT, &memory) ? "removed" : "there");
    if (msgctl(atoi(a[1]), IPC_STAT, &queue)) printf("removed ");
    else printf("%lu ", queue.msg_qnum);
    printf("%d ", semctl(atoi(a[2]), 0, GETVAL));
    puts(mq_open(a[3], O_RDONLY) == (mqd_t)-1 ? "removed" : "there");
}

static pid_t shepherd(void) {
    pid_t parent = getppid();
    if (parent) return parent;
    /* It is in no namespace of ours. 0 would mean ourselves. */
    errno = ESRCH;
    return must(-1);
}

static pid_t target(const char *text) { return strcmp(text, "shepherd") ? atoi(text) : shepherd(); }

static void send_kill(char **a) { report(kill(target(a[0]), atoi(a[1]))); }
static void send_to_group(char **a) { report(kill(-target(a[0]), atoi(a[1]))); }
static void send_to_thread(char **a) { report(syscall(SYS_tgkill, target(a[0]), target(a[0]), atoi(a[1]))); }
static void send_to_any_thread(char **a) { report(syscall(SYS_tkill, target(a[0]), atoi(a[1]))); }

static void send_with_value(char **a) {
    siginfo_t info = {.si_code = SI_QUEUE};
    report(syscall(SYS_rt_sigqueueinfo, target(a[0]), atoi(a[1]), &info));
}

static void send_by_descriptor(char **a) {
    int fd = must(syscall(SYS_pidfd_open, target(a[0]), 0));
    report(syscall(SYS_pidfd_send_signal, fd, atoi(a[1]), NULL, 0));
}

/* The kernel sends it, because a pipe that "belongs" to the other process has something to read. */
static void send_by_pipe(char **a) {
    int ends[2];
    must(pipe(ends));
    must(fcntl(ends[0], F_SETSIG, atoi(a[1])));
    must(fcntl(ends[0], F_SETOWN, target(a[0])));
    must(fcntl(ends[0], F_SETFL, O_ASYNC));
    report(write(ends[1], "x", 1));
}

/* To all that it may signal; returns 0 also when that is nobody but itself. SIGURG does nothing to who does not ask for it. */
static void send_to_all(char **a) {
    (void)a;
    report(kill(-1, SIGURG));
}

static void limit(char **a) {
    struct rlimit it = {atoi(a[1]), 819200};
    report(syscall(SYS_prlimit64, target(a[0]), RLIMIT_MSGQUEUE, &it, NULL));
}

static void limit_with_high_bits(char **a) {
    struct rlimit it = {atoi(a[1]), 819200};
    report(syscall(SYS_prlimit64, target(a[0]) | HIGH_BIT, RLIMIT_MSGQUEUE, &it, NULL));
}

static void limit_itself(char **a) {
    struct rlimit it = {100, 100};
    (void)a;
    report(setrlimit(RLIMIT_NOFILE, &it));
}

static void choose_processor(char **a) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    report(sched_setaffinity(target(a[0]), sizeof set, &set));
}

static void choose_scheduler(char **a) {
    struct sched_param none = {0};
    report(sched_setscheduler(target(a[0]), SCHED_BATCH, &none));
}

/* Above the nice value that the tests were started with, unless that is 18 or more. */
enum { NICE = 18 };
static void renice(char **a) { report(setpriority(PRIO_PROCESS, target(a[0]), NICE)); }
static void renice_group(char **a) { report(setpriority(PRIO_PGRP, target(a[0]), NICE)); }
static void renice_user(char **a) { report(setpriority(PRIO_USER, atoi(a[0]), NICE)); }
static void renice_group_with_high_bits(char **a) { report(syscall(SYS_setpriority, PRIO_PGRP | HIGH_BIT, target(a[0]), NICE)); }

/* IOPRIO_WHO_PROCESS 1, _PGRP 2, _USER 3; class 3 is "idle". */
#define IDLE (3 << 13)
static void slow_group(char **a) { report(syscall(SYS_ioprio_set, 2, target(a[0]), IDLE)); }
static void slow_user(char **a) { report(syscall(SYS_ioprio_set, 3, atoi(a[0]), IDLE | 7)); }
static void slow_group_with_high_bits(char **a) { report(syscall(SYS_ioprio_set, 2 | HIGH_BIT, target(a[0]), IDLE)); }
static void show_io_priority(char **a) { printf("%d\n", (int)(syscall(SYS_ioprio_get, 1, atoi(a[0])) >> 13)); }

static void trace(char **a) {
    int status;
    must(ptrace(PTRACE_ATTACH, target(a[0]), 0, 0));
    must(waitpid(target(a[0]), &status, __WALL));
    report(ptrace(PTRACE_DETACH, target(a[0]), 0, 0));
}

static void seize(char **a) { report(ptrace(PTRACE_SEIZE, target(a[0]), 0, 0)); }

static struct iovec there(const char *address, size_t size) { return (struct iovec){(void *)strtoul(address, NULL, 0), size}; }

static void read_memory(char **a) {
    char bytes[64] = {0};
    struct iovec here = {bytes, 32}, from = there(a[1], 32);
    must(process_vm_readv(target(a[0]), &here, 1, &from, 1, 0));
    puts(bytes);
}

static void write_memory(char **a) {
    struct iovec here = {"OVERWRITTEN", 12}, to = there(a[1], 12);
    report(process_vm_writev(target(a[0]), &here, 1, &to, 1, 0));
}

static void read_memory_file(char **a) {
    char path[64], bytes[64] = {0};
    snprintf(path, sizeof path, "/proc/%d/mem", target(a[0]));
    must(pread(must(open(path, O_RDONLY)), bytes, 32, strtoul(a[1], NULL, 0)));
    puts(bytes);
}

static void compare(char **a) { report(syscall(SYS_kcmp, getpid(), target(a[0]), KCMP_VM, 0, 0)); }

static void take_descriptor(char **a) {
    int fd = must(syscall(SYS_pidfd_getfd, must(syscall(SYS_pidfd_open, target(a[0]), 0)), atoi(a[1]), 0));
    lseek(fd, 0, SEEK_SET);
    show(fd);
}

static void advise_memory(char **a) {
    struct iovec to = there(a[1], 4096);
    to.iov_base = (void *)((uintptr_t)to.iov_base & ~4095UL);
    report(syscall(SYS_process_madvise, must(syscall(SYS_pidfd_open, target(a[0]), 0)), &to, 1, MADV_COLD, 0));
}

/* Which of the processes carries this text in its command line or in its environment: "found". */
static void search(char **a) {
    DIR *proc = opendir("/proc");
    if (!proc) must(-1);
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300], bytes[8192];
        if (*entry->d_name < '1' || *entry->d_name > '9' || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%s/%s", entry->d_name, a[0]);
        int fd = open(path, O_RDONLY);
        ssize_t size = read(fd, bytes, sizeof bytes);
        if (size > 0 && memmem(bytes, size, a[1], strlen(a[1]))) puts("found");
        close(fd);
    }
    puts("searched");
}

/* A key of the user's keyring (-4), where the next process of the user finds it. */
static void add_key(char **a) { report(syscall(SYS_add_key, "user", a[0], "SECRET", 6, -4)); }

static void read_key(char **a) {
    char bytes[64] = {0};
    long key = must(syscall(SYS_keyctl, 10, -4, "user", a[0], 0));
    must(syscall(SYS_keyctl, 11, key, bytes, sizeof bytes));
    puts(bytes);
}

static void request_key(char **a) { report(syscall(SYS_request_key, "user", a[0], NULL, -4)); }

static void unlink_key(char **a) { report(syscall(SYS_keyctl, 9, must(syscall(SYS_keyctl, 10, -4, "user", a[0], 0)), -4)); }

static void read_shared_memory(char **a) {
    char *memory = shmat(atoi(a[0]), NULL, SHM_RDONLY);
    if (memory == (void *)-1) must(-1);
    fputs(memory, stdout);
}

static void remove_shared_memory(char **a) { report(shmctl(atoi(a[0]), IPC_RMID, NULL)); }

static void take_message(char **a) {
    struct {
        long type;
        char text[64];
    } message;
    must(msgrcv(atoi(a[0]), &message, sizeof message.text, 0, IPC_NOWAIT));
    puts(message.text);
}

static void send_message(char **a) {
    struct {
        long type;
        char text[4];
    } message = {1, "x"};
    report(msgsnd(atoi(a[0]), &message, sizeof message.text, IPC_NOWAIT));
}

static void remove_queue(char **a) { report(msgctl(atoi(a[0]), IPC_RMID, NULL)); }

static void raise_semaphore(char **a) {
    struct sembuf up = {0, 5, IPC_NOWAIT};
    report(semop(atoi(a[0]), &up, 1));
}

static void set_semaphore(char **a) { report(semctl(atoi(a[0]), 0, SETVAL, 5)); }
static void remove_semaphore(char **a) { report(semctl(atoi(a[0]), 0, IPC_RMID)); }
static void make_shared_memory(char **a) { report(shmget(atoi(a[0]), 4096, IPC_CREAT | 0600)); }
static void make_queue(char **a) { report(msgget(atoi(a[0]), IPC_CREAT | 0600)); }
static void make_semaphore(char **a) { report(semget(atoi(a[0]), 1, IPC_CREAT | 0600)); }
static void open_posix_queue(char **a) { report(mq_open(a[0], O_RDWR)); }
static void remove_posix_queue(char **a) { report(mq_unlink(a[0])); }

/* Who it is, and what it may: "effective user ID, capabilities". */
static void who(char **a) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct is[2];
    must(syscall(SYS_capget, &header, is));
    int bounding = 0;
    for (int n = 0; n < 64; n++) bounding += prctl(PR_CAPBSET_READ, n) == 1;
    printf("user %d, effective %x%08x, permitted %x%08x, bounding %d\n", geteuid(), is[1].effective, is[0].effective, is[1].permitted,
           is[0].permitted, bounding);
    (void)a;
}

/* A new program as user 0 gets all capabilities back, or not. */
static void who_after_exec(char **a) { execl(a[0], a[0], "who", NULL); }

static void unshare_it(char **a) { report(unshare(strtol(a[0], NULL, 0))); }

static long new_process(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, 0);
    return pid;
}

static void clone_it(char **a) { report(new_process(strtol(a[0], NULL, 0))); }
static void clone_with_high_bits(char **a) { report(new_process(strtol(a[0], NULL, 0) | HIGH_BIT << 10)); }

static void clone3_it(char **a) {
    uint64_t about[8] = {strtoul(a[0], NULL, 0), 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, about, sizeof about);
    if (pid == 0) _exit(0);
    report(pid);
}

static void enter(char **a) { report(setns(must(syscall(SYS_pidfd_open, target(a[0]), 0)), CLONE_NEWNET)); }

const struct attack processes[] = {
    {"victim", victim},
    {"ask_ipc", ask_ipc},
    {"send_kill", send_kill},
    {"send_to_group", send_to_group},
    {"send_to_thread", send_to_thread},
    {"send_to_any_thread", send_to_any_thread},
    {"send_with_value", send_with_value},
    {"send_by_descriptor", send_by_descriptor},
    {"send_by_pipe", send_by_pipe},
    {"send_to_all", send_to_all},
    {"limit", limit},
    {"limit_with_high_bits", limit_with_high_bits},
    {"limit_itself", limit_itself},
    {"choose_processor", choose_processor},
    {"choose_scheduler", choose_scheduler},
    {"renice", renice},
    {"renice_group", renice_group},
    {"renice_user", renice_user},
    {"renice_group_with_high_bits", renice_group_with_high_bits},
    {"slow_group", slow_group},
    {"slow_user", slow_user},
    {"slow_group_with_high_bits", slow_group_with_high_bits},
    {"show_io_priority", show_io_priority},
    {"trace", trace},
    {"seize", seize},
    {"read_memory", read_memory},
    {"write_memory", write_memory},
    {"read_memory_file", read_memory_file},
    {"compare", compare},
    {"take_descriptor", take_descriptor},
    {"advise_memory", advise_memory},
    {"search", search},
    {"add_key", add_key},
    {"read_key", read_key},
    {"request_key", request_key},
    {"unlink_key", unlink_key},
    {"read_shared_memory", read_shared_memory},
    {"remove_shared_memory", remove_shared_memory},
    {"take_message", take_message},
    {"send_message", send_message},
    {"remove_queue", remove_queue},
    {"raise_semaphore", raise_semaphore},
    {"set_semaphore", set_semaphore},
    {"remove_semaphore", remove_semaphore},
    {"make_shared_memory", make_shared_memory},
    {"make_queue", make_queue},
    {"make_semaphore", make_semaphore},
    {"open_posix_queue", open_posix_queue},
    {"remove_posix_queue", remove_posix_queue},
    {"who", who},
    {"who_after_exec", who_after_exec},
    {"unshare", unshare_it},
    {"clone", clone_it},
    {"clone_with_high_bits", clone_with_high_bits},
    {"clone3", clone3_it},
    {"enter", enter},
    {0},
};
