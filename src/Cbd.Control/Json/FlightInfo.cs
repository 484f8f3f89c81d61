using Cbd.Host;

namespace Cbd.Control.Json;

/// <summary>The last events of one side of one channel. <c>side</c> is "queue" or "handler"; <c>blkdev_id</c> −1 for a handler.</summary>
internal sealed record FlightInfo
{
    public required int TransportId { get; init; }
    public required int ChannelId { get; init; }
    public required string Side { get; init; }
    public required int BackendId { get; init; }
    public required int BlkdevId { get; init; }

    /// <summary>Events recorded so far; the last of them are in <c>events</c>.</summary>
    public required long Recorded { get; init; }
    public required IReadOnlyList<FlightEventInfo> Events { get; init; }

    public static FlightInfo From(FlightDescription flight) => new()
    {
        TransportId = flight.TransportId,
        ChannelId = flight.ChannelId,
        Side = flight.Side,
        BackendId = flight.BackendId,
        BlkdevId = flight.BlkdevId,
        Recorded = flight.Recorded,
        Events = [.. flight.Events.Select(FlightEventInfo.From)],
    };

    public FlightDescription ToDescription() => new()
    {
        TransportId = TransportId,
        ChannelId = ChannelId,
        Side = Side,
        BackendId = BackendId,
        BlkdevId = BlkdevId,
        Recorded = Recorded,
        Events = [.. Events.Select(e => e.ToDescription())],
    };
}

/// <summary>
/// One event. <c>time</c> is UTC. <c>operation</c>, <c>flags</c> and <c>detail</c> are empty, numbers 0, where an event has
/// none.
/// </summary>
internal sealed record FlightEventInfo
{
    public required DateTime Time { get; init; }
    public required string Event { get; init; }
    public required ulong Epoch { get; init; }
    public required ulong Sequence { get; init; }
    public required string Operation { get; init; }
    public required string Flags { get; init; }
    public required long Offset { get; init; }
    public required long Length { get; init; }
    public required int Tag { get; init; }
    public required int Error { get; init; }
    public required string Detail { get; init; }

    public static FlightEventInfo From(FlightEventDescription e) => new()
    {
        Time = e.Time,
        Event = e.Event,
        Epoch = e.Epoch,
        Sequence = e.Sequence,
        Operation = e.Operation,
        Flags = e.Flags,
        Offset = e.Offset,
        Length = e.Length,
        Tag = e.Tag,
        Error = e.Error,
        Detail = e.Detail,
    };

    public FlightEventDescription ToDescription() =>
        new(Time, Event, Epoch, Sequence, Operation, Flags, Offset, Length, Tag, Error, Detail);
}
