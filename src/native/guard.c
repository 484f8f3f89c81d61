/*
 * The SIGBUS guard. The kernel raises SIGBUS when a mapped page is not there: the file was truncated, or its memory is
 * broken. That is bad input from outside and must not end the process.
 *
 * The handler only reads a table of atomics, stores a flag and makes one system call, all of which POSIX or the kernel
 * allow in a handler; it never runs managed code, so it does not matter where it interrupted that.
 */
#define _GNU_SOURCE
#include "cbd.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#define MAXIMUM_GUARDS 1024

static struct guard {
    atomic_uintptr_t start;
    atomic_size_t length; /* 0: not guarded; stored after start, cleared before it */
    atomic_int poisoned;
    int used; /* under the mutex */
} guards[MAXIMUM_GUARDS];

/* Entries from here on were never used. */
static atomic_int used_guards;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int installed;
static struct sigaction previous;

static void pass_on(int signal, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && info->si_code > 0)) {
        /* The access faults again and the kernel does what it does without a handler. */
        struct sigaction standard = {.sa_handler = SIG_DFL};
        sigaction(signal, &standard, NULL);
        if (info->si_code <= 0)
            raise(signal);
    } else if (previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal);
    }
}

static int poison(uintptr_t address)
{
    int count = atomic_load_explicit(&used_guards, memory_order_acquire);
    for (int i = 0; i < count; i++) {
        size_t length = atomic_load_explicit(&guards[i].length, memory_order_acquire);
        uintptr_t start = atomic_load_explicit(&guards[i].start, memory_order_relaxed);
        if (address < start || address - start >= length)
            continue;
        /* Before the zeroes appear: who reads them finds the flag set. */
        atomic_store(&guards[i].poisoned, 1);
        return mmap((void *)start, length, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
    return 0;
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    int kept = errno;
    /* si_code > 0: from the kernel, so si_addr is the address of an access. */
    if (info->si_code <= 0 || !poison((uintptr_t)info->si_addr))
        pass_on(signal, info, context);
    errno = kept;
}

static int install(void)
{
    if (sigaction(SIGBUS, NULL, &previous) < 0)
        return -1;
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_mask = previous.sa_mask};
    /* On the stack on which the previous handler expects to be: that of the .NET runtime needs a whole one. */
    action.sa_flags = (previous.sa_flags & ~SA_RESETHAND) | SA_SIGINFO;
    return sigaction(SIGBUS, &action, NULL);
}

int cbd_guard_add(void *start, size_t length)
{
    int found = -1;
    pthread_mutex_lock(&mutex);
    if (!installed)
        installed = install() == 0;
    for (int i = 0; installed && i < MAXIMUM_GUARDS && found < 0; i++) {
        if (!guards[i].used)
            found = i;
    }
    if (found >= 0) {
        guards[found].used = 1;
        atomic_store(&guards[found].poisoned, 0);
        atomic_store(&guards[found].start, (uintptr_t)start);
        atomic_store(&guards[found].length, length);
        if (atomic_load(&used_guards) <= found)
            atomic_store(&used_guards, found + 1);
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void cbd_guard_remove(int guard)
{
    if (guard < 0 || guard >= MAXIMUM_GUARDS)
        return;
    pthread_mutex_lock(&mutex);
    atomic_store(&guards[guard].length, 0);
    atomic_store(&guards[guard].start, 0);
    guards[guard].used = 0;
    pthread_mutex_unlock(&mutex);
}

int cbd_guard_poisoned(int guard)
{
    return guard >= 0 && guard < MAXIMUM_GUARDS && atomic_load(&guards[guard].poisoned);
}
