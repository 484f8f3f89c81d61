using Cbd.Blocks;
using Cbd.Host.Transports;
using Cbd.Host.Wanted;

namespace Cbd.Simulation.Region;

/// <summary>A machine: its kernel's boot, its clock, and the byte locks of its view of the region.</summary>
internal sealed class Machine(int number, SimulatedRegion world, Random random)
{
    private readonly long _offset = random.Next(1, 1_000_000_000);
    private readonly Dictionary<int, object> _locks = [];
    private readonly Dictionary<(Guid Region, int Backend), DiskReservation> _reservations = [];
    private long _lostToSuspension;
    private long _suspendedAt = -1;

    public int Number => number;

    public Guid BootId { get; private set; } = NewId(random);

    /// <summary>As kept in the state directory: survives a reboot.</summary>
    public Guid HostUuid { get; } = NewId(random);

    /// <summary>What tells it from other machines.</summary>
    public MachineIdentity Identity { get; } = new() { MachineId = $"machine-{number}" };

    public bool IsUp { get; private set; } = true;

    public long BackAt { get; private set; }

    public long SuspendedUntil { get; private set; }

    public bool IsSuspended => SuspendedUntil > world.Now;

    /// <summary>Its monotonic clock, which does not run while it is suspended.</summary>
    public long NowMicroseconds
    {
        get
        {
            if (_suspendedAt >= 0 && !IsSuspended)
            {
                _lostToSuspension += SuspendedUntil - _suspendedAt;
                _suspendedAt = -1;
            }

            return _offset + (_suspendedAt >= 0 ? _suspendedAt : world.Now) - _lostToSuspension;
        }
    }

    public long NowMs => NowMicroseconds / 1000;

    public void Suspend(long microseconds)
    {
        if (IsSuspended || !IsUp)
            return;
        _ = NowMicroseconds;
        _suspendedAt = world.Now;
        SuspendedUntil = world.Now + microseconds;
    }

    public void Resume()
    {
        if (!IsSuspended)
            return;
        SuspendedUntil = world.Now;
        _ = NowMicroseconds;
    }

    public void PowerOff(long backAt)
    {
        Resume();
        IsUp = false;
        BackAt = backAt;
        _locks.Clear();
    }

    public void Boot()
    {
        IsUp = true;
        BootId = NewId(random);
        _reservations.Clear();
    }

    /// <summary>Reservations of disks, as files say in this boot: one for each record.</summary>
    public IReadOnlyList<DiskReservation> Reservations => [.. _reservations.Values];

    /// <summary>A disk is a backend from now on.</summary>
    public void Reserve(DiskReservation reservation)
    {
        if (!DiskIdentity.IsInMemory(reservation.Identity))
            _reservations[(reservation.RegionId, reservation.Backend)] = reservation;
    }

    /// <summary>The backend is stopped.</summary>
    public void EndReservation(Guid regionId, int backend) => _reservations.Remove((regionId, backend));

    public bool TryLock(int host, object process) => _locks.TryAdd(host, process);

    public void Unlock(int host, object process)
    {
        if (_locks.TryGetValue(host, out object? holder) && holder == process)
            _locks.Remove(host);
    }

    public bool IsLocked(int host) => _locks.ContainsKey(host);

    public object? LockedBy(int host) => _locks.GetValueOrDefault(host);

    public void ReleaseLocksOf(object process)
    {
        foreach (int host in _locks.Where(pair => pair.Value == process).Select(pair => pair.Key).ToArray())
            _locks.Remove(host);
    }

    public static Guid NewId(Random random)
    {
        Span<byte> bytes = stackalloc byte[16];
        random.NextBytes(bytes);
        return new Guid(bytes);
    }
}
