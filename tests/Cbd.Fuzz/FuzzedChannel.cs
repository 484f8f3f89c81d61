using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Simulation;

namespace Cbd.Fuzz;

/// <summary>One channel in an array, and the stores of a hostile other side, under a good seal where it wants one.</summary>
internal sealed class FuzzedChannel
{
    public const int RingSlots = 8;
    public const int Channel = 1;

    public FuzzedChannel()
    {
        Geometry = new RegionGeometry
        {
            RegionId = new Guid("0f0e0d0c-0b0a-0908-0706-050403020100"),
            SizeBytes = 192 << 10,
            HostAreaOffset = 4096,
            BytesPerHost = 2048,
            HostCount = 2,
            BackendAreaOffset = 8192,
            BytesPerBackend = 2048,
            BackendCount = 2,
            BlkdevAreaOffset = 12288,
            BytesPerBlkdev = 2048,
            BlkdevCount = 2,
            ChannelAreaOffset = 16384,
            BytesPerChannel = 56 << 10,
            ChannelCount = 3,
            RingSlots = RingSlots,
            PayloadCrc = true,
        };
        Memory = new ArrayMemory(Geometry.SizeBytes);
        Geometry.Validate(Geometry.SizeBytes);
        Layout = new ChannelLayout(Geometry, Channel);
    }

    public RegionGeometry Geometry { get; }

    /// <summary>The memory without a fence: the hostile side's.</summary>
    public ArrayMemory Memory { get; }

    public ChannelLayout Layout { get; }

    public ClaimWord Word
    {
        get => new(Memory.ReadAcquire(Layout.ClaimOffset));
        set => Memory.WriteRelease(Layout.ClaimOffset, value.Raw);
    }

    /// <summary>What the handler may store to. A doorbell is the low half of a word that is changed whole.</summary>
    public FencedMemory ForHandler() => new(Memory,
    [
        (Layout.ClaimOffset, 8), (Layout.HandlerCtrlLineOffset, 64), (Layout.ClaimOffset + ChannelLayout.HandlerDoorbellOffset, 8),
        (Layout.ClaimOffset + ChannelLayout.BlkdevDoorbellOffset, 8), (Layout.CompletionRingOffset, RingSlots * 64), (Layout.ReadPoolOffset, Layout.PoolBytes),
    ]);

    /// <summary>What the queue may store to.</summary>
    public FencedMemory ForQueue() => new(Memory,
    [
        (Layout.ClaimOffset, 8), (Layout.BlkdevCtrlLineOffset, 64), (Layout.ClaimOffset + ChannelLayout.HandlerDoorbellOffset, 8),
        (Layout.ClaimOffset + ChannelLayout.BlkdevDoorbellOffset, 8), (Layout.CommandRingOffset, RingSlots * 64), (Layout.WritePoolOffset, Layout.PoolBytes),
    ]);

    /// <summary>Stores a line in a slot of a ring, sealed for the epoch of the claim word.</summary>
    public void StoreLine(LineKind kind, long offset, uint slot, Line line, bool seal)
    {
        if (seal)
            new LineSeal(Geometry.RegionId, Channel, kind, Word.Epoch).Seal(ref line, slot);
        Memory.WriteLine(offset, line);
    }

    /// <summary>A claim word from input: any state, and an epoch that is the present one or near it, or any.</summary>
    public ClaimWord TakeWord(ref FuzzInput input)
    {
        byte state = input.Byte();
        byte kind = input.Byte();
        ulong epoch = kind < 240 ? Word.Epoch + (ulong)(kind % 4) - 1 : input.UInt64();
        return new ClaimWord((ClaimState)state, input.Byte() % 3, epoch);
    }

    /// <summary>Stores bytes anywhere in the channel.</summary>
    public void StoreAnywhere(ref FuzzInput input)
    {
        int offset = input.Below((int)Geometry.BytesPerChannel);
        ReadOnlySpan<byte> bytes = input.Take(Math.Min(input.Byte() % 64, (int)Geometry.BytesPerChannel - offset));
        Memory.Write(Layout.ClaimOffset + offset, bytes);
    }
}
