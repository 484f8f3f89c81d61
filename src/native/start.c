/*
 * The first step of a program, before its runtime starts: signals, descriptors, limits and umask are put in order, because a
 * process inherits all of them from whoever starts it. It is part of the static library alone: a process that loads the
 * shared one has begun already.
 */
#define _GNU_SOURCE
#include "cbd.h"
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each arena of malloc reserves 64 MiB of address space, and each thread would have one of its own. */
#define MOST_ARENAS 2

/* The stack of a thread whose creator asks for no size; by default glibc takes the limit of the main thread's. */
#define THREAD_STACK_BYTES (1UL << 20)
#define MAIN_STACK_BYTES (8UL << 20)

/* The linker is told to want this name, and takes the file with it. */
CBD_EXPORT char cbd_first_step;

/*
 * A descriptor 0, 1 or 2 that is closed would be given to the next file that is opened, and output meant for a terminal would
 * be written into it. A path descriptor takes its place: reads and writes fail with EBADF, as on one that is closed.
 */
static void fill_standard_descriptors(void)
{
    for (int descriptor = 0; descriptor <= 2; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/", O_PATH | O_DIRECTORY);
    }
}

static void set_handler(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigaction(number, &action, NULL);
}

static void order_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Ignored, the kernel would reap children before anybody asks how they ended. */
    set_handler(SIGCHLD, SIG_DFL);
    set_handler(SIGTERM, SIG_DFL);
    /* A write beyond RLIMIT_FSIZE, or to a reader that is gone, fails with an errno. */
    set_handler(SIGXFSZ, SIG_IGN);
    set_handler(SIGPIPE, SIG_IGN);
}

/* As much as the hard limit allows, which a privileged process may raise. */
static void raise_limit(int resource, rlim_t least)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur >= least)
        return;
    struct rlimit raised = {.rlim_cur = least, .rlim_max = limit.rlim_max < least ? least : limit.rlim_max};
    if (limit.rlim_max < least && setrlimit(resource, &raised) == 0)
        return;
    raised.rlim_max = limit.rlim_max;
    raised.rlim_cur = limit.rlim_max < least ? limit.rlim_max : least;
    setrlimit(resource, &raised);
}

static void order_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    raise_limit(RLIMIT_STACK, MAIN_STACK_BYTES);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) == 0) {
        if (pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES) == 0)
            pthread_setattr_default_np(&attributes);
        pthread_attr_destroy(&attributes);
    }
}

/*
 * The runtime is about to write all of its data, megabytes in cbdd, and each first write of a page is a fault. One call makes
 * these pages, and takes a quarter off the time of a verb that only asks. A kernel before 5.14 refuses it, and then they come
 * one by one.
 */
static void make_data_pages(void)
{
    extern char __bss_start[], _end[];
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)__bss_start + page - 1) & ~(page - 1);
    uintptr_t end = (uintptr_t)_end & ~(page - 1);
    if (first < end)
        madvise((void *)first, end - first, MADV_POPULATE_WRITE);
}

__attribute__((constructor(101))) static void put_in_order(void)
{
    int kept = errno;
    fill_standard_descriptors();
    order_signals();
    order_limits();
    mallopt(M_ARENA_MAX, MOST_ARENAS);
    /* Files get the modes that they are made with, but never let others write by an umask of 0, nor lock their owner out. */
    mode_t mask = umask(077);
    umask((mask & 002 ? mask : mask | 022) & ~0700);
    make_data_pages();
    errno = kept;
}
