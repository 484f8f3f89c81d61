/* The forms of copy + CRC32C; arguments and result as in cbd_copy_crc. */
#ifndef CBD_CRC_H
#define CBD_CRC_H

#include <stddef.h>
#include <stdint.h>

#define CBD_CRC_POLYNOMIAL 0x82F63B78u /* Castagnoli, reflected */

void cbd_crc_init_table(void);
uint32_t cbd_copy_crc_table(void *destination, const void *source, size_t length, uint32_t crc);

#if defined(__x86_64__)
void cbd_crc_init_fold(void);
uint32_t cbd_copy_crc_sse42(void *destination, const void *source, size_t length, uint32_t crc);
uint32_t cbd_copy_crc_fold128(void *destination, const void *source, size_t length, uint32_t crc);
uint32_t cbd_copy_crc_fold512(void *destination, const void *source, size_t length, uint32_t crc);
#else
uint32_t cbd_copy_crc_arm64(void *destination, const void *source, size_t length, uint32_t crc);
#endif

#endif
