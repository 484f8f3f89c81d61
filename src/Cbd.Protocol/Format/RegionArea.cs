namespace Cbd.Protocol.Format;

/// <summary>The areas of a region. Part of every body's CRC seed: values are fixed and only ever added to.</summary>
internal enum RegionArea : byte
{
    Host = 1,
    Backend = 2,
    Blkdev = 3,
    Channel = 4,
}

/// <summary>One row of a structure's offset table: where a field lies, in bytes from the structure's start.</summary>
internal readonly record struct FieldLayout(string Name, int Offset, int SizeBytes)
{
    /// <summary>The first byte after the field.</summary>
    public int End => Offset + SizeBytes;
}
