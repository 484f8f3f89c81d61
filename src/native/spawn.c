/*
 * Starts a program with exactly the descriptors that it is to have, and waits for its end. The child shares this process's memory
 * until it has become the program (as with vfork), so between the two it makes system calls only and stores into its own stack
 * and into what its parent prepared for it.
 */
#define _GNU_SOURCE
#include "cbd.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of linux/close_range.h, which older systems do not have. */
#define CLOSE_ON_EXEC 4U

#define FIRST_PASSED 3

/* Descriptors that are tried one by one where nothing tells which are open. */
#define MOST_TRIED (1U << 20)
#define STACK_BYTES (64UL << 10)

/* Decimal digits of the largest process id, and the final zero. */
#define NUMBER_BYTES 12

extern char **environ;

struct start {
    const struct cbd_spawn *spawn;
    char **environment;
    /* Where the passed descriptors are between the two rounds of moving them. */
    int *moved;
    int error;
};

/* The name of "NAME=VALUE" or "NAME", without the sign. */
static size_t name_length(const char *entry)
{
    const char *end = strchr(entry, '=');
    return end == NULL ? strlen(entry) : (size_t)(end - entry);
}

static int is_changed(const char *entry, char *const *changes, size_t count)
{
    size_t length = name_length(entry);
    for (size_t i = 0; i < count; i++) {
        if (name_length(changes[i]) == length && memcmp(changes[i], entry, length) == 0)
            return 1;
    }
    return 0;
}

/* This process's environment with the changes; the strings stay where they are. */
static char **make_environment(const struct cbd_spawn *spawn)
{
    size_t own = 0;
    while (environ != NULL && environ[own] != NULL)
        own++;
    char **result = calloc(own + spawn->change_count + 1, sizeof *result);
    if (result == NULL)
        return NULL;
    size_t count = 0;
    for (size_t i = 0; i < own; i++) {
        if (!is_changed(environ[i], spawn->changes, spawn->change_count))
            result[count++] = environ[i];
    }
    for (size_t i = 0; i < spawn->change_count; i++) {
        if (strchr(spawn->changes[i], '=') != NULL)
            result[count++] = spawn->changes[i];
    }
    return result;
}

static void write_number(char *place, int number)
{
    char digits[NUMBER_BYTES];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    for (int i = 0; i < count; i++)
        place[i] = digits[count - 1 - i];
    place[count] = '\0';
}

/* A handler of this process must not run in the child. What is ignored would stay ignored in the program; SIGINT is left so: the
 * shell that started this process in the background wants it. */
static void reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL}, before;
    for (int number = 1; number < NSIG; number++) {
        if (number == SIGKILL || number == SIGSTOP || sigaction(number, NULL, &before) < 0)
            continue;
        if (before.sa_handler == SIG_DFL || (number == SIGINT && before.sa_handler == SIG_IGN))
            continue;
        sigaction(number, &standard, NULL);
    }
}

/* One name of a directory, as getdents64 stores it. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* Those that are listed in /proc. Returns 0, or -1 if there is no such list. */
static int close_listed(unsigned first)
{
    _Alignas(struct entry) char entries[4096];
    long bytes;
    int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -1;
    while ((bytes = syscall(SYS_getdents64, (long)directory, entries, (long)sizeof entries)) > 0) {
        for (long at = 0; at < bytes; at += ((struct entry *)(entries + at))->length) {
            unsigned number = 0;
            const char *digit = ((struct entry *)(entries + at))->name;
            for (; *digit >= '0' && *digit <= '9'; digit++)
                number = number * 10 + (unsigned)(*digit - '0');
            if (*digit == '\0' && number >= first)
                fcntl((int)number, F_SETFD, FD_CLOEXEC);
        }
    }
    close(directory);
    return bytes < 0 ? -1 : 0;
}

/*
 * All from here on are closed by exec. Linux before 5.11 has no such call, and a filter of system calls may refuse it. The limit of open
 * files says what is open only if it was never lowered, and may be without a bound.
 */
static void close_rest(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (long)first, ~0UL & 0xffffffffUL, (long)CLOSE_ON_EXEC) == 0)
        return;
#endif
    if (close_listed(first) == 0)
        return;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > MOST_TRIED)
        limit.rlim_cur = MOST_TRIED;
    for (unsigned descriptor = first; descriptor < limit.rlim_cur; descriptor++)
        fcntl((int)descriptor, F_SETFD, FD_CLOEXEC);
}

static int run_child(void *argument)
{
    struct start *start = argument;
    const struct cbd_spawn *spawn = start->spawn;
    int above = FIRST_PASSED + (int)spawn->descriptor_count;
    int program = spawn->program;
    reset_signals();
    /* First out of the way of each other, then to their places. */
    if (program >= 0 && (program = fcntl(program, F_DUPFD_CLOEXEC, above)) < 0)
        goto failed;
    for (unsigned i = 0; i < spawn->descriptor_count; i++) {
        if ((start->moved[i] = fcntl(spawn->descriptors[i], F_DUPFD_CLOEXEC, above)) < 0)
            goto failed;
    }
    for (unsigned i = 0; i < spawn->descriptor_count; i++) {
        if (dup2(start->moved[i], FIRST_PASSED + (int)i) < 0)
            goto failed;
    }
    close_rest((unsigned)above);
    int self = (int)syscall(SYS_getpid);
    for (unsigned i = 0; i < spawn->number_count; i++)
        write_number(spawn->numbers[i], self);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (program >= 0)
        syscall(SYS_execveat, (long)program, "", spawn->arguments, start->environment, (long)AT_EMPTY_PATH);
    else
        execve(spawn->path, spawn->arguments, start->environment);
failed:
    start->error = errno == 0 ? EIO : errno;
    _exit(127);
}

int cbd_spawn(const struct cbd_spawn *spawn, int *process)
{
    struct start start = {.spawn = spawn};
    int result = -ENOMEM;
    *process = -1;
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    start.environment = make_environment(spawn);
    start.moved = calloc(spawn->descriptor_count + 1UL, sizeof *start.moved);
    if (stack != MAP_FAILED && start.environment != NULL && start.moved != NULL) {
        sigset_t all, before;
        sigfillset(&all);
        /* A signal that comes now waits: its handler would run in the child with the memory of this process. */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        result = clone(run_child, (char *)stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &start, process);
        if (result < 0)
            result = -errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        /* The child is the program by now, or has ended. */
        if (result > 0 && start.error != 0) {
            int status;
            while (waitpid(result, &status, 0) < 0 && errno == EINTR)
                ;
            close(*process);
            *process = -1;
            result = -start.error;
        }
    }
    free(start.moved);
    free(start.environment);
    if (stack != MAP_FAILED)
        munmap(stack, STACK_BYTES);
    return result;
}

int cbd_await_end(int number)
{
    siginfo_t end = {0};
    while (waitid(P_PID, (id_t)number, &end, WEXITED) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return end.si_code == CLD_EXITED ? end.si_status : CBD_ENDED_BY_SIGNAL + end.si_status;
}
