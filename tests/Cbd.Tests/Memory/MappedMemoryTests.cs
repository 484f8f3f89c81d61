using Cbd.Memory;
using CsCheck;
using Microsoft.Win32.SafeHandles;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class MappedMemoryTests : IDisposable
{
    private const int Bytes = 1 << 16;
    private readonly TemporaryDirectory _files = new();
    private readonly RegionSource _source;
    private readonly RegionMapping _mapping;

    public MappedMemoryTests()
    {
        _source = RegionSource.Open(_files.PathOf("region"), Bytes);
        _mapping = _source.Map();
    }

    public void Dispose()
    {
        _mapping.Dispose();
        _source.Dispose();
        _files.Dispose();
    }

    [Fact]
    public void Stores_through_one_mapping_are_loads_through_another()
    {
        using RegionMapping other = RegionMapping.Open(_source.Path);
        MappedMemory here = _mapping.Memory, there = other.Memory;
        Assert.Equal(Bytes, there.SizeBytes);
        here.WriteRelease(8, 0x0123456789abcdef);
        Assert.Equal(0x0123456789abcdeful, there.ReadAcquire(8));
        Assert.Equal(0x0123456789abcdeful, there.CompareExchange(8, 1, 2));
        Assert.Equal(0x0123456789abcdeful, there.CompareExchange(8, 1, 0x0123456789abcdef));
        Assert.Equal(1ul, here.ReadAcquire(8));
        var line = new Line { Word0 = 1, Word1 = 2, Word2 = 3, Word3 = 4, Word4 = 5, Word5 = 6, Word6 = 7, Word7 = 8 };
        here.WriteLine(Bytes - 64, line);
        there.ReadLine(Bytes - 64, out Line copy);
        Assert.Equal(line, copy);
        Assert.Equal(8ul, there.ReadAcquire(Bytes - 8));
        here.Write(101, [1, 2, 3]);
        byte[] read = new byte[5];
        there.Read(100, read);
        Assert.Equal([0, 1, 2, 3, 0], read);
    }

    [Fact]
    public void Offsets_outside_or_misaligned_throw_and_store_nothing()
    {
        MappedMemory memory = _mapping.Memory;
        foreach (long offset in new[] { -8, long.MinValue, Bytes, Bytes + 8, long.MaxValue - 7, 4, Bytes - 7 })
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.ReadAcquire(offset));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.WriteRelease(offset, 1));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.CompareExchange(offset, 1, 0));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.Wake(offset));
        }

        foreach (long offset in new[] { -64, long.MinValue, Bytes, Bytes - 63, 8, long.MaxValue - 63 })
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.ReadLine(offset, out _));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.WriteLine(offset, new Line { Word0 = 1 }));
        }

        foreach (long offset in new[] { -1, long.MinValue, Bytes - 3, Bytes + 1, long.MaxValue })
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.Read(offset, new byte[4]));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.Write(offset, [1, 1, 1, 1]));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.ReadWithCrc(offset, new byte[4], 0));
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.WriteWithCrc(offset, [1, 1, 1, 1], 0));
        }

        byte[] all = new byte[Bytes];
        memory.Read(0, all);
        Assert.Equal(new byte[Bytes], all);
        memory.Read(Bytes, []);
    }

    [Fact]
    public void Access_after_dispose_throws()
    {
        RegionMapping mapping = _source.Map();
        MappedMemory memory = mapping.Memory;
        mapping.Dispose();
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.ReadAcquire(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.WriteLine(0, default));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Write(0, [1]));
    }

    [Fact]
    public void Copies_with_crc_store_the_bytes_and_return_the_running_register() =>
        Gen.Select(Gen.Byte.Array[0, 5000], Gen.Int[0, 200], Gen.UInt).Sample((bytes, offset, seed) =>
        {
            MappedMemory memory = _mapping.Memory;
            uint expected = Crc32C.Append(seed, bytes);
            byte[] read = new byte[bytes.Length];
            return memory.WriteWithCrc(offset, bytes, seed) == expected
                && memory.ReadWithCrc(offset, read, seed) == expected
                && read.AsSpan().SequenceEqual(bytes);
        }, iter: 2000, threads: 1);

    [Fact]
    public void Accesses_allocate_nothing()
    {
        MappedMemory memory = _mapping.Memory;
        byte[] buffer = new byte[4096];
        Access(memory, buffer);
        Allocations.None(() => Access(memory, buffer));

        static void Access(in MappedMemory memory, byte[] buffer)
        {
            memory.WriteRelease(0, memory.ReadAcquire(64));
            memory.ReadLine(128, out Line line);
            memory.WriteLine(192, line);
            memory.WriteWithCrc(4096, buffer, memory.ReadWithCrc(8192, buffer, 0));
            memory.Wake(256);
        }
    }

    [Fact]
    public void Protected_pages_take_no_stores_until_they_are_writable_again()
    {
        const int page = 4096;
        using SafeFileHandle file = File.OpenHandle(_source.Path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        _mapping.Protect(page, page, writable: false);
        // .NET has no exception of its own for EFAULT, and gives its number.
        Assert.Equal(Errno.EFAULT, Assert.Throws<IOException>(() => ReadInto(page)).HResult);
        Assert.Equal(page, ReadInto(2 * page));
        Assert.Equal(0ul, _mapping.Memory.ReadAcquire(page));
        _mapping.Protect(page, page, writable: true);
        Assert.Equal(page, ReadInto(page));
        Assert.Throws<ArgumentException>(() => _mapping.Protect(100, page, writable: false));
        Assert.Throws<ArgumentOutOfRangeException>(() => _mapping.Protect(0, Bytes + page, writable: false));

        int ReadInto(long offset) => RandomAccess.Read(file, _mapping.Memory.Span(offset, page), 0);
    }

    [Fact]
    public void Region_below_the_minimum_is_refused_with_the_minimum()
    {
        File.WriteAllBytes(_files.PathOf("small"), new byte[8191]);
        var e = Assert.Throws<CbdException>(() => RegionMapping.Open(_files.PathOf("small"), 8192));
        Assert.Equal(CbdErrorKind.Invalid, e.Kind);
        Assert.Contains("has 8191 bytes, the minimum is 8192", e.Message, StringComparison.Ordinal);
        using RegionMapping mapping = RegionMapping.Open(_files.PathOf("small"), 4096);
        Assert.Equal(4096, mapping.SizeBytes);
        File.WriteAllBytes(_files.PathOf("empty"), []);
        Assert.Contains("the minimum is", Assert.Throws<CbdException>(() => RegionMapping.Open(_files.PathOf("empty"))).Message, StringComparison.Ordinal);
    }
}
