using Cbd.Host.Wanted;

namespace Cbd.Simulation.Region;

/// <summary>
/// The state directory of a daemon: it outlives processes, and losses of power. A write happens as a whole, or not at all.
/// </summary>
internal sealed class RecordMedium(Guid hostUuid)
{
    public IReadOnlyList<StateEntry> Entries { get; private set; } = [];

    /// <summary>The machine that wrote the record; null if it does not say.</summary>
    public MachineIdentity? Writer { get; private set; }

    public Guid HostUuid { get; private set; } = hostUuid;

    /// <summary>The machine that its record is of, as the world knows; −1: of whichever has it.</summary>
    public int OwnerMachine { get; private set; } = -1;

    /// <summary>Until then nothing can be written; microseconds of the world.</summary>
    public long FullUntil { get; set; }

    /// <summary>It is a copy, which nobody has removed yet.</summary>
    public bool IsCopy { get; private set; }

    public void Write(IReadOnlyList<StateEntry> entries, MachineIdentity machine)
    {
        // As a file has it: what is true of one life is not written.
        Entries = [.. entries.Select(e => e with { IsPending = false, Held = null, IsUnclaimed = false, IsBlocked = false, Reason = null, Number = 0 })];
        Writer = machine;
    }

    /// <summary>The state directory of a daemon on another machine is copied here.</summary>
    /// <param name="other">Of that daemon.</param>
    /// <param name="machine">That machine.</param>
    /// <param name="isKnown">The record says which machine wrote it.</param>
    public void CopyFrom(RecordMedium other, int machine, bool isKnown)
    {
        (Entries, Writer, HostUuid) = (other.Entries, isKnown ? other.Writer : null, other.HostUuid);
        (OwnerMachine, IsCopy) = (isKnown && Writer is not null ? machine : -1, true);
    }

    /// <summary>Its operator removes it: the next daemon begins with nothing.</summary>
    public void Remove(Guid newUuid)
    {
        (Entries, Writer, HostUuid) = ([], null, newUuid);
        (OwnerMachine, IsCopy) = (-1, false);
    }
}
