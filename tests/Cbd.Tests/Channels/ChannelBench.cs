using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Tests.Channels;

/// <summary>One channel between a queue and a handler group in one thread, over real shared memory and a memory disk.</summary>
internal sealed class ChannelBench : IDisposable
{
    public const int RingSlots = 16;
    private readonly string _path = Path.Combine("/dev/shm", $"cbd-test-{Guid.NewGuid():N}");
    private readonly RegionSource _source;
    private readonly RegionMapping _region;
    private readonly NativeBuffer _handlerBuffers = new(1 << 20);
    private readonly Disk _disk;
    private readonly IBlockQueue _diskQueue;
    private long _now;

    /// <param name="isInMemory">The handler may copy to and from the disk itself, as it does not of a file's.</param>
    public ChannelBench(bool payloadCrc = true, string disk = "memory:16M", bool isInMemory = true)
    {
        Geometry = new RegionGeometry
        {
            RegionId = Guid.NewGuid(),
            SizeBytes = 2 << 20,
            HostAreaOffset = 4096,
            BytesPerHost = 4096,
            HostCount = 2,
            BackendAreaOffset = 16384,
            BytesPerBackend = 4096,
            BackendCount = 2,
            BlkdevAreaOffset = 32768,
            BytesPerBlkdev = 4096,
            BlkdevCount = 2,
            ChannelAreaOffset = 65536,
            BytesPerChannel = 512 << 10,
            ChannelCount = 2,
            RingSlots = RingSlots,
            PayloadCrc = payloadCrc,
        };
        _source = RegionSource.Open(_path, Geometry.SizeBytes);
        _region = _source.Map();
        Memory = _region.Memory;
        Geometry.Validate(_region.SizeBytes);
        _disk = Disk.Open(new DiskOptions { Path = disk, Faults = isInMemory ? null : new FaultSet([]) });
        _diskQueue = _disk.Faulty.OpenQueue(64, _handlerBuffers);
        Backend = new ServedBackend(0, 7, _disk, 0, error => StoredFlushError = error, (_, _) => true);
        Group = new HandlerGroup<MappedMemory, SafePolicy>(Memory, Geometry, Backend, _diskQueue, _handlerBuffers);
        State = new BlkdevState(0, 1, 0, new BackendSession(7, _disk.Info.DurabilityId, _disk.Info), 1);
        if (!ChannelClaims<MappedMemory, SafePolicy>.TryClaim(Memory, Geometry, 1, out int channel, out ClaimWord word))
            throw new InvalidOperationException("no channel");
        Layout = new ChannelLayout(Geometry, channel);
        Queue = new Queue<MappedMemory, SafePolicy>(Memory, Geometry, channel, word, State, 0, new QueueOptions { DeadlineMicroseconds = 1000 }, () => { });
    }

    public RegionGeometry Geometry { get; }

    public MappedMemory Memory { get; }

    public ChannelLayout Layout { get; }

    public ServedBackend Backend { get; }

    public HandlerGroup<MappedMemory, SafePolicy> Group { get; }

    public BlkdevState State { get; }

    public Queue<MappedMemory, SafePolicy> Queue { get; }

    /// <summary>Takes the memory away, as somebody who truncates the region's file does.</summary>
    public void Truncate(long sizeBytes) => _source.Descriptor.Truncate(sizeBytes);

    /// <summary>What is on the disk, past the channel.</summary>
    public byte[] ReadDisk(long offset, int length)
    {
        using var buffer = new NativeBuffer(length);
        using IBlockQueue queue = _disk.OpenQueue(1);
        var completions = new BlockCompletion[1];
        if (!queue.TrySubmit(new BlockRequest(1, BlockOperation.Read, BlockFlags.None, offset, length, new BufferSlice(buffer, 0, length))))
            throw new InvalidOperationException("the disk takes no request");
        while (queue.Poll(completions) == 0)
            queue.Wait(1000);
        return completions[0].Error == 0 ? buffer.GetSpan(0, length).ToArray() : throw new InvalidOperationException($"errno {completions[0].Error}");
    }

    public int StoredFlushError { get; private set; }

    public ClaimWord Word => ClaimOperations<MappedMemory, SafePolicy>.Read(Memory, Layout.ClaimOffset);

    public void Attach()
    {
        Queue.Offer();
        if (!Group.TryAttach(Layout.Channel))
            throw new InvalidOperationException("not attached");
        PollQueue([]);
    }

    public int PollQueue(Span<BlockCompletion> completions) => Queue.Poll(_now += 10, completions);

    /// <summary>Lets both sides run until a request is answered.</summary>
    public BlockCompletion Finish()
    {
        Span<BlockCompletion> one = new BlockCompletion[1];
        for (int i = 0; i < 100_000; i++)
        {
            Group.Poll();
            if (PollQueue(one) == 1)
                return one[0];
        }

        throw new InvalidOperationException("no answer");
    }

    /// <summary>Stores a command as a hostile blkdev might: any fields, under a good seal.</summary>
    public void StoreCommand(CommandLine command)
    {
        Line line = command.ToLine();
        uint slot = (uint)command.Sequence % RingSlots;
        new LineSeal(Geometry.RegionId, Layout.Channel, LineKind.Command, Word.Epoch).Seal(ref line, slot);
        Memory.WriteLine(Layout.CommandRingOffset + slot * 64, line);
    }

    /// <summary>Stores a completion as a hostile handler might.</summary>
    public void StoreCompletion(CompletionLine completion)
    {
        Line line = completion.ToLine();
        uint slot = (uint)completion.Sequence % RingSlots;
        new LineSeal(Geometry.RegionId, Layout.Channel, LineKind.Completion, Word.Epoch).Seal(ref line, slot);
        Memory.WriteLine(Layout.CompletionRingOffset + slot * 64, line);
    }

    public void Dispose()
    {
        _diskQueue.Dispose();
        _disk.Dispose();
        _handlerBuffers.Dispose();
        _region.Dispose();
        _source.DeleteIfCreated();
        _source.Dispose();
    }
}
