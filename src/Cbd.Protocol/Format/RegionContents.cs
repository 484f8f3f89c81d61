using System.Buffers.Binary;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// What lies at the start of a region that is not (yet) a transport, in an operator's words. Magics and their offsets
/// are those of the formats' own specifications, as blkid(8) lists them.
/// </summary>
/// <param name="Found">For example "an ext4 file system", "nothing but zeroes", "unknown data at offset 512".</param>
/// <param name="IsZero">The first MiB (or the whole region if that is smaller) is zero.</param>
internal readonly record struct RegionContents(string Found, bool IsZero)
{
    /// <summary>Bytes that are looked at.</summary>
    public const int ProbeBytes = 1 << 20;

    private static readonly (int Offset, byte[] Bytes, string Found)[] s_signatures =
    [
        (0, "XFSB"u8.ToArray(), "an xfs file system"),
        (0x10040, "_BHRfS_M"u8.ToArray(), "a btrfs file system"),
        (0, [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE], "a LUKS volume"),
        (0, "LABELONE"u8.ToArray(), "an LVM2 physical volume"),
        (512, "LABELONE"u8.ToArray(), "an LVM2 physical volume"),
        (1024, "LABELONE"u8.ToArray(), "an LVM2 physical volume"),
        (1536, "LABELONE"u8.ToArray(), "an LVM2 physical volume"),
        (4086, "SWAPSPACE2"u8.ToArray(), "swap space"),
        (65526, "SWAPSPACE2"u8.ToArray(), "swap space"),
        (3, "NTFS    "u8.ToArray(), "an NTFS file system"),
        (3, "EXFAT   "u8.ToArray(), "an exFAT file system"),
        (82, "FAT32   "u8.ToArray(), "a FAT file system"),
        (54, "FAT16   "u8.ToArray(), "a FAT file system"),
        (54, "FAT12   "u8.ToArray(), "a FAT file system"),
        (32769, "CD001"u8.ToArray(), "an ISO 9660 file system"),
        (0, [0x51, 0x46, 0x49, 0xFB], "a qcow2 image"),
        (512, "EFI PART"u8.ToArray(), "a GPT partition table"),
        (4096, "EFI PART"u8.ToArray(), "a GPT partition table"),
        // Last: boot sectors of file systems end like this, too.
        (510, [0x55, 0xAA], "an MBR partition table"),
    ];

    /// <summary>Looks at the first MiB.</summary>
    public static RegionContents Describe<TMemory>(in TMemory memory)
        where TMemory : struct, ISharedMemory
    {
        var bytes = new byte[(int)Math.Min(ProbeBytes, memory.SizeBytes)];
        memory.Read(0, bytes);
        return Describe(bytes);
    }

    /// <summary>Names what the bytes are.</summary>
    public static RegionContents Describe(ReadOnlySpan<byte> bytes)
    {
        int used = bytes.IndexOfAnyExcept((byte)0);
        if (used < 0)
            return new RegionContents("nothing but zeroes", true);
        if (bytes.Length >= 8)
        {
            ulong magic = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
            if (magic == TransportInfo.Magic)
                return new RegionContents("a CBD transport", false);
            if (magic == BinaryPrimitives.ReverseEndianness(TransportInfo.Magic))
                return new RegionContents("a CBD transport of a big-endian host", false);
            if (TransportInfo.IsFormatting(magic))
                return new RegionContents("a CBD transport whose formatting was interrupted", false);
        }

        // ext2/3/4 super block at 1024: magic at +56, feature words at +92 and +96.
        if (bytes.Length >= 2048 && BinaryPrimitives.ReadUInt16LittleEndian(bytes[(1024 + 56)..]) == 0xEF53)
        {
            bool journal = (BinaryPrimitives.ReadUInt32LittleEndian(bytes[(1024 + 92)..]) & 0x4) != 0;
            bool extents = (BinaryPrimitives.ReadUInt32LittleEndian(bytes[(1024 + 96)..]) & 0x40) != 0;
            return new RegionContents(extents ? "an ext4 file system" : journal ? "an ext3 file system" : "an ext2 file system", false);
        }

        foreach ((int offset, byte[] signature, string found) in s_signatures)
        {
            if (bytes.Length >= offset + signature.Length && bytes.Slice(offset, signature.Length).SequenceEqual(signature))
                return new RegionContents(found, false);
        }

        return new RegionContents($"unknown data at offset {used}", false);
    }
}
