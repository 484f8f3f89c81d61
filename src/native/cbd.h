/*
 * What CBD needs and .NET cannot do: accesses of exactly one cache line, copies fused with a CRC32C in the widest
 * form that this CPU has, and a guard against SIGBUS in mapped regions. Every function may be called from any thread.
 */
#ifndef CBD_H
#define CBD_H

#include <stddef.h>
#include <stdint.h>

#define CBD_EXPORT __attribute__((visibility("default")))

/*
 * Copies one line out of shared memory. `line` is aligned to 64 bytes, `destination` need not be. The copy may be torn
 * where the CPU has no 64-byte load. Later loads of this thread are performed after it.
 */
CBD_EXPORT void cbd_line_load(void *destination, const void *line);

/*
 * Stores one line into shared memory, after all earlier stores of this thread. `line` is aligned to 64 bytes, `source`
 * to 8.
 */
CBD_EXPORT void cbd_line_store(void *line, const void *source);

/*
 * Copies `length` bytes, reading each byte of the source once, and returns the CRC32C register `crc` continued over
 * exactly the bytes that were copied. The register is not inverted, neither before nor after. The ranges must not
 * overlap.
 */
CBD_EXPORT uint32_t cbd_copy_crc(void *destination, const void *source, size_t length, uint32_t crc);

/*
 * A hint that [start, start + length) will be read, or written over whole, soon. Any address: what is not there is
 * ignored.
 */
CBD_EXPORT void cbd_prefetch(const void *start, size_t length, int for_write);

/*
 * Forms of cbd_line_load/store and cbd_copy_crc, for tests, measurements and `--version`: count, name of form `index`
 * (NULL: no such form), whether this CPU has it, and a call of it (undefined where it has it not). The chosen one is
 * the last that this CPU has.
 */
CBD_EXPORT int cbd_line_forms(void);
CBD_EXPORT const char *cbd_line_form_name(int index);
CBD_EXPORT int cbd_line_form_available(int index);
CBD_EXPORT void cbd_line_form_load(int index, void *destination, const void *line);
CBD_EXPORT void cbd_line_form_store(int index, void *line, const void *source);
CBD_EXPORT int cbd_crc_forms(void);
CBD_EXPORT const char *cbd_crc_form_name(int index);
CBD_EXPORT int cbd_crc_form_available(int index);
CBD_EXPORT uint32_t cbd_crc_form_copy(int index, void *destination, const void *source, size_t length, uint32_t crc);

/*
 * Guards [start, start + length), which is a mapping, whole pages: a SIGBUS there (file truncated, memory broken)
 * sets a poison flag and puts private zeroes in place of the whole mapping, and the access goes on. A SIGBUS anywhere
 * else goes to the handler that was there before. Returns a number ≥ 0 for cbd_guard_remove, which must come before
 * the mapping is unmapped, or -1 if too many mappings are guarded.
 */
CBD_EXPORT int cbd_guard_add(void *start, size_t length);
CBD_EXPORT void cbd_guard_remove(int guard);

/*
 * Signals as bytes of a pipe. cbd_signals_open returns the end to read from, or a negative errno; EBUSY if it is open already.
 * cbd_signals_watch makes a signal a byte with its number in that pipe; returns 1, a negative errno, or 0 if the signal is
 * ignored and that is to stay. cbd_signals_end_by ends the process as the signal does by default.
 */
CBD_EXPORT int cbd_signals_open(void);
CBD_EXPORT int cbd_signals_watch(int number, int unless_ignored);
CBD_EXPORT int cbd_signals_end_by(int number);

/* Nonzero if the mapping was replaced. */
CBD_EXPORT int cbd_guard_poisoned(int guard);

/* Whose rights files are opened with: user, group, and `count` further groups. */
struct cbd_rights {
    uint32_t user;
    uint32_t group;
    uint32_t count;
    const uint32_t *groups;
};

/*
 * Makes system call `number` with these rights and no capability, on this thread alone, and returns what it returns, or a negative
 * errno. *taken says whether the rights could be had; if not, the call was not made. If they cannot be given back, the process ends.
 */
CBD_EXPORT long cbd_call_with_rights(const struct cbd_rights *rights, int *taken, long number, long a, long b, long c, long d, long e, long f);

/*
 * What a program is started with. It gets descriptors 0 to 2 of this process, `descriptors` from 3 on in their order, and no other;
 * no signal is blocked, and none has a handler or is ignored, but for SIGINT where that is ignored here.
 */
struct cbd_spawn {
    const char *path;         /* of the program, if there is no descriptor of it */
    char *const *arguments;   /* ends with NULL */
    char *const *changes;     /* of the environment: "NAME=VALUE" sets, "NAME" removes */
    char *const *numbers;     /* places of 12 bytes, in `changes` say, into which the child's process id is written */
    const int *descriptors;
    uint32_t descriptor_count;
    uint32_t change_count;
    uint32_t number_count;
    int32_t program;          /* a descriptor of it, or -1 */
};

/*
 * Starts it as a child of this process and returns its process id, with its pidfd in *process, when it runs. A negative errno: it does
 * not, and there is no child.
 */
CBD_EXPORT int cbd_spawn(const struct cbd_spawn *spawn, int *process);

/*
 * Waits until a child has ended with all of its threads, and forgets it. Returns its exit code, or CBD_ENDED_BY_SIGNAL and the number
 * of the signal that ended it; a negative errno if there is no such child.
 */
#define CBD_ENDED_BY_SIGNAL 256
CBD_EXPORT int cbd_await_end(int number);

#endif
