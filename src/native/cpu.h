/* What this CPU and this kernel let us use. Filled once, before main. */
#ifndef CBD_CPU_H
#define CBD_CPU_H

struct cbd_cpu {
    int sse42;      /* crc32 instruction */
    int pclmul;     /* carry-less multiply, 128 bits */
    int avx2;       /* and the kernel keeps 256-bit registers */
    int avx512;     /* F, and the kernel keeps 512-bit registers */
    int vpclmul512; /* carry-less multiply, 512 bits */
    int arm_crc;    /* crc32c instructions of arm64 */
};

struct cbd_cpu cbd_cpu_detect(void);

#endif
