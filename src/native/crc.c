/* Copy + CRC32C: the form for every CPU, and the choice of the best one. */
#include "crc.h"
#include "cbd.h"
#include "cpu.h"

static uint32_t table[256];

void cbd_crc_init_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? CBD_CRC_POLYNOMIAL : 0);
        table[i] = value;
    }
}

uint32_t cbd_copy_crc_table(void *destination, const void *source, size_t length, uint32_t crc)
{
    const volatile uint8_t *from = source;
    uint8_t *to = destination;
    for (size_t i = 0; i < length; i++) {
        uint8_t value = from[i];
        to[i] = value;
        crc = table[(uint8_t)(crc ^ value)] ^ (crc >> 8);
    }
    return crc;
}

static struct form {
    const char *name;
    uint32_t (*copy)(void *, const void *, size_t, uint32_t);
    int available;
} forms[] = {
    {"table", cbd_copy_crc_table, 1},
#if defined(__x86_64__)
    {"sse4.2 crc32", cbd_copy_crc_sse42, 0},
    {"pclmul 128-bit fold", cbd_copy_crc_fold128, 0},
    {"vpclmul 512-bit fold", cbd_copy_crc_fold512, 0},
#else
    {"arm64 crc32c", cbd_copy_crc_arm64, 0},
#endif
};

static uint32_t (*chosen)(void *, const void *, size_t, uint32_t);

__attribute__((constructor)) static void choose(void)
{
    struct cbd_cpu cpu = cbd_cpu_detect();
    cbd_crc_init_table();
#if defined(__x86_64__)
    cbd_crc_init_fold();
    forms[1].available = cpu.sse42;
    forms[2].available = cpu.sse42 && cpu.pclmul;
    forms[3].available = cpu.vpclmul512;
#else
    forms[1].available = cpu.arm_crc;
#endif
    for (int i = 0; i < cbd_crc_forms(); i++) {
        if (forms[i].available)
            chosen = forms[i].copy;
    }
}

uint32_t cbd_copy_crc(void *destination, const void *source, size_t length, uint32_t crc)
{
    return chosen(destination, source, length, crc);
}

int cbd_crc_forms(void)
{
    return (int)(sizeof forms / sizeof forms[0]);
}

const char *cbd_crc_form_name(int index)
{
    return index >= 0 && index < cbd_crc_forms() ? forms[index].name : NULL;
}

int cbd_crc_form_available(int index)
{
    return index >= 0 && index < cbd_crc_forms() && forms[index].available;
}

uint32_t cbd_crc_form_copy(int index, void *destination, const void *source, size_t length, uint32_t crc)
{
    return forms[index].copy(destination, source, length, crc);
}
