using System.Globalization;
using System.Text;
using Cbd.Blocks;
using Cbd.Protocol.Channels;

namespace Cbd.Host;

/// <summary>Flight recorders for people to read: one line per event.</summary>
internal static class FlightText
{
    /// <summary>Describes what a recorder holds.</summary>
    internal static FlightDescription Describe(FlightRecorder recorder, int transport, string side, int backend, int blkdev)
    {
        long recorded = recorder.Recorded;
        IReadOnlyList<FlightEvent> events = recorder.Read();
        // The recorder's clock and this one count alike, so that only their difference to the time of day is needed.
        DateTime zero = DateTime.UtcNow - TimeSpan.FromMicroseconds(MonotonicClock.Microseconds);
        return new FlightDescription
        {
            TransportId = transport,
            ChannelId = recorder.Channel,
            Side = side,
            BackendId = backend,
            BlkdevId = blkdev,
            Recorded = recorded,
            Events = [.. events.Select(e => new FlightEventDescription(
                zero + TimeSpan.FromMicroseconds(e.TimeMicroseconds), e.Kind.ToString().ToLowerInvariant(), e.Epoch, e.Sequence,
                Name(e.Operation), Name(e.Flags), e.Offset, e.Length, e.Tag, e.Error, e.Detail))],
        };
    }

    /// <summary>Writes the recorders, each with a line that says whose it is.</summary>
    public static void Write(TextWriter writer, IEnumerable<FlightDescription> flights)
    {
        foreach (FlightDescription flight in flights)
        {
            string of = flight.BlkdevId >= 0 ? $"queue of device {flight.BlkdevId} on backend {flight.BackendId}" : $"handler of backend {flight.BackendId}";
            writer.Write($"transport {flight.TransportId}, channel {flight.ChannelId}, {of}: {flight.Recorded} events, the last {flight.Events.Count}:\n");
            foreach (FlightEventDescription line in flight.Events)
                writer.Write(Line(line));
        }
    }

    private static string Line(FlightEventDescription e)
    {
        var text = new StringBuilder(128);
        text.Append(CultureInfo.InvariantCulture, $"  {e.Time:yyyy-MM-dd'T'HH:mm:ss.fff'Z'}  epoch {e.Epoch}  {e.Event,-11}");
        if (e.Sequence > 0)
        {
            text.Append(CultureInfo.InvariantCulture, $" {e.Sequence,8} tag {e.Tag,-4}");
            if (e.Operation.Length > 0)
                text.Append(CultureInfo.InvariantCulture, $" {e.Operation}{(e.Flags.Length > 0 ? "+" : "")}{e.Flags} {e.Offset}+{e.Length}");
            if (e.Error != 0)
                text.Append(CultureInfo.InvariantCulture, $" errno {e.Error}");
        }

        if (e.Detail.Length > 0)
            text.Append(' ').Append(e.Detail);
        while (text[^1] == ' ')
            text.Length--;
        return text.Append('\n').ToString();
    }

    private static string Name(BlockOperation operation) => operation switch
    {
        BlockOperation.Read => "read",
        BlockOperation.Write => "write",
        BlockOperation.Flush => "flush",
        BlockOperation.Discard => "discard",
        BlockOperation.WriteZeroes => "write-zeroes",
        BlockOperation.BlockStatus => "block-status",
        BlockOperation.Cache => "cache",
        _ => "",
    };

    private static string Name(BlockFlags flags)
    {
        var names = new List<string>();
        if ((flags & BlockFlags.ForceUnitAccess) != 0)
            names.Add("fua");
        if ((flags & BlockFlags.NoUnmap) != 0)
            names.Add("no-unmap");
        if ((flags & BlockFlags.FastZero) != 0)
            names.Add("fast-zero");
        return string.Join('+', names);
    }
}
