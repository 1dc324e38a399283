/* A disk that fails as it is told, between the program and libc (LD_PRELOAD).

   It sees what the shipped program does, whoever in it does it, and nothing of it is in the program. Every call that
   changes something below FAULTS_UNDER is counted: opening to write, write, fsync, rename, mkdir, unlink, truncate.

   FAULTS_KIND   none      count alone
                 full      call FAULTS_AT and all later ones that need space: ENOSPC
                 readonly  call FAULTS_AT and all later ones: EROFS
                 failing   call FAULTS_AT and all later ones: EIO
                 once      call FAULTS_AT alone: EIO
                 flip      the first write from call FAULTS_AT on reaches the disk with a bit flipped
                 kill      SIGKILL in call FAULTS_AT, half of a write done
                 short     a write takes a third of what it is given, or is interrupted
                 slow      every call takes FAULTS_SLOW microseconds
                 clock     the time of day jumps back and forth at each look, the monotonic one forward
   FAULTS_COUNT  the file that gets the number of calls at the end */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096
static _Atomic long calls, looks;
static _Atomic int flipped;
static _Atomic char below[FDS];

static const char *setting(const char *name) { const char *v = getenv(name); return v ? v : ""; }
static int kind(const char *name) { return strcmp(setting("FAULTS_KIND"), name) == 0; }

__attribute__((destructor)) static void count(void) {
    const char *path = setting("FAULTS_COUNT");
    if (!*path) return;
    char text[32];
    int length = snprintf(text, sizeof text, "%ld", (long)calls);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd >= 0) { syscall(SYS_write, fd, text, length); syscall(SYS_close, fd); }
}

static int is_below(const char *absolute) {
    const char *under = setting("FAULTS_UNDER");
    size_t n = strlen(under);
    return n && strncmp(absolute, under, n) == 0;
}

/* Whether a path as it is given, from a folder's descriptor, lies below. */
static int path_below(int folder, const char *path) {
    char from[PATH_MAX], whole[2 * PATH_MAX];
    if (path[0] == '/') return is_below(path);
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, from, sizeof from) < 0) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, from, sizeof from - 1);
        if (n < 0) return 0;
        from[n] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", from, path);
    return is_below(whole);
}

enum need { SPACE, CHANGE };

static void killed(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); for (;;) pause(); }

/* Counts a call; gives the error it fails with, or 0, or -1 for the call to be killed in. */
static int fate(enum need need) {
    long n = atomic_fetch_add(&calls, 1) + 1, at = atol(setting("FAULTS_AT"));
    if (kind("slow")) {
        struct timespec t = {0, 1000 * atol(setting("FAULTS_SLOW"))};
        syscall(SYS_nanosleep, &t, 0);
    }
    if (at == 0) return 0;
    if (kind("kill") && n == at) return -1;
    if (kind("full") && n >= at && need == SPACE) return ENOSPC;
    if (kind("readonly") && n >= at) return EROFS;
    if (kind("failing") && n >= at) return EIO;
    if (kind("once") && n == at) return EIO;
    return 0;
}

/* A call that is done whole or not at all; killed before it or after it. */
#define WHOLE(need, below, call)                                   \
    do {                                                           \
        if (!(below)) return (call);                               \
        int error = fate(need);                                    \
        if (error == -1) { if (calls % 2) (void)(call); killed(); } \
        if (error) { errno = error; return -1; }                   \
        return (call);                                             \
    } while (0)

static int opened(int folder, const char *path, int flags, mode_t mode) {
    int there = path_below(folder, path);
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    if (there && writes) {
        int error = fate(flags & O_CREAT ? SPACE : CHANGE);
        if (error == -1) killed();
        if (error) { errno = error; return -1; }
    }
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && fd < FDS) below[fd] = there;
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }

static int fd_below(int fd) { return fd >= 0 && fd < FDS && below[fd]; }

int close(int fd) { if (fd >= 0 && fd < FDS) below[fd] = 0; return syscall(SYS_close, fd); }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!fd_below(fd)) return syscall(SYS_write, fd, bytes, length);
    int error = fate(SPACE);
    if (error == -1) { syscall(SYS_write, fd, bytes, length / 2); killed(); }
    if (error) { errno = error; return -1; }
    if (kind("flip") && calls >= atol(setting("FAULTS_AT")) && length && !atomic_exchange(&flipped, 1)) {
        char *copy = malloc(length);
        memcpy(copy, bytes, length);
        copy[length / 2] ^= 1;
        ssize_t done = syscall(SYS_write, fd, copy, length);
        free(copy);
        return done;
    }
    if (kind("short")) {
        if (calls % 5 == 0) { errno = EINTR; return -1; }
        return syscall(SYS_write, fd, bytes, length > 2 ? length / 3 : length);
    }
    return syscall(SYS_write, fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (!fd_below(fd)) return syscall(SYS_writev, fd, parts, n);
    for (int i = 0; i < n; i++) if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

int fsync(int fd) { WHOLE(CHANGE, fd_below(fd), syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { WHOLE(CHANGE, fd_below(fd), syscall(SYS_fdatasync, fd)); }
int ftruncate(int fd, off_t n) { WHOLE(CHANGE, fd_below(fd), syscall(SYS_ftruncate, fd, n)); }
int ftruncate64(int fd, off_t n) { WHOLE(CHANGE, fd_below(fd), syscall(SYS_ftruncate, fd, n)); }
int rename(const char *from, const char *to) {
    WHOLE(CHANGE, path_below(AT_FDCWD, to), syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int mkdir(const char *path, mode_t mode) {
    WHOLE(SPACE, path_below(AT_FDCWD, path), syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int unlink(const char *path) { WHOLE(CHANGE, path_below(AT_FDCWD, path), syscall(SYS_unlinkat, AT_FDCWD, path, 0)); }
int rmdir(const char *path) {
    WHOLE(CHANGE, path_below(AT_FDCWD, path), syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
}
int unlinkat(int folder, const char *path, int flags) {
    WHOLE(CHANGE, path_below(folder, path), syscall(SYS_unlinkat, folder, path, flags));
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = syscall(SYS_clock_gettime, clock, time);
    if (done || !kind("clock")) return done;
    long n = atomic_fetch_add(&looks, 1);
    if (clock == CLOCK_REALTIME) time->tv_sec += n % 2 ? 86400L * (n % 4000) : -86400L * (n % 4000);
    /* As after a pause of a virtual machine. */
    if (clock == CLOCK_MONOTONIC) time->tv_sec += 400 * (n / 50);
    return done;
}
