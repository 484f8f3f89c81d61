/*
 * One system call with the rights of another user, on this thread alone. The runtime must not see that: a thread that it starts
 * meanwhile would inherit the rights. So all of it is here: rights are taken, the call is made, and they are given back before this
 * returns. The identity that others signal and trace by (uid, euid) never changes, only what files are opened with.
 */
#define _GNU_SOURCE
#include "cbd.h"
#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNCHANGED ((unsigned)-1)

struct own_rights {
    unsigned user, group;
    int count;
    unsigned *groups;
    struct __user_cap_data_struct capabilities[2];
};

/* The calls of the C library change all threads; these change this one. */
static unsigned file_user(unsigned user) { return (unsigned)syscall(SYS_setfsuid, (long)user); }
static unsigned file_group(unsigned group) { return (unsigned)syscall(SYS_setfsgid, (long)group); }

static long capabilities_of_thread(long call, struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return syscall(call, &header, data);
}

/*
 * The kernel makes a process whose thread changes its rights undumpable, and so hides it from others of its user. It is as before
 * when no thread has other rights any more, and not earlier: a core file would belong to that user.
 */
static pthread_mutex_t dump_lock = PTHREAD_MUTEX_INITIALIZER;
static int changed_threads;
static int was_dumpable;

static void begin_change(void)
{
    pthread_mutex_lock(&dump_lock);
    if (changed_threads++ == 0)
        was_dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    pthread_mutex_unlock(&dump_lock);
}

static void end_change(void)
{
    pthread_mutex_lock(&dump_lock);
    if (--changed_threads == 0 && was_dumpable == 1)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    pthread_mutex_unlock(&dump_lock);
}

static int remember(struct own_rights *own)
{
    own->user = file_user(UNCHANGED);
    own->group = file_group(UNCHANGED);
    own->count = (int)syscall(SYS_getgroups, 0, NULL);
    if (own->count < 0)
        return -EPERM;
    own->groups = calloc((size_t)own->count + 1, sizeof *own->groups);
    if (own->groups == NULL)
        return -ENOMEM;
    if (syscall(SYS_getgroups, (long)own->count, own->groups) != own->count || capabilities_of_thread(SYS_capget, own->capabilities) < 0)
        return -EPERM;
    return 0;
}

/* If *changed is set, the rights are to be given back, whatever this returns. */
static int take(const struct cbd_rights *rights, const struct own_rights *own, int *changed)
{
    *changed = 0;
    if (syscall(SYS_setgroups, (long)rights->count, rights->groups) < 0)
        return -EPERM;
    *changed = 1;
    file_group(rights->group);
    file_user(rights->user);
    /* These two say nothing of whether they were allowed to. */
    if (file_group(UNCHANGED) != rights->group || file_user(UNCHANGED) != rights->user)
        return -EPERM;
    struct __user_cap_data_struct none[2];
    memcpy(none, own->capabilities, sizeof none);
    none[0].effective = none[1].effective = 0;
    return capabilities_of_thread(SYS_capset, none) < 0 ? -EPERM : 0;
}

/* A thread that kept the rights of somebody else would be the worst of all faults: the process ends rather. */
static void give_back(struct own_rights *own)
{
    file_user(own->user);
    file_group(own->group);
    if (capabilities_of_thread(SYS_capset, own->capabilities) < 0 ||
        syscall(SYS_setgroups, (long)own->count, own->groups) < 0 ||
        file_user(UNCHANGED) != own->user || file_group(UNCHANGED) != own->group)
        abort();
}

long cbd_call_with_rights(const struct cbd_rights *rights, int *taken, long number, long a, long b, long c, long d, long e, long f)
{
    sigset_t all, before;
    struct own_rights own = {0};
    *taken = 0;
    /* No handler runs with these rights. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    long result = remember(&own);
    if (result == 0) {
        int changed;
        begin_change();
        result = take(rights, &own, &changed);
        if (result == 0) {
            *taken = 1;
            result = syscall(number, a, b, c, d, e, f);
            if (result < 0)
                result = -errno;
        }
        if (changed)
            give_back(&own);
        end_change();
    }
    free(own.groups);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}
