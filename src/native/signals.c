/*
 * Signals as bytes of a pipe. The handler does nothing but write one, so that a signal needs no new thread and no memory,
 * which .NET's own registrations do.
 */
#define _GNU_SOURCE
#include "cbd.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int signal_pipe = -1;

static void on_signal(int number)
{
    int kept = errno;
    unsigned char byte = (unsigned char)number;
    /* Full: whoever reads has enough to do. */
    (void)!write(atomic_load(&signal_pipe), &byte, 1);
    errno = kept;
}

int cbd_signals_open(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    int none = -1;
    if (atomic_compare_exchange_strong(&signal_pipe, &none, ends[1]))
        return ends[0];
    close(ends[0]);
    close(ends[1]);
    return -EBUSY;
}

int cbd_signals_watch(int number, int unless_ignored)
{
    struct sigaction before;
    if (sigaction(number, NULL, &before) < 0)
        return -errno;
    if (unless_ignored && before.sa_handler == SIG_IGN)
        return 0;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    /* The stack of a thread of the runtime may be too short for a handler; it has another one for that. */
    action.sa_flags |= SA_ONSTACK;
    sigfillset(&action.sa_mask);
    return sigaction(number, &action, NULL) < 0 ? -errno : 1;
}

int cbd_signals_end_by(int number)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    if (sigaction(number, &standard, NULL) < 0 || kill(getpid(), number) < 0)
        return -errno;
    return 0;
}
