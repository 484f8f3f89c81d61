using System.Diagnostics;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.TestPeer;

/// <summary>
/// <c>hostile REGION SEED SECONDS [hosts=0,1] [backends=0] [blkdevs=0] [channels=0,1]</c>: rewrites lines, claim words, bodies and
/// payload of a live region, some as garbage and some under good seals; not those entries that are named. Nor does it forge an
/// offer in the name of a spared blkdev: a region has no secrets from those who map it. Prints what it did.
/// </summary>
internal sealed class Hostile
{
    private readonly MappedMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly Random _random;
    private readonly int[][] _targets;
    private readonly long[] _counts = new long[Enum.GetValues<Attack>().Length];
    private readonly byte[] _bytes = new byte[4096];

    private enum Attack
    {
        Garbage,
        Command,
        Completion,
        BlkdevCtrl,
        HandlerCtrl,
        Payload,
        Body,
        Counter,
        Writer,
        Claim,
    }

    private Hostile(MappedMemory memory, RegionGeometry geometry, Random random, int[][] targets)
    {
        _memory = memory;
        _geometry = geometry;
        _random = random;
        _targets = targets;
    }

    internal static int Run(string[] arguments)
    {
        using RegionMapping region = RegionMapping.Open(arguments[0]);
        MappedMemory memory = region.Memory;
        RegionGeometry geometry = TransportInfo.Read(memory, region.SizeBytes).Geometry;
        string[] spared = arguments[3..];
        int[][] targets =
        [
            Others("hosts", geometry.HostCount), Others("backends", geometry.BackendCount),
            Others("blkdevs", geometry.BlkdevCount), Others("channels", geometry.ChannelCount),
        ];
        var hostile = new Hostile(memory, geometry, new Random(int.Parse(arguments[1])), targets);
        long end = Stopwatch.GetTimestamp() + long.Parse(arguments[2]) * Stopwatch.Frequency;
        while (Stopwatch.GetTimestamp() < end)
        {
            hostile.Strike();
            Thread.Sleep(hostile._random.Next(2));
        }

        Console.WriteLine(string.Join(", ", Enum.GetValues<Attack>().Select(attack => $"{hostile._counts[(int)attack]} {attack}")));
        return 0;

        int[] Others(string name, int count)
        {
            string list = spared.FirstOrDefault(word => word.StartsWith(name + "=", StringComparison.Ordinal))?[(name.Length + 1)..] ?? "";
            int[] ids = [.. list.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse)];
            return [.. Enumerable.Range(0, count).Except(ids)];
        }
    }

    /// <summary>One store. Claims are rewritten seldom: what they held is over then, and the rest of a life is worth attacking too.</summary>
    private void Strike()
    {
        var attack = (Attack)_random.Next((int)Attack.Claim + (_random.Next(50) == 0 ? 1 : 0));
        _counts[(int)attack]++;
        int channel = Pick(3);
        var layout = new ChannelLayout(_geometry, channel);
        ulong epoch = Word(layout.ClaimOffset).Epoch;
        switch (attack)
        {
            case Attack.Garbage:
                _memory.Write(layout.ClaimOffset + 64 + _random.NextInt64(_geometry.BytesPerChannel - 64 - 256), Bytes(_random.Next(1, 256)));
                break;
            case Attack.Command:
                StrikeLine(LineKind.Command, layout.CommandRingOffset, layout, epoch);
                break;
            case Attack.Completion:
                StrikeLine(LineKind.Completion, layout.CompletionRingOffset, layout, epoch);
                break;
            case Attack.BlkdevCtrl:
                new BlkdevCtrlLine(epoch, Pick(1), Pick(2), _random.Next(65536), _random.Next(8), Small(), Small(), Small(), Small(), Small()).Store(_memory, _geometry, channel);
                break;
            case Attack.HandlerCtrl:
                new HandlerCtrlLine(epoch, (HandlerCondition)_random.Next(5), Small(), Small(), Small()).Store(
                    _memory, layout.HandlerCtrlLineOffset, new LineSeal(_geometry.RegionId, channel, LineKind.HandlerCtrl, epoch));
                break;
            case Attack.Payload:
                _memory.Write(layout.WritePoolOffset + _random.NextInt64(2 * layout.PoolBytes - 4096), Bytes(_random.Next(1, 4096)));
                break;
            case Attack.Body:
                StrikeBody(_random.Next(3));
                break;
            case Attack.Counter:
                _memory.WriteRelease(_random.Next(2) == 0 ? _geometry.HostOffset(Pick(0)) + HostEntry.ChangeCounterOffset : _geometry.BackendOffset(Pick(1)) + BackendEntry.ChangeCounterOffset, Small());
                break;
            case Attack.Writer:
                _memory.WriteRelease(_geometry.BackendOffset(Pick(1)) + BackendEntry.WriterOffset, _random.Next(2) == 0 ? 0 : (ulong)_random.NextInt64());
                break;
            default:
                StrikeClaim(_random.Next(4));
                break;
        }
    }

    /// <summary>A line that is there, with a word replaced, sealed or not; in its slot or in another.</summary>
    private void StrikeLine(LineKind kind, long ring, in ChannelLayout layout, ulong epoch)
    {
        uint slot = (uint)_random.Next(layout.RingSlots);
        _memory.ReadLine(ring + slot * 64, out Line line);
        for (int words = _random.Next(3); words > 0; words--)
        {
            ulong value = _random.Next(2) == 0 ? Small() : (ulong)_random.NextInt64();
            switch (_random.Next(6))
            {
                case 0: line.Word0 = value; break;
                case 1: line.Word1 = line.Word1 & ~(0xFFFFUL << 40) | (value & 0xFFFF) << 40; break;
                case 2: line.Word2 = value; break;
                case 3: line.Word3 = value; break;
                case 4: line.Word4 = value; break;
                default: line.Word5 = value; break;
            }
        }

        if (_random.Next(3) == 0)
            slot = (uint)line.Word0 % (uint)layout.RingSlots;
        if (_random.Next(4) != 0)
            new LineSeal(_geometry.RegionId, layout.Channel, kind, epoch).Seal(ref line, slot);
        _memory.WriteLine(ring + slot * 64, line);
    }

    /// <summary>A copy of a body with some bytes replaced, sealed for the present claim, as the newest one.</summary>
    private void StrikeBody(int area)
    {
        int index = Pick(area);
        BodyPlace place = area switch
        {
            0 => BodyPlace.OfHost(_geometry, index),
            1 => BodyPlace.OfBackend(_geometry, index),
            _ => BodyPlace.OfBlkdev(_geometry, index),
        };
        ulong epoch = Word(area switch { 0 => _geometry.HostOffset(index), 1 => _geometry.BackendOffset(index), _ => _geometry.BlkdevOffset(index) }).Epoch;
        Span<byte> frame = new byte[BodyFrame.SizeBytes];
        _memory.Read(place.CopyOffset(_random.Next(2)), frame);
        for (int patches = _random.Next(4); patches > 0; patches--)
        {
            int at = _random.Next(frame.Length - 16);
            Bytes(_random.Next(1, 16)).CopyTo(frame[at..]);
        }

        if (_random.Next(4) != 0)
            BodyFrame.Seal(frame, _random.Next(1, BodyFrame.MaxPayloadBytes), place, epoch, (ulong)_random.NextInt64(1, 1 << 20));
        _memory.Write(place.CopyOffset(_random.Next(2)), frame);
    }

    private void StrikeClaim(int area)
    {
        int index = Pick(area);
        long offset = area switch
        {
            0 => _geometry.HostOffset(index),
            1 => _geometry.BackendOffset(index),
            2 => _geometry.BlkdevOffset(index),
            _ => _geometry.ChannelOffset(index),
        };
        var state = (ClaimState)(_random.Next(8) == 0 ? _random.Next(256) : area == 3 ? 16 + _random.Next(4) : _random.Next(8));
        ulong epoch = _random.Next(8) == 0 ? (ulong)_random.NextInt64() : Word(offset).Epoch + (ulong)_random.Next(3);
        _memory.WriteRelease(offset, new ClaimWord(state, _random.Next(4) == 0 ? _random.Next(65536) : Pick(0), epoch).Raw);
    }

    private int Pick(int area) => _targets[area][_random.Next(_targets[area].Length)];

    private ClaimWord Word(long offset) => new(_memory.ReadAcquire(offset));

    private ulong Small() => (ulong)_random.Next(_random.Next(2) == 0 ? 16 : 4096);

    private ReadOnlySpan<byte> Bytes(int count)
    {
        Span<byte> bytes = _bytes.AsSpan(0, count);
        _random.NextBytes(bytes);
        return bytes;
    }
}
