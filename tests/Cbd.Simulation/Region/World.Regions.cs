using Cbd.Control.Api;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Protocol.Transports;

namespace Cbd.Simulation.Region;

/// <summary>The region itself: what is formatted, lost and replaced.</summary>
internal sealed partial class World<TPolicy>
{
    internal TransportInfo NewInfo()
    {
        var options = new RegionOptions { Hosts = 7, Backends = 5, Blkdevs = 5, Channels = 9, RingSlots = 8, ChannelSizeBytes = 49152, PayloadCrc = _scenario.PayloadCrc };
        return new TransportInfo
        {
            Geometry = RegionPlan.Create(RegionPlan.MinimumBytes(options), options, Machine.NewId(_random)),
            Coherence = RegionCoherence.Hardware,
        };
    }

    internal ClaimWord Word(long offset) => new(Region.Word(offset));

    /// <summary>The next life of some daemon begins with tp-reg --format --force.</summary>
    internal void FormatSoon() => _slots[_random.Next(_slots.Length)].Format = true;

    /// <summary>Every machine is off at once, and what was in the memory that they share is gone.</summary>
    internal void LoseRegion()
    {
        foreach (Machine machine in _machines)
            PowerOff(machine, Region.Now + _random.Next(1000, DeadMicroseconds));
        Trace("the region is gone");
        Region.Clear();
        IsFormatted = false;
        _watch.Formatted();
    }

    /// <summary>All daemons die, and one of them formats the region anew.</summary>
    internal void ReplaceRegion()
    {
        Kill([.. Living]);
        FormatSoon();
    }

    /// <summary>The region is gone, and records want the one that was there: an operator has it formatted.</summary>
    internal void FormatWhereNobodyMay()
    {
        if (Inspection.ReadAcquire(TransportInfo.MagicOffset) == TransportInfo.Magic || _slots.Any(s => s.Format || s.Process is { IsFormatting: true }) || _slots[0].Process is not { Wanted.MayFormat: false } process)
            return;
        _slots[0].Format = true;
        Kill(process);
    }
}
