using Cbd.Memory;
using Xunit;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Tests.Memory;

/// <summary>Memory that another process may go on with.</summary>
public sealed class SealedMemoryTests
{
    private const int SizeBytes = 64 << 10;

    [Fact]
    public void Another_mapping_sees_the_same_bytes()
    {
        using SealedMemory first = SealedMemory.Create("test", SizeBytes);
        Assert.False(first.Buffer.GetSpan(0, SizeBytes).ContainsAnyExcept((byte)0));
        first.Buffer.GetSpan(5000, 100).Fill(7);
        SealedMemory second = SealedMemory.Open(Duplicate(first.Descriptor), "second", SizeBytes, SizeBytes);
        Assert.Equal(7, second.Buffer.GetSpan(5050, 1)[0]);
        byte[] start = new byte[5050];
        Assert.True(SealedMemory.TryReadStart(second.Descriptor, start));
        Assert.Equal(7, start[^1]);
        second.Dispose();
        Assert.Throws<ObjectDisposedException>(() => second.Buffer.GetSpan(0, 1));
        Assert.False(SealedMemory.TryReadStart(second.Descriptor, start));
    }

    /// <summary>/proc/self/smaps: every page is there, before anybody touched one.</summary>
    [Fact]
    public void Every_page_is_present()
    {
        using SealedMemory memory = SealedMemory.Create("test", 8 << 20);
        string start = memory.Buffer.Address.ToString("x", System.Globalization.CultureInfo.InvariantCulture) + "-";
        string[] lines = [.. File.ReadLines("/proc/self/smaps").SkipWhile(line => !line.StartsWith(start, StringComparison.Ordinal)).Take(24)];
        Assert.Contains(lines, line => line.StartsWith("Rss:", StringComparison.Ordinal) && line.Contains(" 8192 kB", StringComparison.Ordinal));
    }

    [Fact]
    public void Its_memory_stays_while_it_is_referred_to()
    {
        SealedMemory memory = SealedMemory.Create("test", SizeBytes);
        Assert.True(memory.Buffer.TryAddReference());
        memory.Dispose();
        memory.Buffer.GetSpan(0, SizeBytes).Fill(1);
        memory.Buffer.ReleaseReference();
        Assert.Throws<ObjectDisposedException>(() => memory.Buffer.GetSpan(0, 1));
    }

    [Fact]
    public void Its_size_cannot_be_changed()
    {
        using SealedMemory memory = SealedMemory.Create("test", SizeBytes);
        Assert.Throws<SystemCallException>(() => memory.Descriptor.Truncate(0));
        Assert.Throws<SystemCallException>(() => memory.Descriptor.Truncate(2 * SizeBytes));
    }

    [Theory]
    [InlineData(SizeBytes + 4096, SizeBytes + 8192)]
    [InlineData(4096, SizeBytes - 4096)]
    public void Another_size_is_refused(long leastBytes, long mostBytes)
    {
        using SealedMemory memory = SealedMemory.Create("test", SizeBytes);
        CbdException error = Assert.Throws<CbdException>(() => SealedMemory.Open(memory.Descriptor, "mine", leastBytes, mostBytes));
        Assert.Contains($"'mine' has {SizeBytes} bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Other_descriptors_are_refused()
    {
        using FileDescriptor device = FileDescriptor.Open("/dev/null", OpenFlags.ReadWrite);
        Refuses(device, "is no sealed memory");
        using FileDescriptor directory = FileDescriptor.Open("/tmp", OpenFlags.ReadOnly);
        Refuses(directory, "is no sealed memory");
        using FileDescriptor unsealed = FileDescriptor.Own(LibC.CreateMemoryFile("unsealed", MemoryFileCloseOnExec | MemoryFileAllowSealing), "unsealed");
        unsealed.Truncate(SizeBytes);
        Refuses(unsealed, "its size could change");
        Assert.Equal(0, LibC.FCntl(unsealed, FcntlAddSeals, SealShrink | SealGrow));
        Refuses(unsealed, "its size could change");
        Assert.Equal(0, LibC.FCntl(unsealed, FcntlAddSeals, SealSeals));
        using SealedMemory opened = SealedMemory.Open(unsealed, "sealed", SizeBytes, SizeBytes);
    }

    private static void Refuses(FileDescriptor descriptor, string what) =>
        Assert.Contains(what, Assert.Throws<CbdException>(() => SealedMemory.Open(descriptor, "other", 4096, 1 << 20)).Message, StringComparison.Ordinal);

    private static FileDescriptor Duplicate(FileDescriptor descriptor) =>
        FileDescriptor.Own(LibC.FCntl(descriptor, FcntlDuplicateCloseOnExec, 3), "duplicate");
}
