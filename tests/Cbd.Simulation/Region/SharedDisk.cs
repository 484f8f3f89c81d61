using System.Buffers.Binary;
using System.Globalization;
using Cbd.Blocks;
using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>A disk that some machines can open, what its users may expect of it, and who has it locked.</summary>
internal sealed class SharedDisk<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private readonly Dictionary<int, SimulatedDiskQueue> _locks = [];
    private readonly HashSet<SimulatedDiskQueue> _closed = [];
    private const string LifeMark = "/";

    private int _lastMachine = -1;
    private Guid _lastBoot;
    private int _lives;

    public SharedDisk(int number, SimulatedDisk disk, params int[] machines)
    {
        Number = number;
        Disk = disk;
        Machines = machines;
        History = new History(disk.BlockCount);
        disk.Dropped += History.Drop;
    }

    public int Number { get; }

    /// <summary>Each opening is another disk: it was in the memory of the process before.</summary>
    public bool IsInMemory { get; init; }

    /// <summary>
    /// It has the identity of a block device. The kernel names all such disks but disk 1: of that it says a number that is good for one boot,
    /// and after that nothing tells whether it is the one that was.
    /// </summary>
    public bool IsDevice { get; init; }

    /// <summary>The record is of this disk, or of an earlier life of it.</summary>
    public bool IsOf(BackendBody record) => NumberOf(record.Identity) == Number;

    /// <summary>Which disk an identity is of; −1: of none.</summary>
    public static int NumberOf(string identity) =>
        BlockDiskName.TryParse(identity, out BlockDiskName? device) ? (device.IsNamed ? device.Name[^1] : device.Name[^3]) - '0'
        : identity.Length > 0 ? identity.Split(LifeMark)[0][^1] - '0'
        : -1;

    /// <summary>Identity that every opening of it has; null if they differ.</summary>
    public string? Identity => IsInMemory || IsDevice ? null : $"disk:{Number}";

    public SimulatedDisk Disk { get; }

    public int[] Machines { get; }

    public History History { get; }

    /// <summary>The device that uses it now, as the world knows: never two.</summary>
    public SimulatedDevice<TPolicy>? Device { get; set; }

    /// <summary>The device that waits for the next process of its daemon; null for none.</summary>
    public KeptDevice<TPolicy>? Parked { get; set; }

    /// <summary>Its machine lost power, and its device has neither failed nor gone on yet.</summary>
    public bool IsLossPending { get; set; }

    /// <summary>What was lost with that was acknowledged to its user.</summary>
    public bool IsOwedAtLoss { get; private set; }

    /// <summary>A flush failed, its user knows, and no operator has cleared that.</summary>
    public bool HasFailedFlush { get; set; }

    /// <summary>When the user learned of it.</summary>
    public long FailedFlushAt { get; set; }

    /// <summary>Session that the device used when its machine lost power.</summary>
    public ulong SessionAtLoss { get; private set; }

    /// <summary>When the operator last cleared a failed flush: answers to what was sent before say nothing.</summary>
    public long ClearedAt { get; set; }

    /// <summary>The disk's lock, which a kernel keeps until the last operation of its holder has ended.</summary>
    public bool TryLock(int machine, SimulatedDiskQueue queue)
    {
        if (_locks.TryGetValue(machine, out SimulatedDiskQueue? holder) && (!_closed.Contains(holder) || Disk.HasOperationsOf(holder)))
            return false;
        _locks[machine] = queue;
        return true;
    }

    /// <summary>The kernel of this machine still has operations of a process that is dead.</summary>
    public bool HasLeftoversOf(int machine) => Disk.HasLeftoversOf(q => q.Machine == machine);

    /// <summary>A session of this machine has the disk now: its caches hold what is not flushed.</summary>
    public void ServedBy(Machine machine) => (_lastMachine, _lastBoot) = (machine.Number, machine.BootId);

    /// <summary>It was a session of that boot of a machine that had it last.</summary>
    public bool WasServedBy(Machine machine) => _lastMachine == machine.Number && _lastBoot == machine.BootId;

    public void Unlock(SimulatedDiskQueue queue) => _closed.Add(queue);

    /// <summary>The same process goes on with another queue, and its disk stays locked.</summary>
    public void PassLock(int machine, SimulatedDiskQueue from, SimulatedDiskQueue to)
    {
        if (_locks.GetValueOrDefault(machine) == from)
            _locks[machine] = to;
    }

    /// <summary>A process opens it.</summary>
    public string Open(Machine machine)
    {
        if (IsInMemory)
            return $"memory:{Number}{LifeMark}{++_lives}";
        if (Identity is { } identity)
            return identity;
        string kernels = Number == 1 ? $"{BlockDiskName.Number}8,{Number},1" : $"wwid=naa.{Number}";
        return new BlockDiskName(kernels, DiskTextPart.Unknown, machine.BootId.ToString("N")[..8], $"d{machine.Number:x8}").ToString();
    }

    /// <summary>Boot and disk: acknowledged writes live so long.</summary>
    /// <param name="bootId">Of the machine that has it open.</param>
    /// <param name="identity">Of the opening.</param>
    public Guid LifeOn(Guid bootId, string identity)
    {
        Span<byte> id = stackalloc byte[16];
        bootId.TryWriteBytes(id);
        id[0] ^= (byte)(Number + 1);
        if (IsInMemory)
            BinaryPrimitives.WriteInt32LittleEndian(id[4..], int.Parse(identity.Split(LifeMark)[1], CultureInfo.InvariantCulture));
        return new Guid(id);
    }

    public bool IsLockedBy(int machine) => _locks.TryGetValue(machine, out SimulatedDiskQueue? holder) && !_closed.Contains(holder);

    /// <summary>The machine is off: its kernel's operations and what its caches held are gone.</summary>
    public void LosePower(int machine)
    {
        if (!_locks.Remove(machine) || machine != _lastMachine)
            return;
        bool waits = Device is null && Parked is { MayBeGone: false } && Parked.Record.Body.Failure.Length == 0;
        int life = waits ? Parked!.Life : Device?.Life ?? 0;
        IsOwedAtLoss = (IsLossPending && IsOwedAtLoss) || Disk.Dirty.Any(d => History.IsOwed(d.Block, d.Id, life));
        Disk.LoseCache();
        bool gone = !waits && (Device is null || Device.IsOver || Device.HasFailed);
        History.ForgiveUnflushed(presentLifeToo: gone);
        IsLossPending = !gone;
        SessionAtLoss = waits ? Parked!.Record.Body.Session : Device?.State?.SessionEpoch ?? 0;
    }

    /// <summary>The user of the present device was told, or is gone.</summary>
    public void Forgive()
    {
        History.ForgiveUnflushed(presentLifeToo: true);
        IsLossPending = IsOwedAtLoss = false;
    }

    public BackendBody Describe(Guid durabilityId, string identity, string? path = null) => new()
    {
        Flags = Disk.IsBuffered ? BackendFlags.Buffered : BackendFlags.None,
        SizeBytes = (long)Disk.SizeBlocks * SimulatedDisk.BlockBytes,
        LogicalBlockBytes = 512,
        PhysicalBlockBytes = 512,
        DiscardGranularityBytes = 512,
        MaxTransferBytes = 1 << 20,
        DurabilityId = durabilityId,
        Handlers = 1,
        Engine = BackendEngine.Direct,
        Identity = identity,
        Path = path ?? $"/disks/{Number}",
    };
}
