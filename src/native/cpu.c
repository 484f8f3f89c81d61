#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

/* Intel SDM volume 2, CPUID; volume 1, 13.3: XCR0 says which registers the kernel saves. */
static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

struct cbd_cpu cbd_cpu_detect(void)
{
    struct cbd_cpu cpu = {0};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return cpu;
    cpu.sse42 = (c >> 20) & 1;
    cpu.pclmul = (c >> 1) & 1;
    if (!((c >> 27) & 1)) /* OSXSAVE */
        return cpu;
    uint64_t xcr0 = read_xcr0();
    int keeps256 = (xcr0 & 0x06) == 0x06;
    int keeps512 = (xcr0 & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return cpu;
    cpu.avx2 = keeps256 && ((b >> 5) & 1);
    cpu.avx512 = keeps512 && ((b >> 16) & 1);
    cpu.vpclmul512 = cpu.avx512 && cpu.sse42 && ((c >> 10) & 1);
    return cpu;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

struct cbd_cpu cbd_cpu_detect(void)
{
    struct cbd_cpu cpu = {0};
    cpu.arm_crc = (getauxval(AT_HWCAP) >> 7) & 1; /* HWCAP_CRC32 */
    return cpu;
}

#else
#error "CBD runs on x86-64 and arm64"
#endif
