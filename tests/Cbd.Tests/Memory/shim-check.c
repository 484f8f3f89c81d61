/* Compares every form that this CPU has with the first one; for machines on which the unit tests do not run. */
#include "cbd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t source[4300], expected[4300], destination[4400];
static uint8_t line[64] __attribute__((aligned(64)));

int main(void)
{
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (uint8_t)rand();
    for (int form = 0; form < cbd_crc_forms(); form++) {
        if (!cbd_crc_form_available(form))
            continue;
        for (size_t length = 0; length <= 4200; length++) {
            int from = rand() % 64, to = rand() % 64;
            uint32_t seed = (uint32_t)rand() * 2654435761u;
            uint32_t want = cbd_crc_form_copy(0, expected, source + from, length, seed);
            memset(destination, 0xa5, sizeof destination);
            uint32_t got = cbd_crc_form_copy(form, destination + to, source + from, length, seed);
            int inside = memcmp(destination + to, source + from, length) == 0;
            int outside = destination[to + length] == 0xa5 && (to == 0 || destination[to - 1] == 0xa5);
            if (want != got || !inside || !outside) {
                printf("%s is wrong at length %zu\n", cbd_crc_form_name(form), length);
                return 1;
            }
        }
    }
    uint64_t words[8] = {1, 2, 3, 4, 5, 6, 7, 8}, loaded[8];
    for (int store = 0; store < cbd_line_forms(); store++) {
        for (int load = 0; load < cbd_line_forms(); load++) {
            if (!cbd_line_form_available(store) || !cbd_line_form_available(load))
                continue;
            words[0]++;
            cbd_line_form_store(store, line, words);
            cbd_line_form_load(load, loaded, line);
            if (memcmp(words, loaded, sizeof words) != 0) {
                printf("a line stored by %s is not what %s loads\n", cbd_line_form_name(store), cbd_line_form_name(load));
                return 1;
            }
        }
    }
    printf("%08x\n", ~cbd_copy_crc(destination, "123456789", 9, ~0u));
    return 0;
}
