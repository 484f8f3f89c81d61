/*
 * Copy + CRC32C with the crc32c instructions of arm64. Each word of the source is loaded once, into a register that is
 * opaque to the compiler from then on.
 */
#if defined(__aarch64__)
#include "crc.h"

/* Clang and GCC disagree on how to name the extension per function; the assembler is asked directly. */
static inline uint32_t crc_word(uint32_t crc, uint64_t word)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}

static inline uint32_t crc_byte(uint32_t crc, uint8_t byte)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
    return crc;
}

uint32_t cbd_copy_crc_arm64(void *destination, const void *source, size_t length, uint32_t crc)
{
    const uint8_t *from = source;
    uint8_t *to = destination;
    for (; length >= 16; length -= 16, from += 16, to += 16) {
        uint64_t first, second;
        __builtin_memcpy(&first, from, 8);
        __builtin_memcpy(&second, from + 8, 8);
        __asm__ volatile("" : "+r"(first), "+r"(second));
        __builtin_memcpy(to, &first, 8);
        __builtin_memcpy(to + 8, &second, 8);
        crc = crc_word(crc_word(crc, first), second);
    }
    for (; length > 0; length--) {
        uint8_t byte = *(const volatile uint8_t *)from++;
        *to++ = byte;
        crc = crc_byte(crc, byte);
    }
    return crc;
}
#endif
