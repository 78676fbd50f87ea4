/*
 * The machine as a program finds it, preloaded into it: how long a write takes to reach the disk, and the wall clock. Each is a
 * number in a file that the test writes in the folder `MACHINE`; without one the machine is as it is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name) {
    char path[4096], text[32] = "";
    const char *folder = getenv("MACHINE");
    if (!folder || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atol(text) : 0;
}

int fdatasync(int file) {
    usleep((useconds_t)number("sync_ms") * 1000);
    return (int)syscall(SYS_fdatasync, file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += number("step_s");
    return failed;
}
