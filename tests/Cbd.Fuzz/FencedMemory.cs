using Cbd.Memory;
using Cbd.Simulation;

namespace Cbd.Fuzz;

/// <summary>A region in an array whose user may store only where it owns something; anything else is a finding.</summary>
internal readonly struct FencedMemory(ArrayMemory memory, (long Start, long Length)[] stores) : ISharedMemory
{
    public long SizeBytes => memory.SizeBytes;

    public bool IsPoisoned => memory.IsPoisoned;

    public ulong ReadAcquire(long offset) => memory.ReadAcquire(offset);

    public void WriteRelease(long offset, ulong value)
    {
        CheckStore(offset, 8);
        memory.WriteRelease(offset, value);
    }

    public ulong CompareExchange(long offset, ulong value, ulong comparand)
    {
        CheckStore(offset, 8);
        return memory.CompareExchange(offset, value, comparand);
    }

    public void FullFence() => memory.FullFence();

    public void ReadLine(long offset, out Line line) => memory.ReadLine(offset, out line);

    public void WriteLine(long offset, in Line line)
    {
        CheckStore(offset, Line.SizeBytes);
        memory.WriteLine(offset, line);
    }

    public void Read(long offset, Span<byte> destination) => memory.Read(offset, destination);

    public void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckStore(offset, source.Length);
        memory.Write(offset, source);
    }

    public uint ReadWithCrc(long offset, Span<byte> destination, uint crc) => memory.ReadWithCrc(offset, destination, crc);

    public uint WriteWithCrc(long offset, ReadOnlySpan<byte> source, uint crc)
    {
        CheckStore(offset, source.Length);
        return memory.WriteWithCrc(offset, source, crc);
    }

    public ulong ReadPublished(long offset) => memory.ReadAcquire(offset);

    public ulong Peek(long offset) => memory.ReadAcquire(offset);

    // A mapping throws, too, where the range is not in it.
    public void Prefetch(long offset, long length, bool forWrite)
    {
        if (offset < 0 || length < 0 || offset > SizeBytes - length)
            throw new ArgumentOutOfRangeException(nameof(offset), $"a hint is for {offset}+{length} of {SizeBytes} bytes");
    }

    public void Wake(long offset) => memory.Wake(offset);

    private void CheckStore(long offset, long length)
    {
        foreach ((long start, long bytes) in stores)
        {
            if (offset >= start && length <= bytes && offset - start <= bytes - length)
                return;
        }

        throw new FindingException($"a store of {length} bytes at {offset}, which belongs to somebody else");
    }
}
