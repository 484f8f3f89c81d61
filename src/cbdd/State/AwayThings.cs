using Cbd.Host.Wanted;

namespace Cbd.Programs.Daemon.State;

/// <summary>Something that is wanted and not there.</summary>
/// <param name="Entry">As the record has it.</param>
/// <param name="State">"waiting", "held" or "failed".</param>
/// <param name="Since">When it came into that state, UTC.</param>
internal readonly record struct AwayThing(StateEntry Entry, string State, DateTime Since)
{
    public string Reason => WantedList.ReasonOf(Entry);
}

/// <summary>Lists of a host with what is wanted and not there, which has no id, at their end.</summary>
internal static class AwayThings
{
    private const int None = -1;

    /// <summary>Nobody can be asked whether it lives.</summary>
    private const string Unknown = "unknown";

    public static IReadOnlyList<TransportDescription> Add(IReadOnlyList<TransportDescription> there, StateRecord record) =>
        [.. there, .. record.Away().Where(a => a.Entry.Transport is { } wanted && !there.Any(t => t.Path == wanted.Region)).Select(Transport)];

    /// <param name="there">The list.</param>
    /// <param name="record">What is wanted.</param>
    /// <param name="on">The transport that it is of.</param>
    public static IReadOnlyList<BackendDescription> Add(IReadOnlyList<BackendDescription> there, StateRecord record, TransportDescription on) =>
    [
        .. there,
        .. record.Away()
            .Where(a => a.Entry.Backend is { } wanted && wanted.Region == on.Path && !there.Any(b => b.HostId == on.HostId && b.Alive == "alive" && (b.Path == wanted.Path || (b.Name is not null && b.Name == wanted.Name))))
            .Select(a => Backend(a, on)),
    ];

    /// <inheritdoc cref="Add(IReadOnlyList{BackendDescription}, StateRecord, TransportDescription)"/>
    public static IReadOnlyList<DeviceDescription> Add(IReadOnlyList<DeviceDescription> there, StateRecord record, TransportDescription on) =>
    [
        .. there,
        .. record.Away()
            .Where(a => a.Entry.Device is { } wanted && wanted.Region == on.Path && !there.Any(d => d.HostId == on.HostId && d.Name is not null && d.Name == wanted.Name))
            .Select(a => Device(a, on)),
    ];

    private static TransportDescription Transport(AwayThing away) => new()
    {
        TransportId = None,
        Magic = 0,
        Version = 0,
        Flags = 0,
        HostAreaOffset = 0,
        BytesPerHost = 0,
        HostCount = 0,
        BackendAreaOffset = 0,
        BytesPerBackend = 0,
        BackendCount = 0,
        BlkdevAreaOffset = 0,
        BytesPerBlkdev = 0,
        BlkdevCount = 0,
        ChannelAreaOffset = 0,
        BytesPerChannel = 0,
        ChannelCount = 0,
        HostId = None,
        MyHostId = None,
        Path = away.Entry.Region,
        Coherence = away.Entry.Transport!.Coherence ?? "",
        Uuid = away.Entry.Transport.Uuid ?? Guid.Empty,
        HostName = away.Entry.Transport.Host,
        SizeBytes = 0,
        RingSlots = 0,
        PayloadCrc = false,
        Failure = away.Reason,
        State = away.State,
        Reason = away.Reason,
        Since = away.Since,
    };

    private static BackendDescription Backend(AwayThing away, TransportDescription on)
    {
        var wanted = away.Entry.Backend!;
        return new()
        {
            BackendId = None,
            HostId = on.HostId,
            Name = wanted.Name,
            Path = wanted.Path,
            DiskIdentity = wanted.DiskIdentity ?? "",
            Alive = Unknown,
            Blkdevs = [],
            State = away.State,
            SizeBytes = 0,
            BlockBytes = wanted.BlockSize ?? 0,
            ReadOnly = wanted.ReadOnly,
            Handlers = wanted.Handlers,
            Engine = wanted.Engine,
            FlushError = 0,
            Reason = away.Reason,
            Since = away.Since,
        };
    }

    private static DeviceDescription Device(AwayThing away, TransportDescription on)
    {
        var wanted = away.Entry.Device!;
        return new()
        {
            BlkdevId = None,
            HostId = on.HostId,
            BackendId = None,
            Name = wanted.Name,
            Address = "",
            Node = "",
            Alive = Unknown,
            State = away.State,
            Queues = wanted.Queues ?? 0,
            SizeBytes = 0,
            ReadOnly = wanted.ReadOnly,
            OnBackendLoss = LossText.Parse(wanted.OnBackendLoss ?? LossText.Queue),
            LossTimeoutSeconds = wanted.LossTimeout ?? 0,
            Reason = away.Reason,
            Since = away.Since,
        };
    }
}
