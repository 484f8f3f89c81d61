using System.Diagnostics;
using System.Runtime.CompilerServices;
using Cbd.Blocks;
using Cbd.Exports;
using Cbd.Exports.Kernel;
using Cbd.Exports.Ublk;
using Cbd.Host.Attachments;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>What ublk is told, and what its requests become. The kernel's side is tested in virtual machines (tests/vm).</summary>
public sealed class UblkTests
{
    private const int Tag = 7;

    [Fact]
    public void Parameters_say_what_the_device_is()
    {
        var device = new BlockDeviceInfo
        {
            SizeBytes = 10L << 30,
            LogicalBlockBytes = 512,
            PhysicalBlockBytes = 4096,
            CanDiscard = true,
            DiscardGranularityBytes = 65536,
        };
        UblkParameters parameters = UblkParameters.Describe(device, 512 << 10);

        Assert.Equal(60u, parameters.Length);
        Assert.Equal(3u, parameters.Kinds);
        Assert.Equal(UblkProtocol.AttributeVolatileCache | UblkProtocol.AttributeForceUnitAccess, parameters.Attributes);
        Assert.Equal((9, 12, 12, 12), (parameters.LogicalShift, parameters.PhysicalShift, parameters.OptimalShift, parameters.MinimumShift));
        Assert.Equal(1024u, parameters.MaxSectors);
        Assert.Equal(10ul << 21, parameters.SizeSectors);
        Assert.Equal(65536u, parameters.DiscardGranularity);
        Assert.Equal(1u << 22, parameters.MaxDiscardSectors);
        Assert.Equal(1u << 22, parameters.MaxWriteZeroesSectors);
        Assert.Equal(1, parameters.MaxDiscardSegments);
    }

    [Fact]
    public void A_read_only_device_takes_neither_discards_nor_zeroes()
    {
        var device = new BlockDeviceInfo { SizeBytes = 1 << 20, LogicalBlockBytes = 4096, PhysicalBlockBytes = 512, CanDiscard = true, ReadOnly = true };
        UblkParameters parameters = UblkParameters.Describe(device, 4096);

        Assert.Equal(UblkProtocol.AttributeReadOnly, parameters.Attributes & UblkProtocol.AttributeReadOnly);
        Assert.Equal((0u, 0u), (parameters.MaxDiscardSectors, parameters.MaxWriteZeroesSectors));
        // The kernel refuses a granularity of 0, and a physical block that is smaller than the logical one.
        Assert.Equal((4096u, 12, 12), (parameters.DiscardGranularity, parameters.LogicalShift, parameters.PhysicalShift));
    }

    [Fact]
    public void A_disk_that_cannot_discard_still_takes_zeroes()
    {
        UblkParameters parameters = UblkParameters.Describe(new BlockDeviceInfo { SizeBytes = 1 << 20 }, 4096);
        Assert.Equal((0u, 1u << 22), (parameters.MaxDiscardSectors, parameters.MaxWriteZeroesSectors));
    }

    [Theory]
    [InlineData(UblkProtocol.OperationRead, BlockOperation.Read, BlockFlags.None, 4096)]
    [InlineData(UblkProtocol.OperationRead | UblkProtocol.FlagForceUnitAccess, BlockOperation.Read, BlockFlags.None, 4096)]
    [InlineData(UblkProtocol.OperationWrite, BlockOperation.Write, BlockFlags.None, 4096)]
    [InlineData(UblkProtocol.OperationWrite | UblkProtocol.FlagForceUnitAccess, BlockOperation.Write, BlockFlags.ForceUnitAccess, 4096)]
    [InlineData(UblkProtocol.OperationDiscard, BlockOperation.Discard, BlockFlags.None, 0)]
    [InlineData(UblkProtocol.OperationWriteZeroes, BlockOperation.WriteZeroes, BlockFlags.None, 0)]
    [InlineData(UblkProtocol.OperationWriteZeroes | UblkProtocol.FlagNoUnmap, BlockOperation.WriteZeroes, BlockFlags.NoUnmap, 0)]
    public void A_request_becomes_ours(uint operationFlags, BlockOperation operation, BlockFlags flags, int payload)
    {
        using var buffer = new NativeBuffer(1 << 20);
        var room = new BufferSlice(buffer, 65536, 65536);
        int errno = UblkRequest.Translate(Descriptor(operationFlags, 16, 8), Tag, room, out BlockRequest request);

        Assert.Equal(0, errno);
        Assert.Equal(new BlockRequest(Tag, operation, flags, 16 * 512, 4096, payload == 0 ? default : room.Slice(0, payload)), request);
    }

    [Fact]
    public void A_flush_has_no_range() =>
        Assert.Equal((0, new BlockRequest(Tag, BlockOperation.Flush, BlockFlags.None, 0, 0, default)), Translate(Descriptor(UblkProtocol.OperationFlush, 99, 99)));

    [Theory]
    [InlineData(UblkProtocol.OperationRead, 0ul, 0u, Errno.EINVAL)]
    [InlineData(UblkProtocol.OperationDiscard, 0ul, 0u, Errno.EINVAL)]
    [InlineData(UblkProtocol.OperationRead, 0ul, 129u, Errno.EINVAL)]
    [InlineData(UblkProtocol.OperationWrite, 0ul, uint.MaxValue, Errno.EINVAL)]
    [InlineData(UblkProtocol.OperationWrite, ulong.MaxValue, 8u, Errno.EINVAL)]
    [InlineData(UblkProtocol.OperationDiscard, 1ul << 54, 8u, Errno.EINVAL)]
    [InlineData(4u, 0ul, 8u, Errno.EOPNOTSUPP)]
    [InlineData(13u, 0ul, 8u, Errno.EOPNOTSUPP)]
    [InlineData(0xffu, 0ul, 8u, Errno.EOPNOTSUPP)]
    public void What_cannot_be_is_refused(uint operation, ulong start, uint sectors, int errno) =>
        Assert.Equal((errno, default), Translate(Descriptor(operation, start, sectors)));

    [Fact]
    public void A_discard_may_be_longer_than_the_buffer()
    {
        (int errno, BlockRequest request) = Translate(Descriptor(UblkProtocol.OperationDiscard, 0, 1 << 22));
        Assert.Equal((0, 2L << 30), (errno, request.Length));
    }

    [Fact]
    public void The_kernel_is_told_bytes_or_a_negative_errno()
    {
        Assert.Equal(4096, UblkRequest.ResultOf(new BlockCompletion(0, 0, 4096), BlockOperation.Read, 4096));
        Assert.Equal(-Errno.EIO, UblkRequest.ResultOf(new BlockCompletion(0, 0, 512), BlockOperation.Read, 4096));
        Assert.Equal(4096, UblkRequest.ResultOf(new BlockCompletion(0, 0, 0), BlockOperation.Write, 4096));
        Assert.Equal(0, UblkRequest.ResultOf(new BlockCompletion(0, 0, 0), BlockOperation.Flush, 0));
        Assert.Equal(-Errno.ENOSPC, UblkRequest.ResultOf(new BlockCompletion(0, Errno.ENOSPC, 0), BlockOperation.Write, 4096));
    }

    [Fact]
    public void Descriptors_of_a_queue_begin_on_a_page_of_any_size()
    {
        Assert.Equal(24, Unsafe.SizeOf<UblkIoDescriptor>());
        Assert.Equal(3 * 98304, UblkProtocol.DescriptorsOffset(3, 4096));
        Assert.Equal(3 * 131072, UblkProtocol.DescriptorsOffset(3, 65536));
        Assert.Equal(4096, UblkProtocol.DescriptorsBytes(128, 4096));
        Assert.Equal(65536, UblkProtocol.DescriptorsBytes(128, 65536));
    }

    [Fact]
    public void A_device_names_its_owner()
    {
        Assert.True(UblkOwner.TryDecode(new UblkOwner(4194303).Encode(), out UblkOwner owner));
        Assert.Equal(4194303, owner.ProcessId);
        Assert.True(UblkOwner.TryDecode(new UblkOwner(0).Encode(), out owner));
        Assert.Equal(0, owner.ProcessId);
        Assert.False(owner.IsGone);
        Assert.Equal(0x434244_01_00001234ul, new UblkOwner(0x1234).Encode());
        Assert.All([0ul, 1ul, 0x434244ul, 0x434245_01_00001234ul, 0x434244_02_00001234ul, 0x434244_00_00001234ul], word => Assert.False(UblkOwner.TryDecode(word, out _)));
    }

    [Fact]
    public void Only_what_an_ended_daemon_left_is_a_leftover()
    {
        int ended = EndedProcess();
        ulong alive = new UblkOwner(Environment.ProcessId).Encode();
        Assert.False(IsLeftover(alive, UblkProtocol.StateLive));
        Assert.False(IsLeftover(alive, UblkProtocol.StateDead));
        Assert.True(IsLeftover(alive, UblkProtocol.StateQuiesced));
        Assert.False(IsLeftover(0, UblkProtocol.StateQuiesced));
        Assert.False(IsLeftover(new UblkOwner(0).Encode(), UblkProtocol.StateDead));
        Assert.SkipWhen(OwnerProcess.SelfInFirstNamespace.Id == 0, "this process id namespace is not the first");
        Assert.True(IsLeftover(new UblkOwner(ended).Encode(), UblkProtocol.StateDead));
        Assert.True(IsLeftover(new UblkOwner(ended).Encode(), UblkProtocol.StateLive));
    }

    [Fact]
    public void A_device_that_outlives_its_daemon_names_host_and_life()
    {
        var host = new Guid("11112222-3333-4444-5555-666677abcdef");
        var life = new AttachmentLife { Host = host, Id = 0x1122334455667788 };
        ulong word = UblkOwner.Of(life).Encode();
        Assert.Equal(0x434c_abcdef_667788ul, word);
        Assert.True(UblkOwner.TryDecode(word, out UblkOwner owner));
        Assert.Equal(UblkOwner.Of(life), owner);
        Assert.Equal(UblkOwner.Self, UblkOwner.Of(null));
        Assert.False(owner.IsGone);
    }

    [Theory]
    [InlineData(UblkProtocol.StateQuiesced)]
    [InlineData(UblkProtocol.StateDead)]
    [InlineData(UblkProtocol.StateLive)]
    public void What_outlives_its_daemon_is_a_leftover_of_that_daemon_alone_and_when_its_life_is_over(ushort state)
    {
        var host = Guid.NewGuid();
        var life = new AttachmentLife { Host = host, Id = 7 };
        var device = new UblkDeviceInfo { Owner = UblkOwner.Of(life).Encode(), State = state };
        var lives = new AttachmentLives(host);
        Assert.True(UblkAttachKind.IsLeftover(device, lives));
        lives.Add(8);
        Assert.True(UblkAttachKind.IsLeftover(device, lives));
        lives.Add(7);
        Assert.False(UblkAttachKind.IsLeftover(device, lives));
        lives.Remove(7);
        Assert.True(UblkAttachKind.IsLeftover(device, lives));
        Assert.False(UblkAttachKind.IsLeftover(device, new AttachmentLives(Guid.NewGuid())));
        Assert.False(UblkAttachKind.IsLeftover(device, null));
    }

    [Fact]
    public void A_process_of_the_same_number_is_another_one()
    {
        Assert.SkipWhen(OwnerProcess.SelfInFirstNamespace.Id == 0, "this process id namespace is not the first");
        Assert.False(OwnerProcess.Self.IsGone);
        Assert.True((OwnerProcess.Self with { StartTicks = OwnerProcess.Self.StartTicks + 1 }).IsGone);
        Assert.True((OwnerProcess.Self with { Id = EndedProcess(), StartTicks = null }).IsGone);
    }

    [Fact]
    public void Where_ublk_is_missing_the_reason_names_what_to_load()
    {
        Assert.SkipWhen(File.Exists(UblkProtocol.ControlNode), "this machine has ublk");
        var kind = new UblkAttachKind();
        Assert.False(kind.IsAvailable(out string whyNot));
        Assert.Contains("/dev/ublk-control does not exist", whyNot, StringComparison.Ordinal);
        Assert.Empty(kind.FindLeftovers(Assert.Fail));
        if (!Directory.Exists("/sys/module/ublk_drv"))
            Assert.Contains("modprobe ublk_drv", whyNot, StringComparison.Ordinal);
    }

    private static int EndedProcess()
    {
        using var process = Process.Start("/bin/true");
        process.WaitForExit();
        return process.Id;
    }

    private static bool IsLeftover(ulong owner, ushort state) =>
        UblkAttachKind.IsLeftover(new UblkDeviceInfo { Owner = owner, State = state }, lives: null);

    private static UblkIoDescriptor Descriptor(uint operationFlags, ulong start, uint sectors) =>
        new() { OperationFlags = operationFlags, StartSector = start, Sectors = sectors };

    private static (int Errno, BlockRequest Request) Translate(UblkIoDescriptor descriptor)
    {
        using var buffer = new NativeBuffer(65536);
        int errno = UblkRequest.Translate(descriptor, Tag, new BufferSlice(buffer, 0, 65536), out BlockRequest request);
        return (errno, request);
    }
}
