using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>Of which channels the flight recorders are wanted; what is null does not narrow it.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record FlightFilter : TransportTarget
{
    /// <summary>Channels of this device of this host.</summary>
    public int? Device { get; set; }

    /// <summary>Channels to this backend, of this host's handlers and devices.</summary>
    public int? Backend { get; set; }
    public int? Channel { get; set; }

    internal override void CheckValues()
    {
        Rules.CheckId(Device, "device");
        Rules.CheckId(Backend, "backend");
        Rules.CheckId(Channel, "channel");
    }
}

/// <summary>The last events of one side of one channel, oldest first.</summary>
public sealed record FlightDescription
{
    public required int TransportId { get; init; }
    public required int ChannelId { get; init; }

    /// <summary>"queue" or "handler".</summary>
    public required string Side { get; init; }
    public required int BackendId { get; init; }

    /// <summary>The queue's device; −1 for a handler, which may have served several in turn.</summary>
    public required int BlkdevId { get; init; }

    /// <summary>Events recorded so far; the last of them are in <see cref="Events"/>.</summary>
    public required long Recorded { get; init; }
    public required IReadOnlyList<FlightEventDescription> Events { get; init; }
}

/// <summary>
/// One event. The time is UTC and a few milliseconds coarse. For commands and answers: <paramref name="Operation"/> (empty
/// where it cannot be told), offset and length in bytes, sequence, tag and, for answers, the errno; for the channel's life
/// <paramref name="Detail"/> may say why. Texts are empty and numbers 0 where an event has none.
/// </summary>
public sealed record FlightEventDescription(
    DateTime Time,
    string Event,
    ulong Epoch,
    ulong Sequence,
    string Operation,
    string Flags,
    long Offset,
    long Length,
    int Tag,
    int Error,
    string Detail);
