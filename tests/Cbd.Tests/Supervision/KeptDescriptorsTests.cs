using Cbd.Memory;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>What a supervisor keeps, how much of it, and what it refuses.</summary>
public sealed class KeptDescriptorsTests : IDisposable
{
    private const string Life = "0123456789abcdef";

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Descriptors_are_kept_in_their_order_until_they_are_removed_by_name()
    {
        using var kept = new KeptDescriptors(4);
        (FileDescriptor reader, FileDescriptor memory) = (Socket(), CopyOfProgram());
        Assert.Null(kept.TryAdd("nbd-a", reader));
        Assert.Null(kept.TryAdd($"inflight-{Life}-0", memory));
        Assert.Equal(["nbd-a", $"inflight-{Life}-0"], kept.Names);
        kept.Remove("nbd-a");
        Assert.True(reader.IsClosed);
        Assert.False(memory.IsClosed);
        Assert.Equal([memory], kept.Descriptors);
        // A late one hits nothing.
        kept.Remove("nbd-a");
        Assert.Equal([memory], kept.Descriptors);
    }

    [Fact]
    public void One_too_many_and_a_second_one_of_a_name_stay_the_callers()
    {
        using var kept = new KeptDescriptors(1);
        Assert.Null(kept.TryAdd("nbd-a", Socket()));
        using FileDescriptor other = Socket();
        Assert.Contains("which is the limit", kept.TryAdd("nbd-b", other), StringComparison.Ordinal);
        Assert.Equal("there is one of that name already", kept.TryAdd("nbd-a", other));
        Assert.False(other.IsClosed);
        Assert.Equal(["nbd-a"], kept.Names);
    }

    [Fact]
    public void A_region_a_disk_or_a_lock_is_kept_under_no_name()
    {
        File.WriteAllText(_directory.PathOf("lock"), "");
        using var kept = new KeptDescriptors(9);
        using var file = FileDescriptor.Open(_directory.PathOf("lock"), OpenFlags.ReadWrite);
        using var directory = FileDescriptor.Open(_directory.PathOf("."), OpenFlags.ReadOnly);
        using var device = FileDescriptor.Open("/dev/null", OpenFlags.ReadWrite);
        foreach (FileDescriptor descriptor in new[] { file, directory, device })
        {
            foreach (string name in new[] { "nbd-a", $"fuse-{Life}-0", $"inflight-{Life}-0", $"device-{Life}" })
                Assert.StartsWith("it is something else and not ", kept.TryAdd(name, descriptor), StringComparison.Ordinal);
            Assert.Equal("it has no name of a stored descriptor", kept.TryAdd("region", descriptor));
        }

        Assert.Empty(kept.Names);
    }

    [Fact]
    public void A_socket_under_the_name_of_memory_and_memory_under_that_of_a_socket_are_refused()
    {
        using var kept = new KeptDescriptors(9);
        using FileDescriptor socket = Socket();
        using FileDescriptor memory = CopyOfProgram();
        Assert.Equal("it is a socket and not a file in memory", kept.TryAdd($"device-{Life}", socket));
        Assert.Equal("it is a file in memory and not a socket", kept.TryAdd("nbd-a", memory));
    }

    [Fact]
    public void The_limit_leaves_open_files_for_the_supervisor_and_for_each_descriptor_a_second_one()
    {
        Assert.Equal(1, KeptDescriptors.CapacityOf(64, 0));
        Assert.Equal(18, KeptDescriptors.CapacityOf(100, 0));
        Assert.Equal(15, KeptDescriptors.CapacityOf(100, 3));
        Assert.Equal(1, KeptDescriptors.CapacityOf(100, 30));
        Assert.Equal(KeptDescriptors.MostDescriptors, KeptDescriptors.CapacityOf(1 << 20, 100));
        // All names fit into one string of an environment (MAX_ARG_STRLEN).
        Assert.InRange(KeptDescriptors.MostDescriptors * (StoredName.MostCharacters + 1), 0, 128 << 10);
    }

    [Fact]
    public void The_kind_of_a_descriptor_is_told_by_its_link_alone()
    {
        using FileDescriptor socket = Socket();
        (FileDescriptor reader, FileDescriptor writer) = PipeEnds.Create();
        using (reader)
        using (writer)
        {
            Assert.Equal(DescriptorKind.Socket, DescriptorKinds.Of(socket));
            Assert.Equal(DescriptorKind.Pipe, DescriptorKinds.Of(writer));
        }

        using FileDescriptor memory = CopyOfProgram();
        Assert.Equal(DescriptorKind.Memory, DescriptorKinds.Of(memory));
        if (FileDescriptor.TryOpen("/dev/fuse", OpenFlags.ReadWrite, 0, out FileDescriptor? fuse) == 0)
        {
            using (fuse)
                Assert.Equal(DescriptorKind.FuseChannel, DescriptorKinds.Of(fuse!));
        }

        foreach (string link in new[] { "/memfd:x", "/tmp/memfd:x (deleted)", "/dev/fuse2", "/tmp/socket:[1]", "anon_inode:[eventfd]", "" })
            Assert.Equal(DescriptorKind.Other, DescriptorKinds.OfLink(link));
    }

    private static FileDescriptor Socket()
    {
        (Cbd.Memory.Sockets.StreamSocket ours, FileDescriptor other) = Cbd.Memory.Sockets.StreamSocket.CreatePair();
        ours.Dispose();
        return other;
    }

    private static FileDescriptor CopyOfProgram()
    {
        FileDescriptor? copy = MemoryFile.TryCopyProgram("/bin/true", "copy");
        Assert.SkipWhen(copy is null, "this kernel allows no programs in memory files");
        return copy;
    }
}
