"""header.py REGION FIELD VALUE [keep-crc]: stores a field of a region's transport info, and the CRC that fits it.

Offsets are those of docs/format.md. The CRC is CRC32C (Castagnoli, reflected polynomial 0x82F63B78).
"""

import struct
import sys

FIELDS = {
    "magic": (0, "<Q"),
    "version": (8, "<H"),
    "flags": (10, "<H"),
    "crc": (12, "<I"),
    "ro_compat": (20, "<I"),
    "incompat": (24, "<I"),
    "coherence": (28, "<I"),
    "host_area_off": (56, "<Q"),
    "backend_num": (84, "<I"),
    "channel_area_off": (104, "<Q"),
    "bytes_per_channel": (112, "<Q"),
    "channel_num": (120, "<I"),
    "ring_slots": (124, "<I"),
}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


path, field, value = sys.argv[1:4]
offset, layout = FIELDS[field]
with open(path, "r+b") as region:
    header = bytearray(region.read(4096))
    struct.pack_into(layout, header, offset, int(value, 0))
    if field != "crc" and "keep-crc" not in sys.argv:
        struct.pack_into("<I", header, 12, crc32c(header[8:12] + header[16:]))
    region.seek(0)
    region.write(header)
