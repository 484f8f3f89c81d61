using Cbd.Host.Devices;
using Cbd.Protocol.Blkdevs;
using Cbd.Host;

namespace Cbd.Control.Json;

/// <summary>One host entry. <c>alive</c> is "alive", "dead" or "unknown".</summary>
internal sealed record HostInfo
{
    public required int HostId { get; init; }
    public required string Hostname { get; init; }
    public required string Alive { get; init; }
    public required string State { get; init; }

    /// <summary>It is the host that was asked.</summary>
    public required bool Mine { get; init; }

    /// <summary>Backends, blkdevs and channels under its id that nobody may reuse yet.</summary>
    public int Quarantined { get; set; }

    public static HostInfo From(HostDescription host) => new()
    {
        HostId = host.HostId,
        Hostname = host.HostName,
        Alive = host.Alive,
        State = host.State,
        Mine = host.Mine,
        Quarantined = host.Quarantined,
    };

    public HostDescription ToDescription() => new(HostId, Hostname, Alive, State, Mine, Quarantined);
}

/// <summary>One backend entry.</summary>
internal sealed record BackendInfo
{
    public required int BackendId { get; init; }
    public required int HostId { get; init; }
    public required string BackendPath { get; init; }
    public required string Alive { get; init; }
    public required IReadOnlyList<int> Blkdevs { get; init; }
    public required string State { get; init; }
    public required long SizeBytes { get; init; }
    public required int BlockSize { get; init; }
    public required bool ReadOnly { get; init; }
    public required int Handlers { get; init; }
    public required string Engine { get; init; }

    /// <summary>0, or the errno of the flush that failed and latched.</summary>
    public required int FlushError { get; init; }

    /// <summary>Epoch of its claim: the number of this session, or of the last one.</summary>
    public ulong Session { get; set; }

    /// <summary>Its operator stopped it while blkdevs used it; they answer with EIO until it is started again.</summary>
    public bool Stopped { get; set; }

    /// <summary>CPU time of its handler threads so far, µs; only for a backend of the host that was asked.</summary>
    public long? CpuUs { get; set; }

    /// <summary>Managed memory that its handler threads allocated so far; only for a backend of the host that was asked.</summary>
    public long? AllocatedBytes { get; set; }

    /// <summary>The faults in force; null where there can be none, and for a backend of another host.</summary>
    public IReadOnlyList<FaultInfo>? Faults { get; set; }

    public static BackendInfo From(BackendDescription backend) => new()
    {
        BackendId = backend.BackendId,
        HostId = backend.HostId,
        BackendPath = backend.Path,
        Alive = backend.Alive,
        Blkdevs = backend.Blkdevs,
        State = backend.State,
        SizeBytes = backend.SizeBytes,
        BlockSize = backend.BlockBytes,
        ReadOnly = backend.ReadOnly,
        Handlers = backend.Handlers,
        Engine = backend.Engine,
        FlushError = backend.FlushError,
        Session = backend.Session,
        Stopped = backend.IsStopped,
        CpuUs = backend.Usage?.CpuMicroseconds,
        AllocatedBytes = backend.Usage?.AllocatedBytes,
        Faults = backend.Faults is { } faults ? [.. faults.Select(f => new FaultInfo { Spec = f.Spec, Struck = f.Struck })] : null,
    };

    public BackendDescription ToDescription() => new()
    {
        BackendId = BackendId,
        HostId = HostId,
        Path = BackendPath,
        Alive = Alive,
        State = State,
        Blkdevs = Blkdevs,
        SizeBytes = SizeBytes,
        BlockBytes = BlockSize,
        ReadOnly = ReadOnly,
        Handlers = Handlers,
        Engine = Engine,
        FlushError = FlushError,
        Session = Session,
        IsStopped = Stopped,
        Usage = CpuUs is { } cpu && AllocatedBytes is { } allocated ? new ThreadUsage(cpu, allocated) : null,
        Faults = Faults is { } faults ? [.. faults.Select(f => new FaultDescription(f.Spec, f.Struck))] : null,
    };
}

/// <summary>A fault in force on a backend: how it can be given again, and how many requests it has struck.</summary>
internal sealed record FaultInfo
{
    public required string Spec { get; init; }
    public required long Struck { get; init; }
}

/// <summary>One blkdev entry. <c>dev_name</c> is its node or NBD URI, empty for those of other hosts.</summary>
internal sealed record DeviceInfo
{
    public required int BlkdevId { get; init; }
    public required int HostId { get; init; }
    public required int BackendId { get; init; }
    public required string DevName { get; init; }

    /// <summary>The kernel's own node behind the name; empty where there is none.</summary>
    public required string Node { get; init; }
    public required string Alive { get; init; }
    public required string State { get; init; }
    public required int Queues { get; init; }
    public required long SizeBytes { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>Why a device of the host that was asked is not running; empty while it is.</summary>
    public string Loss { get; set; } = "";

    /// <summary>What it does while its backend is away: "queue" or "fail"; only for a device of the host that was asked.</summary>
    public string? OnBackendLoss { get; set; }

    /// <summary>How long requests wait then, seconds; 0: for ever.</summary>
    public int? LossTimeout { get; set; }
    /// <summary>What its user may not expect; null if there is nothing.</summary>
    public string? Note { get; set; }

    public static DeviceInfo From(DeviceDescription device) => new()
    {
        BlkdevId = device.BlkdevId,
        HostId = device.HostId,
        BackendId = device.BackendId,
        DevName = device.Name,
        Node = device.Node,
        Alive = device.Alive,
        State = device.State,
        Queues = device.Queues,
        SizeBytes = device.SizeBytes,
        ReadOnly = device.ReadOnly,
        Loss = device.Loss,
        OnBackendLoss = device.LossPolicy is { } policy ? LossText.Of(policy.Action) : null,
        LossTimeout = (int?)(device.LossPolicy?.TimeoutMs / 1000),
        Note = device.Note.Length > 0 ? device.Note : null,
    };

    public DeviceDescription ToDescription() => new()
    {
        BlkdevId = BlkdevId,
        HostId = HostId,
        BackendId = BackendId,
        Name = DevName,
        Node = Node,
        Alive = Alive,
        State = State,
        Queues = Queues,
        SizeBytes = SizeBytes,
        ReadOnly = ReadOnly,
        Loss = Loss,
        LossPolicy = OnBackendLoss is { } action ? new LossPolicy(LossText.Parse(action), (LossTimeout ?? 0) * 1000L) : null,
        Note = Note ?? "",
    };
}

/// <summary>One channel in use. An id is −1 where it cannot be told.</summary>
internal sealed record ChannelInfo
{
    public required int ChannelId { get; init; }
    public required int BlkdevId { get; init; }
    public required int BackendId { get; init; }
    public required string State { get; init; }
    public required ulong Epoch { get; init; }
    public required long Outstanding { get; init; }
    public required bool Quarantined { get; init; }
    public required int HostId { get; init; }

    public static ChannelInfo From(ChannelDescription channel) => new()
    {
        ChannelId = channel.ChannelId,
        BlkdevId = channel.BlkdevId,
        BackendId = channel.BackendId,
        State = channel.State,
        Epoch = channel.Epoch,
        Outstanding = channel.Outstanding,
        Quarantined = channel.Quarantined,
        HostId = channel.HostId,
    };

    public ChannelDescription ToDescription() => new()
    {
        ChannelId = ChannelId,
        BlkdevId = BlkdevId,
        BackendId = BackendId,
        HostId = HostId,
        State = State,
        Epoch = Epoch,
        Outstanding = Outstanding,
        Quarantined = Quarantined,
    };
}
