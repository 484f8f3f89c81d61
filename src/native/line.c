/*
 * Loads and stores of one 64-byte line. A line that is stored by one instruction and loaded by one never tore in
 * trials; two halves did. So the widest access that the CPU has is used, and the line's own CRC decides.
 *
 * Between hosts the barriers of arm64 must reach the outer shareable domain. x86-64 orders loads with loads and stores
 * with stores itself; there the compiler alone has to be kept from moving them.
 */
#include "cbd.h"
#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define BEFORE_STORE() __asm__ volatile("" ::: "memory")
#define AFTER_LOAD() __asm__ volatile("" ::: "memory")
#else
#define BEFORE_STORE() __asm__ volatile("dmb oshst" ::: "memory")
#define AFTER_LOAD() __asm__ volatile("dmb oshld" ::: "memory")
#endif

#if defined(__x86_64__)
static void load_words(void *destination, const void *line)
{
    const volatile uint64_t *from = line;
    uint64_t w0 = from[0], w1 = from[1], w2 = from[2], w3 = from[3];
    uint64_t w4 = from[4], w5 = from[5], w6 = from[6], w7 = from[7];
    uint64_t words[8] = {w0, w1, w2, w3, w4, w5, w6, w7};
    __builtin_memcpy(destination, words, sizeof words);
    AFTER_LOAD();
}

static void store_words(void *line, const void *source)
{
    volatile uint64_t *to = line;
    const uint64_t *from = source;
    BEFORE_STORE();
    for (int i = 0; i < 8; i++)
        to[i] = from[i];
}

/*
 * The words of a line were just stored one by one. Loading them with a wide load would wait until they have left the
 * store buffer, so they are loaded one by one as well and put together in registers.
 */
__attribute__((target("avx2"))) static inline __m256i join_words(const volatile uint64_t *words)
{
    __m128i low = _mm_insert_epi64(_mm_cvtsi64_si128((long long)words[0]), (long long)words[1], 1);
    __m128i high = _mm_insert_epi64(_mm_cvtsi64_si128((long long)words[2]), (long long)words[3], 1);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

__attribute__((target("avx2"))) static void load_avx2(void *destination, const void *line)
{
    __m256i low = _mm256_load_si256(line);
    __m256i high = _mm256_load_si256((const __m256i *)line + 1);
    __asm__ volatile("" : "+x"(low), "+x"(high)::"memory");
    _mm256_storeu_si256(destination, low);
    _mm256_storeu_si256((__m256i *)destination + 1, high);
}

__attribute__((target("avx2"))) static void store_avx2(void *line, const void *source)
{
    __m256i low = join_words(source);
    __m256i high = join_words((const volatile uint64_t *)source + 4);
    BEFORE_STORE();
    _mm256_store_si256(line, low);
    _mm256_store_si256((__m256i *)line + 1, high);
}

__attribute__((target("avx512f,avx2"))) static void load_avx512(void *destination, const void *line)
{
    __m512i value = _mm512_load_si512(line);
    __asm__ volatile("" : "+v"(value)::"memory");
    _mm512_storeu_si512(destination, value);
}

__attribute__((target("avx512f,avx2"))) static void store_avx512(void *line, const void *source)
{
    __m256i low = join_words(source);
    __m256i high = join_words((const volatile uint64_t *)source + 4);
    __m512i value = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    BEFORE_STORE();
    __asm__ volatile("vmovdqa64 %1, %0" : "=m"(*(__m512i *)line) : "v"(value));
}
#else
static void load_words(void *destination, const void *line)
{
    uint64_t w0, w1, w2, w3, w4, w5, w6, w7;
    __asm__ volatile("ldp %0, %1, [%8]\n\tldp %2, %3, [%8, #16]\n\tldp %4, %5, [%8, #32]\n\tldp %6, %7, [%8, #48]"
                     : "=&r"(w0), "=&r"(w1), "=&r"(w2), "=&r"(w3), "=&r"(w4), "=&r"(w5), "=&r"(w6), "=&r"(w7)
                     : "r"(line)
                     : "memory");
    AFTER_LOAD();
    uint64_t words[8] = {w0, w1, w2, w3, w4, w5, w6, w7};
    __builtin_memcpy(destination, words, sizeof words);
}

static void store_words(void *line, const void *source)
{
    const uint64_t *from = source;
    BEFORE_STORE();
    __asm__ volatile("stp %0, %1, [%8]\n\tstp %2, %3, [%8, #16]\n\tstp %4, %5, [%8, #32]\n\tstp %6, %7, [%8, #48]"
                     :
                     : "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3]), "r"(from[4]), "r"(from[5]), "r"(from[6]),
                       "r"(from[7]), "r"(line)
                     : "memory");
}
#endif

static struct form {
    const char *name;
    void (*load)(void *, const void *);
    void (*store)(void *, const void *);
    int available;
} forms[] = {
    {"8 x 8 bytes", load_words, store_words, 1},
#if defined(__x86_64__)
    {"avx2, 2 x 32 bytes", load_avx2, store_avx2, 0},
    {"avx512, 64 bytes", load_avx512, store_avx512, 0},
#endif
};

static void (*chosen_load)(void *, const void *) = load_words;
static void (*chosen_store)(void *, const void *) = store_words;

__attribute__((constructor)) static void choose(void)
{
#if defined(__x86_64__)
    struct cbd_cpu cpu = cbd_cpu_detect();
    forms[1].available = cpu.avx2;
    forms[2].available = cpu.avx512 && cpu.avx2;
#endif
    for (int i = 0; i < cbd_line_forms(); i++) {
        if (forms[i].available) {
            chosen_load = forms[i].load;
            chosen_store = forms[i].store;
        }
    }
}

void cbd_line_load(void *destination, const void *line)
{
    chosen_load(destination, line);
}

void cbd_line_store(void *line, const void *source)
{
    chosen_store(line, source);
}

void cbd_prefetch(const void *start, size_t length, int for_write)
{
    const char *from = start;
    if (for_write) {
        for (size_t i = 0; i < length; i += 64)
            __builtin_prefetch(from + i, 1);
    } else {
        for (size_t i = 0; i < length; i += 64)
            __builtin_prefetch(from + i, 0);
    }
}

int cbd_line_forms(void)
{
    return (int)(sizeof forms / sizeof forms[0]);
}

const char *cbd_line_form_name(int index)
{
    return index >= 0 && index < cbd_line_forms() ? forms[index].name : NULL;
}

int cbd_line_form_available(int index)
{
    return index >= 0 && index < cbd_line_forms() && forms[index].available;
}

void cbd_line_form_load(int index, void *destination, const void *line)
{
    forms[index].load(destination, line);
}

void cbd_line_form_store(int index, void *line, const void *source)
{
    forms[index].store(line, source);
}
