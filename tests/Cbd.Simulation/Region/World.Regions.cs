using Cbd.Blocks;
using Cbd.Host.Transports;
using Cbd.Protocol.Format;
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

    /// <summary>Path of the region that all machines share.</summary>
    internal const string MainRegion = "/region";

    /// <summary>A region of one machine alone, which is gone with its boot; null while it is off, and without records.</summary>
    internal OtherRegion<TPolicy>? Other { get; private set; }

    /// <summary>Throws Busy if blkdevs of another region wait for a disk that is started on a machine.</summary>
    /// <param name="machine">Where.</param>
    /// <param name="identity">Of the disk, whose lock the caller has.</param>
    /// <param name="regionId">Of the region in which it is started.</param>
    internal void CheckReservation(Machine machine, string identity, Guid regionId)
    {
        var disk = new DiskIdentity(identity);
        if (ReservationRules<TPolicy>.FindInTheWay(machine.Reservations, disk, regionId, IsOver) is { } found)
            throw new CbdException(CbdErrorKind.Busy, $"{identity} is backend {found.Backend} of host '{found.Host}' in region {found.Region}");

        bool IsOver(DiskReservation found) => found.Region != MainRegion
            ? Other is null || ReservationRules<TPolicy>.IsOver(found, disk, Other.Memory, Other.Geometry, IsServedHere)
            : !IsFormatted || ReservationRules<TPolicy>.IsOver(found, disk, Inspection, Geometry, IsServedHere);

        // Two disks that one boot names are always told apart here: a record that cannot be is of another machine, or of another boot.
        static bool IsServedHere(ClaimWord word) => false;
    }

    private void TurnOther()
    {
        Machine machine = _machines[1];
        if (!machine.IsUp)
            return;
        Other ??= new OtherRegion<TPolicy>(this, machine);
        Other.Turn();
    }
}
