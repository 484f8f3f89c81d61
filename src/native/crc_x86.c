/*
 * Copy + CRC32C with the crc32 instruction, and by folding with carry-less multiplies.
 *
 * Folding: a block A of 128 bits that stands D bits before a block B adds the same to the CRC as A * x^D mod P does in
 * the place of B. In the reflected order of CRC32C the low quadword L of A holds the higher powers: A = L * x^64 + H.
 * The product of two reflected quadwords comes out as their product times x, so
 *     A * x^D = L * (x^(D+63) mod P) * x + H * (x^(D-1) mod P) * x,
 * two multiplies by constants, which are computed at start. What is left after folding goes through the crc32
 * instruction.
 *
 * Every word of the source is loaded once, into a register that is opaque to the compiler from then on: what is
 * stored and what is in the CRC cannot differ, even if another host changes the source meanwhile.
 */
#if defined(__x86_64__)
#include "crc.h"
#include <immintrin.h>

/* {x^(D+63), x^(D-1)} mod P for D = 512 and 2048, each in the upper half of a reflected quadword. */
static uint64_t fold_by_512[2];
static uint64_t fold_by_2048[2];

static uint64_t power_of_x(int exponent)
{
    uint32_t value = 0x80000000u; /* x^0 */
    for (int i = 0; i < exponent; i++)
        value = (value >> 1) ^ (value & 1 ? CBD_CRC_POLYNOMIAL : 0);
    return (uint64_t)value << 32;
}

void cbd_crc_init_fold(void)
{
    fold_by_512[0] = power_of_x(512 + 63);
    fold_by_512[1] = power_of_x(512 - 1);
    fold_by_2048[0] = power_of_x(2048 + 63);
    fold_by_2048[1] = power_of_x(2048 - 1);
}

__attribute__((target("sse4.2"))) uint32_t cbd_copy_crc_sse42(
    void *destination, const void *source, size_t length, uint32_t crc)
{
    const uint8_t *from = source;
    uint8_t *to = destination;
    uint64_t value = crc;
    for (; length >= 8; length -= 8, from += 8, to += 8) {
        uint64_t word;
        __builtin_memcpy(&word, from, 8);
        __asm__ volatile("" : "+r"(word));
        __builtin_memcpy(to, &word, 8);
        value = _mm_crc32_u64(value, word);
    }
    crc = (uint32_t)value;
    for (; length > 0; length--) {
        uint8_t byte = *(const volatile uint8_t *)from++;
        *to++ = byte;
        crc = _mm_crc32_u8(crc, byte);
    }
    return crc;
}

#define TARGET_128 __attribute__((target("sse4.2,pclmul")))

TARGET_128 static inline __m128i copy_128(uint8_t *to, const uint8_t *from)
{
    __m128i value = _mm_loadu_si128((const __m128i *)from);
    __asm__ volatile("" : "+x"(value));
    _mm_storeu_si128((__m128i *)to, value);
    return value;
}

TARGET_128 static inline __m128i fold_128(__m128i value, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(value, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(value, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

TARGET_128 static inline uint64_t crc_128(uint64_t crc, __m128i value)
{
    crc = _mm_crc32_u64(crc, (uint64_t)_mm_cvtsi128_si64(value));
    return _mm_crc32_u64(crc, (uint64_t)_mm_extract_epi64(value, 1));
}

TARGET_128 uint32_t cbd_copy_crc_fold128(void *destination, const void *source, size_t length, uint32_t crc)
{
    const uint8_t *from = source;
    uint8_t *to = destination;
    if (length >= 128) {
        __m128i by = _mm_loadu_si128((const __m128i *)fold_by_512);
        __m128i x0 = _mm_xor_si128(copy_128(to, from), _mm_cvtsi32_si128((int)crc));
        __m128i x1 = copy_128(to + 16, from + 16);
        __m128i x2 = copy_128(to + 32, from + 32);
        __m128i x3 = copy_128(to + 48, from + 48);
        for (from += 64, to += 64, length -= 64; length >= 64; from += 64, to += 64, length -= 64) {
            x0 = fold_128(x0, by, copy_128(to, from));
            x1 = fold_128(x1, by, copy_128(to + 16, from + 16));
            x2 = fold_128(x2, by, copy_128(to + 32, from + 32));
            x3 = fold_128(x3, by, copy_128(to + 48, from + 48));
        }
        crc = (uint32_t)crc_128(crc_128(crc_128(crc_128(0, x0), x1), x2), x3);
    }
    return cbd_copy_crc_sse42(to, from, length, crc);
}

#define TARGET_512 __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

TARGET_512 static inline __m512i copy_512(uint8_t *to, const uint8_t *from)
{
    __m512i value = _mm512_loadu_si512(from);
    __asm__ volatile("" : "+v"(value));
    _mm512_storeu_si512(to, value);
    return value;
}

TARGET_512 static inline __m512i fold_512(__m512i value, __m512i by, __m512i next)
{
    __m512i low = _mm512_clmulepi64_epi128(value, by, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(value, by, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96); /* xor of three */
}

TARGET_512 uint32_t cbd_copy_crc_fold512(void *destination, const void *source, size_t length, uint32_t crc)
{
    const uint8_t *from = source;
    uint8_t *to = destination;
    if (length < 256)
        return cbd_copy_crc_fold128(destination, source, length, crc);
    __m512i far = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_by_2048));
    __m512i near = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_by_512));
    __m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc));
    __m512i x0 = _mm512_xor_si512(copy_512(to, from), start);
    __m512i x1 = copy_512(to + 64, from + 64);
    __m512i x2 = copy_512(to + 128, from + 128);
    __m512i x3 = copy_512(to + 192, from + 192);
    for (from += 256, to += 256, length -= 256; length >= 256; from += 256, to += 256, length -= 256) {
        x0 = fold_512(x0, far, copy_512(to, from));
        x1 = fold_512(x1, far, copy_512(to + 64, from + 64));
        x2 = fold_512(x2, far, copy_512(to + 128, from + 128));
        x3 = fold_512(x3, far, copy_512(to + 192, from + 192));
    }
    __m512i x = fold_512(fold_512(fold_512(x0, near, x1), near, x2), near, x3);
    for (; length >= 64; from += 64, to += 64, length -= 64)
        x = fold_512(x, near, copy_512(to, from));
    uint64_t value = crc_128(0, _mm512_castsi512_si128(x));
    value = crc_128(value, _mm512_extracti32x4_epi32(x, 1));
    value = crc_128(value, _mm512_extracti32x4_epi32(x, 2));
    value = crc_128(value, _mm512_extracti32x4_epi32(x, 3));
    return cbd_copy_crc_sse42(to, from, length, (uint32_t)value);
}
#endif
