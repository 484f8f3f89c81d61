using System.Runtime.InteropServices;
using System.Text;
using Cbd.Blocks;
using Cbd.Exports.Fuse;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Xunit;
using static Cbd.Memory.Fuse.FuseProtocol;

namespace Cbd.Tests.Exports;

/// <summary>The gate that everything from /dev/fuse passes.</summary>
public sealed class FuseRequestTests
{
    private const int MaxTransferBytes = 65536;
    private const ulong Unique = 77;
    private static readonly byte[] s_name = Encoding.UTF8.GetBytes("cbd0");
    private static readonly BlockDeviceInfo s_device = new() { SizeBytes = 1 << 20, LogicalBlockBytes = 4096, CanZeroFast = true };

    [Fact]
    public void A_read_is_whole_blocks_of_the_device()
    {
        FuseRequest request = Parse(Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Offset = 8192, Size = 4096 }));
        Assert.Equal((FuseTask.Device, BlockOperation.Read, BlockFlags.None, 8192L, 4096L, Unique), Summary(request));
    }

    [Fact]
    public void A_read_ends_where_the_file_does()
    {
        Assert.Equal(4096, Parse(Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Offset = (1 << 20) - 4096, Size = 8192 })).Length);
        Assert.Equal(FuseTask.ReadNothing, Parse(Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Offset = 1 << 20, Size = 4096 })).Task);
        Assert.Equal(FuseTask.ReadNothing, Parse(Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Offset = ulong.MaxValue, Size = 4096 })).Task);
    }

    [Theory]
    [InlineData(0u, 0ul)]
    [InlineData(MaxTransferBytes + 4096u, 0ul)]
    [InlineData(uint.MaxValue, 0ul)]
    [InlineData(512u, 0ul)]
    [InlineData(4096u, 512ul)]
    public void A_read_of_another_size_or_place_is_invalid(uint size, ulong offset) =>
        Refuses(Errno.EINVAL, Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Offset = offset, Size = size }));

    [Fact]
    public void A_write_has_as_much_payload_as_it_says()
    {
        FuseRequest request = Parse(Write(4096, 8192, 8192));
        Assert.Equal((FuseTask.Device, BlockOperation.Write, BlockFlags.None, 4096L, 8192L, Unique), Summary(request));
        Refuses(Errno.EINVAL, Write(0, 8192, 4096));
        Refuses(Errno.EINVAL, Write(0, 4096, 8192));
        Refuses(Errno.EINVAL, Write(0, 0, 0));
        Refuses(Errno.EINVAL, Write(0, MaxTransferBytes + 4096, MaxTransferBytes + 4096));
        Refuses(Errno.EINVAL, Write(512, 4096, 4096));
    }

    [Theory]
    [InlineData(1ul << 20)]
    [InlineData((1ul << 20) - 4096)]
    [InlineData(1ul << 63)]
    [InlineData(ulong.MaxValue - 4095)]
    public void A_write_beyond_the_end_is_refused(ulong offset) => Refuses(Errno.EFBIG, Write(offset, 8192, 8192));

    [Fact]
    public void A_write_of_a_synchronous_file_is_on_the_medium_first() =>
        Assert.Equal(BlockFlags.ForceUnitAccess, Parse(Write(0, 4096, 4096, fileFlags: 0x1000 | 0x8000)).Flags);

    [Fact]
    public void A_read_only_device_is_not_written()
    {
        BlockDeviceInfo readOnly = s_device with { ReadOnly = true };
        Assert.Equal(Errno.EROFS, Parse(Write(0, 4096, 4096), readOnly).Errno);
        Assert.Equal(Errno.EROFS, Parse(Allocate((uint)AllocateMode.PunchHole, 0, 4096), readOnly).Errno);
        Assert.Equal(FuseTask.Device, Parse(Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Size = 4096 }), readOnly).Task);
    }

    [Fact]
    public void A_synchronization_is_a_flush() =>
        Assert.Equal(
            (FuseTask.Device, BlockOperation.Flush, BlockFlags.None, 0L, 0L, Unique),
            Summary(Parse(Message(FuseOperation.Synchronize, FuseRequest.FileNode, default(SynchronizeRequest)))));

    [Fact]
    public void A_hole_is_zeroes_and_gives_its_space_back() =>
        Assert.Equal(
            (FuseTask.Device, BlockOperation.WriteZeroes, BlockFlags.None, 4096L, 8192L, Unique),
            Summary(Parse(Allocate((uint)AllocateMode.PunchHole, 4096, 8192))));

    [Fact]
    public void Zeroes_keep_their_space() =>
        Assert.Equal(
            (FuseTask.Device, BlockOperation.WriteZeroes, BlockFlags.NoUnmap, 0L, 1L << 20, Unique),
            Summary(Parse(Allocate((uint)AllocateMode.ZeroRange, 0, 1 << 20))));

    [Fact]
    public void Other_allocations_and_ranges_are_refused()
    {
        Refuses(Errno.EOPNOTSUPP, Allocate(0x02, 0, 4096));
        Refuses(Errno.EOPNOTSUPP, Allocate(uint.MaxValue, 0, 4096));
        Refuses(Errno.EINVAL, Allocate((uint)AllocateMode.PunchHole, 0, 0));
        Refuses(Errno.EINVAL, Allocate((uint)AllocateMode.PunchHole, 0, 100));
        Refuses(Errno.EFBIG, Allocate((uint)AllocateMode.PunchHole, 4096, 1 << 20));
        Refuses(Errno.EFBIG, Allocate((uint)AllocateMode.PunchHole, 4096, ulong.MaxValue - 4095));
    }

    [Theory]
    [InlineData(false, true)]
    [InlineData(true, true)]
    [InlineData(false, false)]
    public void Space_is_reserved_by_doing_nothing_inside_the_device_and_refused_outside(bool readOnly, bool zeroes)
    {
        BlockDeviceInfo device = s_device with { ReadOnly = readOnly, CanZeroFast = zeroes };
        ulong size = (ulong)device.SizeBytes;
        Assert.Equal(FuseTask.Confirm, Parse(Allocate((uint)AllocateMode.Reserve, size - 4096, 4096), device).Task);
        Assert.Equal(Errno.EFBIG, Parse(Allocate((uint)AllocateMode.Reserve, size, 4096), device).Errno);
        Assert.Equal(Errno.EFBIG, Parse(Allocate((uint)AllocateMode.Reserve, 4096, ulong.MaxValue - 4095), device).Errno);
        Assert.Equal(Errno.EINVAL, Parse(Allocate((uint)AllocateMode.Reserve, 0, 0), device).Errno);
        Assert.Equal(Errno.EINVAL, Parse(Allocate((uint)AllocateMode.Reserve, 0, 100), device).Errno);
    }

    [Fact]
    public void Zeroes_that_would_be_written_are_left_to_the_kernel() => Assert.Equal(
        Errno.EOPNOTSUPP,
        Parse(Allocate((uint)AllocateMode.PunchHole, 4096, 8192), s_device with { CanZeroFast = false }).Errno);

    [Theory]
    [InlineData(FuseOperation.Read)]
    [InlineData(FuseOperation.Write)]
    [InlineData(FuseOperation.Allocate)]
    [InlineData(FuseOperation.Synchronize)]
    [InlineData(FuseOperation.Init)]
    [InlineData(FuseOperation.Lookup)]
    public void A_request_without_its_body_is_invalid(FuseOperation operation)
    {
        Refuses(Errno.EINVAL, Message(operation, FuseRequest.FileNode, []));
        Refuses(Errno.EINVAL, Message(operation, FuseRequest.FileNode, [1, 2, 3]));
    }

    [Theory]
    [InlineData(FuseOperation.Read)]
    [InlineData(FuseOperation.Write)]
    [InlineData(FuseOperation.Allocate)]
    public void Only_the_file_has_data(FuseOperation operation)
    {
        Refuses(Errno.EINVAL, Message(operation, RootNode, new byte[64]));
        Refuses(Errno.EINVAL, Message(operation, 99, new byte[64]));
    }

    [Fact]
    public void The_root_has_one_name()
    {
        Assert.Equal(FuseTask.Lookup, Parse(Message(FuseOperation.Lookup, RootNode, "cbd0\0"u8)).Task);
        Refuses(Errno.ENOENT, Message(FuseOperation.Lookup, RootNode, "cbd\0"u8));
        Refuses(Errno.ENOENT, Message(FuseOperation.Lookup, RootNode, "cbd00\0"u8));
        Refuses(Errno.ENOENT, Message(FuseOperation.Lookup, RootNode, "\0"u8));
        Refuses(Errno.ENOENT, Message(FuseOperation.Lookup, FuseRequest.FileNode, "cbd0\0"u8));
        Refuses(Errno.EINVAL, Message(FuseOperation.Lookup, RootNode, "cbd0"u8));
    }

    [Fact]
    public void Nodes_are_what_they_are()
    {
        Assert.Equal(FuseTask.Open, Parse(Message(FuseOperation.Open, FuseRequest.FileNode, new byte[8])).Task);
        Assert.Equal(FuseTask.OpenDirectory, Parse(Message(FuseOperation.OpenDirectory, RootNode, new byte[8])).Task);
        Refuses(Errno.EISDIR, Message(FuseOperation.Open, RootNode, new byte[8]));
        Refuses(Errno.ENOTDIR, Message(FuseOperation.OpenDirectory, FuseRequest.FileNode, new byte[8]));
        Refuses(Errno.ENOENT, Message(FuseOperation.GetAttributes, 3, new byte[16]));
        Refuses(Errno.EPERM, Message(FuseOperation.SetAttributes, FuseRequest.FileNode, new byte[88]));
    }

    [Fact]
    public void What_nobody_waits_for_is_ignored()
    {
        Assert.All(
            [FuseOperation.Forget, FuseOperation.BatchForget, FuseOperation.Interrupt],
            operation => Assert.Equal(FuseTask.Ignore, Parse(Message(operation, FuseRequest.FileNode, new byte[16])).Task));
    }

    [Fact]
    public void Unknown_requests_are_not_implemented() =>
        Assert.All(
            [0u, 5u, 8u, 22u, 35u, 46u, 52u, 4096u, uint.MaxValue],
            operation => Refuses(Errno.ENOSYS, Message((FuseOperation)operation, FuseRequest.FileNode, new byte[128])));

    [Fact]
    public void An_init_of_an_old_kernel_is_shorter()
    {
        byte[] whole = Message(FuseOperation.Init, 0, new InitRequest { Major = 7, Minor = 31, MaxReadahead = 5, Flags = InitMaxPages, MoreFlags = 3 });
        Assert.Equal(3u, Parse(whole).Init.MoreFlags);
        byte[] old = Resize(whole, FuseRequest.HeaderBytes + 16);
        Assert.Equal((7u, 31u, InitMaxPages, 0u), (Parse(old).Init.Major, Parse(old).Init.Minor, Parse(old).Init.Flags, Parse(old).Init.MoreFlags));
        Refuses(Errno.EINVAL, Resize(whole, FuseRequest.HeaderBytes + 15));
    }

    [Fact]
    public void A_message_of_another_length_than_it_says_is_none()
    {
        byte[] message = Message(FuseOperation.Read, FuseRequest.FileNode, new ReadRequest { Size = 4096 });
        for (int length = 0; length < message.Length; length++)
            Assert.False(FuseRequest.TryParse(message.AsSpan(0, length), s_device, MaxTransferBytes, s_name, out _));
        Assert.False(FuseRequest.TryParse([.. message, 0], s_device, MaxTransferBytes, s_name, out _));
    }

    /// <summary>Whatever the bytes are: what goes to the device is inside of it, and nothing throws.</summary>
    [Fact]
    public void Random_bytes_never_reach_outside_the_device()
    {
        var random = new Random(4711);
        int onDevice = 0;
        for (int i = 0; i < 200_000; i++)
        {
            var message = new byte[random.Next(FuseRequest.HeaderBytes, 200)];
            random.NextBytes(message);
            MemoryMarshal.Write(message, (uint)message.Length);
            MemoryMarshal.Write(message.AsSpan(4), (uint)random.Next(60));
            MemoryMarshal.Write(message.AsSpan(16), (ulong)random.Next(4));
            if (message.Length >= FuseRequest.HeaderBytes + 24 && random.Next(2) == 0)
            {
                MemoryMarshal.Write(message.AsSpan(FuseRequest.HeaderBytes + 8), (ulong)random.Next(300) * 4096);
                MemoryMarshal.Write(message.AsSpan(FuseRequest.HeaderBytes + 16), (ulong)random.Next(20) * 4096);
            }

            if (!FuseRequest.TryParse(message, s_device, MaxTransferBytes, s_name, out FuseRequest request) || request.Task != FuseTask.Device)
                continue;
            onDevice++;
            Assert.InRange(request.Offset, 0, s_device.SizeBytes);
            Assert.InRange(request.Length, request.Operation == BlockOperation.Flush ? 0 : 1, s_device.SizeBytes - request.Offset);
            Assert.Equal(0, (request.Offset | request.Length) % s_device.LogicalBlockBytes);
            if (request.Operation == BlockOperation.Read)
                Assert.InRange(request.Length, 1, MaxTransferBytes);
        }

        Assert.InRange(onDevice, 500, 200_000);
    }

    private static FuseRequest Parse(byte[] message, BlockDeviceInfo? device = null)
    {
        Assert.True(FuseRequest.TryParse(message, device ?? s_device, MaxTransferBytes, s_name, out FuseRequest request));
        Assert.Equal(Unique, request.Unique);
        return request;
    }

    private static void Refuses(int errno, byte[] message)
    {
        FuseRequest request = Parse(message);
        Assert.Equal((FuseTask.Refuse, errno), (request.Task, request.Errno));
    }

    private static (FuseTask, BlockOperation, BlockFlags, long, long, ulong) Summary(FuseRequest request) =>
        (request.Task, request.Operation, request.Flags, request.Offset, request.Length, request.Unique);

    private static byte[] Write(ulong offset, uint size, int payloadBytes, uint fileFlags = 0)
    {
        var body = new byte[Marshal.SizeOf<WriteRequest>() + payloadBytes];
        MemoryMarshal.Write(body, new WriteRequest { Offset = offset, Size = size, FileFlags = fileFlags });
        return Message(FuseOperation.Write, FuseRequest.FileNode, body);
    }

    private static byte[] Allocate(uint mode, ulong offset, ulong length) =>
        Message(FuseOperation.Allocate, FuseRequest.FileNode, new AllocateRequest { Mode = mode, Offset = offset, Length = length });

    private static byte[] Message<T>(FuseOperation operation, ulong node, T body)
        where T : struct
    {
        var bytes = new byte[Marshal.SizeOf<T>()];
        MemoryMarshal.Write(bytes, in body);
        return Message(operation, node, bytes);
    }

    private static byte[] Message(FuseOperation operation, ulong node, ReadOnlySpan<byte> body)
    {
        var message = new byte[FuseRequest.HeaderBytes + body.Length];
        MemoryMarshal.Write(message, new RequestHeader { Length = (uint)message.Length, Operation = operation, Unique = Unique, Node = node });
        body.CopyTo(message.AsSpan(FuseRequest.HeaderBytes));
        return message;
    }

    private static byte[] Resize(byte[] message, int length)
    {
        byte[] shorter = message[..length];
        MemoryMarshal.Write(shorter, (uint)length);
        return shorter;
    }
}
