/* Reading, writing and changing what was not allowed. */
#include "attack.h"
#include <dirent.h>
#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static void read_file(char **a) { show(open(a[0], O_RDONLY)); }

static void read_in_directory(char **a) {
    must(chdir(a[0]));
    show(open(a[1], O_RDONLY));
}

static void read_beneath_descriptor(char **a) {
    show(openat(must(open(a[0], O_PATH | O_DIRECTORY)), a[1], O_RDONLY));
}

/* A descriptor that names the file only is opened again by its name in /proc. */
static void read_again(char **a) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%ld", must(open(a[0], O_PATH)));
    show(open(path, O_RDONLY));
}

static void list(char **a) {
    DIR *directory = opendir(a[0]);
    if (!directory) must(-1);
    for (struct dirent *entry; (entry = readdir(directory));) puts(entry->d_name);
}

static void link_and_read(char **a) {
    must(link(a[0], a[1]));
    show(open(a[1], O_RDONLY));
}

static void exchange(char **a) { report(renameat2(AT_FDCWD, a[0], AT_FDCWD, a[1], RENAME_EXCHANGE)); }
static void move(char **a) { report(rename(a[0], a[1])); }

static void read_by_handle(char **a) {
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } it;
    int mount;
    it.handle.handle_bytes = MAX_HANDLE_SZ;
    must(name_to_handle_at(AT_FDCWD, a[0], &it.handle, &mount, 0));
    show(open_by_handle_at(must(open(a[1], O_RDONLY | O_DIRECTORY)), &it.handle, O_RDONLY));
}

static void append(char **a) {
    int fd = must(open(a[0], O_WRONLY | O_APPEND));
    report(write(fd, "written", 7));
}

static void create(char **a) { report(open(a[0], O_WRONLY | O_CREAT | O_EXCL, 0600)); }
static void cut(char **a) { report(truncate(a[0], 0)); }
static void open_and_cut(char **a) { report(open(a[0], O_RDONLY | O_TRUNC)); }
static void delete(char **a) { report(unlink(a[0])); }
static void make_directory(char **a) { report(mkdir(a[0], 0700)); }
static void delete_directory(char **a) { report(rmdir(a[0])); }
static void make_link(char **a) { report(symlink(a[0], a[1])); }
static void make_fifo(char **a) { report(mknod(a[0], S_IFIFO | 0600, 0)); }
static void make_socket(char **a) { report(mknod(a[0], S_IFSOCK | 0600, 0)); }

/* A disk under a name of one's own. */
static void make_disk(char **a) {
    struct stat disk;
    must(stat(a[0], &disk));
    must(mknod(a[1], S_IFBLK | 0600, disk.st_rdev));
    report(open(a[1], O_RDONLY));
}

static void open_file(char **a) { report(open(a[0], O_RDONLY | O_NOCTTY | O_NONBLOCK)); }

static void print(char **a) {
    int fd = must(open(a[0], O_WRONLY | O_NOCTTY));
    report(write(fd, "intruder\n", 9));
}

static void change_mode(char **a) { report(chmod(a[0], 0777)); }

static void make_set_user_id(char **a) { report(chmod(a[0], 04755)); }

static void change_mode_of_descriptor(char **a) { report(fchmod(must(open(a[0], O_RDONLY)), 0777)); }

/* Nobody else, but chown(2) takes the set-user-ID bit away. */
static void change_owner(char **a) { report(chown(a[0], getuid(), getgid())); }

static void change_times(char **a) {
    struct timespec times[2] = {{0, 0}, {0, 0}};
    report(utimensat(AT_FDCWD, a[0], times, 0));
}

static void change_attribute(char **a) { report(setxattr(a[0], "user.attack", "1", 1, 0)); }

static void show_attribute(char **a) {
    char value[64];
    must(getxattr(a[0], "user.attack", value, sizeof value));
    puts("there");
}

static void change_flags(char **a) {
    int fd = must(open(a[0], O_RDONLY)), flags;
    must(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    flags |= FS_NODUMP_FL;
    report(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

static void show_flags(char **a) {
    int fd = must(open(a[0], O_RDONLY)), flags;
    must(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    puts(flags & FS_NODUMP_FL ? "nodump" : "none");
}

/* Others wait with opening it for writing, for as long as the kernel lets them. */
static void lease(char **a) { report(fcntl(must(open(a[0], O_RDONLY)), F_SETLEASE, F_RDLCK)); }

static void change_mode_of_stdin(char **a) {
    report(fchmod(0, 0777));
    (void)a;
}

static void change_mode_beneath_stdin(char **a) { report(fchmodat(0, a[0], 0777, 0)); }

/* What is not limited: it says what a file is, not what is in it. */
static void look(char **a) {
    struct stat it;
    must(stat(a[0], &it));
    must(access(a[0], R_OK));
    must(open(a[0], O_PATH));
    getxattr(a[0], "user.attack", NULL, 0);
    if (errno == EACCES || errno == EPERM) must(-1);
    must(inotify_add_watch(must(inotify_init1(0)), a[0], IN_MODIFY));
    if (S_ISDIR(it.st_mode)) must(chdir(a[0]));
    puts("seen");
}

static void execute(char **a) {
    execv(a[0], a);
    report(-1);
}

static void execute_descriptor(int fd, char **a) {
    syscall(SYS_execveat, fd, "", a, environ, AT_EMPTY_PATH);
    report(-1);
}

/* By a descriptor that names the program only. */
static void execute_by_descriptor(char **a) { execute_descriptor(must(open(a[0], O_PATH)), a); }

/* A copy in memory, which lies in no directory. */
static void execute_in_memory(char **a) {
    char bytes[65536];
    int from = must(open(a[0], O_RDONLY)), to = must(memfd_create("program", 0));
    for (ssize_t size; (size = must(read(from, bytes, sizeof bytes))) > 0;) must(write(to, bytes, size));
    execute_descriptor(to, a);
}

const struct attack files[] = {
    {"read", read_file},
    {"read_in_directory", read_in_directory},
    {"read_beneath_descriptor", read_beneath_descriptor},
    {"read_again", read_again},
    {"list", list},
    {"link_and_read", link_and_read},
    {"exchange", exchange},
    {"move", move},
    {"read_by_handle", read_by_handle},
    {"append", append},
    {"create", create},
    {"cut", cut},
    {"open_and_cut", open_and_cut},
    {"delete", delete},
    {"make_directory", make_directory},
    {"delete_directory", delete_directory},
    {"make_link", make_link},
    {"make_fifo", make_fifo},
    {"make_socket", make_socket},
    {"make_disk", make_disk},
    {"open", open_file},
    {"print", print},
    {"change_mode", change_mode},
    {"make_set_user_id", make_set_user_id},
    {"change_mode_of_descriptor", change_mode_of_descriptor},
    {"change_owner", change_owner},
    {"change_times", change_times},
    {"change_attribute", change_attribute},
    {"show_attribute", show_attribute},
    {"change_flags", change_flags},
    {"show_flags", show_flags},
    {"lease", lease},
    {"change_mode_of_stdin", change_mode_of_stdin},
    {"change_mode_beneath_stdin", change_mode_beneath_stdin},
    {"look", look},
    {"execute", execute},
    {"execute_by_descriptor", execute_by_descriptor},
    {"execute_in_memory", execute_in_memory},
    {0},
};
