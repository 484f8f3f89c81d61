using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Protocol.Records;

namespace Cbd.Simulation.Region;

/// <summary>
/// What of a device outlives its process: the memory of its record, and its users with what they have sent and not been answered. Gone
/// when its machine loses its power.
/// </summary>
internal sealed class KeptDevice<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    public KeptDevice(int slot, SharedDisk<TPolicy> disk, LossPolicy loss, DeviceRecordBody body)
    {
        Slot = slot;
        Disk = disk;
        Loss = loss;
        Memory = new NativeBuffer(DeviceRecord.SizeFor(body.Queues));
        Record = DeviceRecord.Create(Memory, body);
    }

    /// <summary>Of its daemon, in all lives of that.</summary>
    public int Slot { get; }

    public SharedDisk<TPolicy> Disk { get; }

    public LossPolicy Loss { get; }

    public NativeBuffer Memory { get; }

    /// <summary>As the process that has it sees it.</summary>
    public DeviceRecord Record { get; set; }

    public ulong LifeId => Record.Body.Life;

    /// <summary>The device of the process that has it, or had it last.</summary>
    public SimulatedDevice<TPolicy>? Device { get; set; }

    /// <summary>Its process is dead, and no other has taken it up.</summary>
    public bool IsParked { get; set; }

    /// <summary>Its claim was quarantined, given up by an operator, or lost with its region: nobody adopts it any more.</summary>
    public bool MayBeGone { get; set; }

    /// <summary>Number of its life in the disk's history.</summary>
    public int Life { get; set; }

    public int BackendLife { get; set; }

    public int BackendEnds { get; set; }

    public DeviceUser<TPolicy>[] Users { get; set; } = [];

    /// <summary>The channels that the process before had, with the epochs in which it claimed them.</summary>
    public (int Channel, ulong Epoch)[] Channels { get; set; } = [];

    /// <summary>When it is tried again.</summary>
    public long NextTry { get; set; }
}
