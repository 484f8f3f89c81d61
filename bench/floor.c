// floor: what this machine's memory can do at best, to put beside what CBD reaches on it.
//
//   gcc -O2 -march=native -fno-builtin-memcpy -o floor bench/floor.c
//   ./floor [--measure line,copy,queue,stream,memcpy] [--requester-cpu N] [--responder-cpu N] [--seconds S] [--disk-size BYTES]
//
// Two processes on a CPU each share an anonymous file (memfd). It measures, S seconds each (queue twice):
//
//   line    The requester stores a sequence number into the request line, the responder waits for it and stores it into
//           the answer line, the requester waits for that: two cache lines moved, nothing else.
//   copy    The same around a read of 4 KiB: the requester stores the number of a random block into the request line;
//           the responder copies that block of its private 'disk' into the shared slot and answers; the requester
//           copies the slot into a private buffer, and the trip ends. No checks, no CRC, one block in flight, always the
//           same slot and the same buffer. It is the least that a block device through shared memory can do.
//   queue   The same with 32 blocks in flight, read and then written, in iops: a ring of lines to the responder and one
//           back, 64 shared slots in turn, 32 private buffers. Of a write the requester copies a buffer into the slot
//           before it asks, and the responder copies the slot into its disk. Both sides only wait for each other.
//           That what is written arrives is not checked.
//   stream  The same as copy for large blocks: 1 MiB blocks of an 8 MiB disk in turn, four shared slots, so that the responder
//           fills one while the requester copies another out, into four private buffers.
//   memcpy  One thread, on the requester's CPU, eight private buffers of 1 MiB: buffer i into buffer i + 4 (mod 8), in
//           turn. All of it within one CPU's caches, where nothing comes from another CPU.
//
// p50_ns is the median of single trips with one reading of the clock in each (clock_ns, of which it contains one);
// mean_ns is of trips without a clock in between. -fno-builtin-memcpy: every copy is the C library's.
//
// The result is one JSON object on stdout. Exit code 0, 1 where the machine refuses something, 2 for a wrong argument.

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BlockBytes = 4096,
    BufferCount = 8,
    BufferBytes = 1 << 20,
    StreamSlots = 4,
    QueueDepth = 32,
    QueueSlots = 2 * QueueDepth,
    // Trips between two looks at the clock, where no single trip is timed.
    BatchTrips = 256,
    // Longer trips (the CPU was taken away) count as this long, for the median alone.
    HistogramNs = 1 << 17,
};

// The requester never numbers a trip so.
static const uint64_t Stop = UINT64_MAX;

// What every byte of a disk is.
static const unsigned char Pattern = 0x5a;

// One entry of a ring: the block, published by the sequence number.
struct entry {
    _Atomic uint64_t block, sequence;
} __attribute__((aligned(64)));

// Only the side that is named stores into its line. 128 bytes apart: CPUs prefetch lines in pairs.
struct shared {
    struct {
        // Of the copy: the block that is asked for. Published by the sequence number.
        _Atomic uint64_t block;
        // Release here pairs with acquire at the other side, in both lines.
        _Atomic uint64_t sequence;
    } request __attribute__((aligned(128)));
    struct {
        _Atomic uint64_t sequence;
    } answer __attribute__((aligned(128)));
    struct entry requests[QueueSlots] __attribute__((aligned(128)));
    struct entry answers[QueueSlots] __attribute__((aligned(128)));
    unsigned char slots[QueueSlots][BlockBytes] __attribute__((aligned(4096)));
    unsigned char slot[BlockBytes] __attribute__((aligned(4096)));
    unsigned char stream[StreamSlots][BufferBytes];
};

struct settings {
    int requester_cpu, responder_cpu;
    double seconds;
    uint64_t disk_bytes;
    unsigned measures;
};

// In the order in which they are done; the bits of settings.measures.
enum { Line, Copy, Queue, Stream, Memcpy, MeasureCount };
static const char *const measure_names[MeasureCount] = {"line", "copy", "queue", "stream", "memcpy"};

struct trips {
    uint64_t count;
    double p50_ns, mean_ns;
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        fprintf(stderr, "floor: CPU %d cannot be used: %s; name one that taskset -p $$ allows\n", cpu, strerror(errno));
        exit(1);
    }
}

// Memory of this process alone, every page there and written.
static unsigned char *private_memory(uint64_t bytes, int seed)
{
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap of private memory");
    memset(memory, seed, bytes);
    return memory;
}

static struct shared *shared_memory(void)
{
    int file = memfd_create("floor", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, sizeof(struct shared)) != 0)
        fail("memfd_create");
    struct shared *memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (memory == MAP_FAILED)
        fail("mmap of shared memory");
    close(file);
    return memory;
}

// The responder's whole life, of round trips: answers until it is told to stop.
static void respond(struct shared *shared, unsigned char *disk)
{
    for (uint64_t expected = 1;; expected++) {
        uint64_t sequence;
        while ((sequence = atomic_load_explicit(&shared->request.sequence, memory_order_acquire)) != expected)
            if (sequence == Stop)
                return;
        if (disk) {
            uint64_t block = atomic_load_explicit(&shared->request.block, memory_order_relaxed);
            memcpy(shared->slot, disk + block * BlockBytes, BlockBytes);
        }
        atomic_store_explicit(&shared->answer.sequence, expected, memory_order_release);
    }
}

// The same of the stream, where the request's sequence number says how far the slots are free.
static void respond_stream(struct shared *shared, unsigned char *disk)
{
    for (uint64_t filled = 0;; filled++) {
        uint64_t asked;
        while ((asked = atomic_load_explicit(&shared->request.sequence, memory_order_acquire)) <= filled)
            ;
        if (asked == Stop)
            return;
        memcpy(shared->stream[filled % StreamSlots], disk + filled % BufferCount * BufferBytes, BufferBytes);
        atomic_store_explicit(&shared->answer.sequence, filled + 1, memory_order_release);
    }
}

static inline void trip(struct shared *shared, uint64_t sequence, uint64_t block, unsigned char *buffer)
{
    if (buffer)
        atomic_store_explicit(&shared->request.block, block, memory_order_relaxed);
    atomic_store_explicit(&shared->request.sequence, sequence, memory_order_release);
    while (atomic_load_explicit(&shared->answer.sequence, memory_order_acquire) != sequence)
        ;
    if (buffer)
        memcpy(buffer, shared->slot, BlockBytes);
}

static double median(const uint32_t *histogram, uint64_t count)
{
    uint64_t seen = 0;
    for (int ns = 0; ns < HistogramNs; ns++)
        if ((seen += histogram[ns]) * 2 >= count)
            return ns;
    return HistogramNs;
}

// xorshift64: the disk's caches must not be able to guess, and the choice must cost next to nothing.
#define NEXT_BLOCK() (random ^= random << 13, random ^= random >> 7, random ^= random << 17, random % blocks)

// The requester's side: a tenth of the time to warm up, then half of it timed trip by trip, then the rest in batches.
static struct trips request(struct shared *shared, const struct settings *settings, unsigned char *buffer)
{
    static uint32_t histogram[HistogramNs];
    memset(histogram, 0, sizeof histogram);
    uint64_t blocks = settings->disk_bytes / BlockBytes, random = 88172645463325252, sequence = 0;
    uint64_t whole = (uint64_t)(settings->seconds * 1e9), from = now_ns(), then = from, now;

    do {
        trip(shared, ++sequence, NEXT_BLOCK(), buffer);
        now = now_ns();
    } while (now - from < whole / 10);

    struct trips result = {0};
    for (then = from = now; now - from < whole * 45 / 100; then = now) {
        trip(shared, ++sequence, NEXT_BLOCK(), buffer);
        now = now_ns();
        uint64_t took = now - then;
        histogram[took < HistogramNs ? took : HistogramNs - 1]++;
        result.count++;
    }
    result.p50_ns = median(histogram, result.count);

    uint64_t untimed = 0;
    for (from = now = now_ns(); now - from < whole * 45 / 100; now = now_ns(), untimed += BatchTrips)
        for (int i = 0; i < BatchTrips; i++)
            trip(shared, ++sequence, NEXT_BLOCK(), buffer);
    result.mean_ns = (double)(now - from) / (double)untimed;
    result.count += untimed;
    return result;
}

// Only the responder is a child: where it ends early, nobody would ever answer.
static void responder_ended(int signal_number)
{
    (void)signal_number;
    static const char text[] = "floor: the responder ended early\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        // Nothing is left to tell it to.
    }
    _exit(1);
}

// Starts the other process on its CPU; disk_bytes is the size of its disk, 0 for none.
static pid_t start_responder(struct shared *shared, const struct settings *settings, uint64_t disk_bytes,
                             void (*respond_with)(struct shared *, unsigned char *))
{
    signal(SIGCHLD, responder_ended);
    pid_t requester = getpid(), responder = fork();
    if (responder < 0)
        fail("fork");
    if (responder == 0) {
        // Not to spin for ever where the requester is killed, before this line too.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != requester)
            _exit(1);
        pin(settings->responder_cpu);
        // After pinning, so that it is allocated where it is used.
        respond_with(shared, disk_bytes ? private_memory(disk_bytes, Pattern) : NULL);
        _exit(0);
    }
    return responder;
}

static void stop_responder(struct shared *shared, pid_t responder)
{
    // Until here its end meant that it failed.
    signal(SIGCHLD, SIG_DFL);
    atomic_store_explicit(&shared->request.sequence, Stop, memory_order_release);
    int status;
    if (waitpid(responder, &status, 0) != responder || status != 0) {
        fprintf(stderr, "floor: the responder failed\n");
        exit(1);
    }
    munmap(shared, sizeof *shared);
}

static void check_arrived(const unsigned char *buffer, size_t bytes)
{
    if (buffer[0] == Pattern && buffer[bytes - 1] == Pattern)
        return;
    fprintf(stderr, "floor: the block that arrived is not the one on the responder's disk; this is a bug\n");
    exit(1);
}

// One measurement between two processes; with_copy decides whether blocks are moved.
static struct trips round_trips(const struct settings *settings, bool with_copy)
{
    struct shared *shared = shared_memory();
    pid_t responder = start_responder(shared, settings, with_copy ? settings->disk_bytes : 0, respond);
    unsigned char *buffer = with_copy ? private_memory(BlockBytes, 0) : NULL;
    struct trips result = request(shared, settings, buffer);
    stop_responder(shared, responder);
    if (buffer) {
        check_arrived(buffer, BlockBytes);
        munmap(buffer, BlockBytes);
    }
    return result;
}

static inline void post(struct entry *ring, uint64_t sequence, uint64_t block)
{
    struct entry *entry = &ring[sequence % QueueSlots];
    atomic_store_explicit(&entry->block, block, memory_order_relaxed);
    atomic_store_explicit(&entry->sequence, sequence, memory_order_release);
}

static inline bool has_arrived(struct entry *ring, uint64_t sequence)
{
    return atomic_load_explicit(&ring[sequence % QueueSlots].sequence, memory_order_acquire) == sequence;
}

static inline uint64_t block_of(struct entry *ring, uint64_t sequence)
{
    return atomic_load_explicit(&ring[sequence % QueueSlots].block, memory_order_relaxed);
}

// The responder's whole life, of a queue.
static inline void respond_queue(struct shared *shared, unsigned char *disk, bool writes)
{
    for (uint64_t sequence = 1;; sequence++) {
        while (!has_arrived(shared->requests, sequence))
            if (atomic_load_explicit(&shared->request.sequence, memory_order_relaxed) == Stop)
                return;
        uint64_t block = block_of(shared->requests, sequence);
        unsigned char *slot = shared->slots[sequence % QueueSlots], *at = disk + block * BlockBytes;
        memcpy(writes ? at : slot, writes ? slot : at, BlockBytes);
        post(shared->answers, sequence, block);
    }
}

static void respond_queue_read(struct shared *shared, unsigned char *disk) { respond_queue(shared, disk, false); }
static void respond_queue_write(struct shared *shared, unsigned char *disk) { respond_queue(shared, disk, true); }

// The requester's side: blocks done a second.
static double queue_iops(const struct settings *settings, bool writes)
{
    struct shared *shared = shared_memory();
    pid_t responder = start_responder(shared, settings, settings->disk_bytes, writes ? respond_queue_write : respond_queue_read);
    unsigned char *buffers = private_memory(QueueDepth * BlockBytes, writes ? Pattern : 0);
    uint64_t blocks = settings->disk_bytes / BlockBytes, random = 88172645463325252, asked = 0, done = 0, counted = 0, next = QueueDepth;
    uint64_t whole = (uint64_t)(settings->seconds * 1e9), from = 0, now = 0;
    bool warm = false;
    do {
        for (; asked - done < QueueDepth; post(shared->requests, asked, NEXT_BLOCK())) {
            asked++;
            if (writes)
                memcpy(shared->slots[asked % QueueSlots], buffers + asked % QueueDepth * BlockBytes, BlockBytes);
        }
        for (; done < asked && has_arrived(shared->answers, done + 1); done++)
            if (!writes)
                memcpy(buffers + (done + 1) % QueueDepth * BlockBytes, shared->slots[(done + 1) % QueueSlots], BlockBytes);
        // Until the first whole turn is answered the responder still makes its disk.
        if (done >= next)
            now = now_ns(), next = done + BatchTrips;
        if (from == 0)
            from = now;
        if (!warm && now - from >= whole / 10)
            warm = true, from = now, counted = done;
    } while (!warm || now - from < whole * 9 / 10);
    stop_responder(shared, responder);
    if (!writes)
        check_arrived(buffers, QueueDepth * BlockBytes);
    munmap(buffers, QueueDepth * BlockBytes);
    return (double)(done - counted) * 1e9 / (double)(now - from);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// MB/s (10^6) of passes over all buffers, repeated for the time given: the median, without the passes that warm up.
static double pass_mb_per_s(const struct settings *settings, void (*pass)(void *), void *argument)
{
    enum { MaxPasses = 1 << 16 };
    static uint64_t passes[MaxPasses];
    uint64_t from = now_ns(), whole = (uint64_t)(settings->seconds * 1e9), then = from;
    size_t count = 0;
    while (then - from < whole && count < MaxPasses) {
        pass(argument);
        uint64_t now = now_ns();
        if (now - from >= whole / 10)
            passes[count++] = now - then;
        then = now;
    }
    if (count == 0) {
        fprintf(stderr, "floor: no pass over the buffers in %g s; give more --seconds\n", settings->seconds);
        exit(1);
    }
    qsort(passes, count, sizeof *passes, ascending);
    return (double)BufferCount * BufferBytes * 1e3 / (double)passes[count / 2];
}

struct stream {
    struct shared *shared;
    unsigned char *buffers;
    uint64_t emptied;
};

static void stream_pass(void *argument)
{
    struct stream *stream = argument;
    for (int i = 0; i < BufferCount; i++) {
        while (atomic_load_explicit(&stream->shared->answer.sequence, memory_order_acquire) <= stream->emptied)
            ;
        uint64_t slot = stream->emptied % StreamSlots;
        memcpy(stream->buffers + slot * BufferBytes, stream->shared->stream[slot], BufferBytes);
        stream->emptied++;
        atomic_store_explicit(&stream->shared->request.sequence, stream->emptied + StreamSlots, memory_order_release);
    }
}

static double stream_mb_per_s(const struct settings *settings)
{
    struct stream stream = {.shared = shared_memory()};
    pid_t responder = start_responder(stream.shared, settings, (uint64_t)BufferCount * BufferBytes, respond_stream);
    stream.buffers = private_memory((uint64_t)StreamSlots * BufferBytes, 0);
    atomic_store_explicit(&stream.shared->request.sequence, StreamSlots, memory_order_release);
    double result = pass_mb_per_s(settings, stream_pass, &stream);
    stop_responder(stream.shared, responder);
    check_arrived(stream.buffers, (size_t)StreamSlots * BufferBytes);
    munmap(stream.buffers, (size_t)StreamSlots * BufferBytes);
    return result;
}

static void memcpy_pass(void *argument)
{
    unsigned char *buffers = argument;
    for (size_t i = 0; i < BufferCount; i++)
        memcpy(buffers + (i + BufferCount / 2) % BufferCount * BufferBytes, buffers + i * BufferBytes, BufferBytes);
}

static double memcpy_mb_per_s(const struct settings *settings)
{
    unsigned char *buffers = private_memory((uint64_t)BufferCount * BufferBytes, Pattern);
    double result = pass_mb_per_s(settings, memcpy_pass, buffers);
    munmap(buffers, (size_t)BufferCount * BufferBytes);
    return result;
}

static double clock_ns(void)
{
    enum { Readings = 10000 };
    uint64_t from = now_ns();
    for (int i = 0; i < Readings - 1; i++)
        (void)now_ns();
    return (double)(now_ns() - from) / Readings;
}

static _Noreturn void usage(const char *option, const char *value, const char *wanted)
{
    fprintf(stderr, "floor: --%s %s: must be %s\n", option, value, wanted);
    exit(2);
}

static double number(const char *option, const char *value, double least, double most, const char *wanted)
{
    char *end;
    errno = 0;
    double x = strtod(value, &end);
    // A comparison that NaN fails.
    if (end == value || *end != '\0' || errno != 0 || !(x >= least && x <= most))
        usage(option, value, wanted);
    return x;
}

static int cpu(const char *option, const char *value)
{
    double x = number(option, value, 0, CPU_SETSIZE - 1, "the number of a CPU, from 0");
    if (x != (int)x)
        usage(option, value, "the number of a CPU, from 0");
    return (int)x;
}

static unsigned measures(char *names)
{
    unsigned chosen = 0;
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        int measure = 0;
        while (measure < MeasureCount && strcmp(name, measure_names[measure]) != 0)
            measure++;
        if (measure == MeasureCount)
            usage("measure", name, "some of line, copy, queue, stream, memcpy, with commas between");
        chosen |= 1U << measure;
    }
    if (chosen == 0)
        usage("measure", "''", "some of line, copy, queue, stream, memcpy, with commas between");
    return chosen;
}

static struct settings settings_of(int argc, char **argv)
{
    static const struct option options[] = {
        {"measure", required_argument, NULL, 'm'},
        {"requester-cpu", required_argument, NULL, 'q'}, {"responder-cpu", required_argument, NULL, 'a'},
        {"seconds", required_argument, NULL, 's'},       {"disk-size", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},                {0},
    };
    static const char disk_wanted[] = "a multiple of 4096, from 4096 to 17179869184 bytes";
    struct settings settings = {.requester_cpu = 0, .responder_cpu = 1, .seconds = 1, .disk_bytes = 8 << 20, .measures = ~0U};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'm':
            settings.measures = measures(optarg);
            break;
        case 'q':
            settings.requester_cpu = cpu("requester-cpu", optarg);
            break;
        case 'a':
            settings.responder_cpu = cpu("responder-cpu", optarg);
            break;
        case 's':
            settings.seconds = number("seconds", optarg, 0.01, 60, "0.01 to 60");
            break;
        case 'd': {
            double bytes = number("disk-size", optarg, BlockBytes, 1ULL << 34, disk_wanted);
            settings.disk_bytes = (uint64_t)bytes;
            if ((double)settings.disk_bytes != bytes || settings.disk_bytes % BlockBytes != 0)
                usage("disk-size", optarg, disk_wanted);
            break;
        }
        case 'h':
            puts("floor [--measure line,copy,queue,stream,memcpy] [--requester-cpu N] [--responder-cpu N] [--seconds S] [--disk-size BYTES]");
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "floor: %s: takes options only; see --help\n", argv[optind]);
        exit(2);
    }
    if (settings.requester_cpu == settings.responder_cpu) {
        fprintf(stderr, "floor: --responder-cpu %d: is the requester's too; name two CPUs\n", settings.responder_cpu);
        exit(2);
    }
    return settings;
}

int main(int argc, char **argv)
{
    struct settings settings = settings_of(argc, argv);
    // The responder's for a moment, so that one that cannot be used is refused here.
    pin(settings.responder_cpu);
    pin(settings.requester_cpu);
    printf("{\"requester_cpu\":%d,\"responder_cpu\":%d,\"seconds\":%g,\"clock_ns\":%.1f", settings.requester_cpu,
           settings.responder_cpu, settings.seconds, clock_ns());
    for (int measure = 0; measure < MeasureCount; measure++) {
        if (!(settings.measures & 1U << measure))
            continue;
        // What is buffered here would be printed by the responder, too.
        fflush(stdout);
        const char *name = measure_names[measure];
        if (measure == Line || measure == Copy) {
            struct trips trips = round_trips(&settings, measure == Copy);
            printf(",\"%s\":{\"trips\":%llu,\"p50_ns\":%.0f,\"mean_ns\":%.1f}", name, (unsigned long long)trips.count,
                   trips.p50_ns, trips.mean_ns);
        } else if (measure == Queue) {
            printf(",\"%s\":{\"read_iops\":%.0f", name, queue_iops(&settings, false));
            fflush(stdout);
            printf(",\"write_iops\":%.0f}", queue_iops(&settings, true));
        } else {
            printf(",\"%s\":{\"mb_per_s\":%.0f}", name,
                   measure == Stream ? stream_mb_per_s(&settings) : memcpy_mb_per_s(&settings));
        }
    }
    printf("}\n");
    if (fflush(stdout) != 0)
        fail("stdout");
    return 0;
}
