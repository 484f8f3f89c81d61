using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>Who this host is: what it publishes, and what it compares others with.</summary>
internal sealed record HostIdentity
{
    public const int DefaultBeatMs = 1000, DefaultDeadMs = 10_000;

    public required string Name { get; init; }

    /// <summary>Boot id of this kernel.</summary>
    public required Guid BootId { get; init; }

    /// <summary>Random, kept in the state directory.</summary>
    public required Guid HostUuid { get; init; }

    /// <summary>Device and inode number of the region's file as this host sees it.</summary>
    public required ulong Device { get; init; }
    public required ulong Inode { get; init; }
    public required int Pid { get; init; }
    public int BeatMs { get; init; } = DefaultBeatMs;
    public int DeadMs { get; init; } = DefaultDeadMs;

    /// <summary>Throws <see cref="CbdException"/> if the name or a time cannot be published.</summary>
    public void Validate()
    {
        if (Name.Length == 0)
            throw new CbdException(CbdErrorKind.Invalid, $"host name is empty: give --host a name of 1 to {HostBody.MaxNameBytes} bytes");
        int bytes = System.Text.Encoding.UTF8.GetByteCount(Name);
        if (bytes > HostBody.MaxNameBytes)
            throw new CbdException(CbdErrorKind.Invalid, $"host name '{Printable(Name)}' has {bytes} bytes: give --host a name of 1 to {HostBody.MaxNameBytes} bytes");
        if (!HostBody.IsValidName(Name))
            throw new CbdException(CbdErrorKind.Invalid, $"host name '{Printable(Name)}' has a slash, white space or a control character: give --host a name without");
        if (BeatMs is < HostBody.MinBeatMs or > HostBody.MaxBeatMs)
            throw new CbdException(CbdErrorKind.Invalid, $"beat is {BeatMs} ms: give a time from {HostBody.MinBeatMs} to {HostBody.MaxBeatMs} ms");
        if (DeadMs < 2 * BeatMs || DeadMs > HostBody.MaxDeadMs)
            throw new CbdException(CbdErrorKind.Invalid, $"dead-time is {DeadMs} ms: give a time from two beats ({2 * BeatMs} ms) to {HostBody.MaxDeadMs} ms");
    }

    internal HostBody ToBody(ulong heartbeat, long lockByteOffset) => new()
    {
        Heartbeat = heartbeat,
        BootId = BootId,
        HostUuid = HostUuid,
        Device = Device,
        Inode = Inode,
        LockByteOffset = lockByteOffset,
        BeatMs = BeatMs,
        DeadMs = DeadMs,
        Pid = Pid,
        Name = Name,
    };

    private static string Printable(string text) =>
        string.Concat(text.Select(character => char.IsControl(character) || char.IsSurrogate(character) ? '?' : character));
}

/// <summary>
/// The locks by which hosts of one kernel prove that they live: one byte of the region's file per host entry, the byte
/// at <see cref="RegionGeometry.HostOffset"/>, locked by the process that stores into the region (OFD locks: they end
/// with the process, however it ends). All members may be called from any thread.
/// </summary>
internal interface IHostLocks
{
    /// <summary>Takes the lock of a host entry; false if another process (or another registration here) holds it.</summary>
    bool TryLock(int host);

    /// <summary>Gives back a lock that <see cref="TryLock"/> took.</summary>
    void Unlock(int host);

    /// <summary>
    /// Whether somebody holds the lock of a host entry. Asked only for hosts with this host's boot id that see the
    /// region as this device and inode.
    /// </summary>
    bool IsHeld(int host, ulong device, ulong inode);

    /// <summary>
    /// Whether somebody holds the lock of any host entry, of whichever size and number they are. The region as this host
    /// sees it.
    /// </summary>
    bool IsAnyHeld(ulong device, ulong inode)
    {
        for (int host = 0; host < 1 << 15; host++)
        {
            if (IsHeld(host, device, inode))
                return true;
        }

        return false;
    }
}

/// <summary>What an observer may say of a host.</summary>
internal enum Liveness
{
    /// <summary>May be alive: nothing proves its death, and it was not seen to move lately.</summary>
    Unknown = 0,
    Alive = 1,

    /// <summary>Proven: it stores nothing into the region any more.</summary>
    Dead = 2,
}

/// <summary>What a state machine's step came to.</summary>
internal enum StepResult
{
    /// <summary>Call it again, after a beat or when something changed.</summary>
    Again = 0,
    Done = 1,
}
