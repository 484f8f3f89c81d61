using Cbd.Blocks;
using Cbd.Host;
using Cbd.Protocol.Channels;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class The_text_of_a_flight_recorder
{
    private readonly FlightRecorder _recorder = new(4);

    [Fact]
    public void Has_a_line_for_each_event_with_what_is_known_of_it()
    {
        long now = MonotonicClock.Microseconds;
        _recorder.Life(FlightEventKind.Attached, now, 7);
        _recorder.Command(FlightEventKind.Issued, now, 7, 1, BlockOperation.Write, BlockFlags.ForceUnitAccess, 4096, 8192, 3);
        _recorder.Answer(FlightEventKind.Completed, now, 7, 1, 3, 5);
        // The command of this answer is not among the last ones any more.
        _recorder.Answer(FlightEventKind.Completed, now, 7, 9, 2, 0);
        _recorder.Life(FlightEventKind.Reset, now, 8, "the backend has another session");
        string[] lines = Lines("queue", 1);
        Assert.Equal("transport 0, channel 4, queue of device 1 on backend 2: 5 events, the last 5:", lines[0]);
        Assert.Equal(
            [
                "epoch 7  attached",
                "epoch 7  issued             1 tag 3    write+fua 4096+8192",
                "epoch 7  completed          1 tag 3    write+fua 4096+8192 errno 5",
                "epoch 7  completed          9 tag 2",
                "epoch 8  reset       the backend has another session",
            ],
            lines[1..].Select(line => line[(line.IndexOf("Z  ", StringComparison.Ordinal) + 3)..]));
        Assert.All(lines[1..], line => Assert.Matches(@"^  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  epoch ", line));
    }

    [Theory]
    [InlineData(BlockOperation.Read, BlockFlags.None, "read 0+512")]
    [InlineData(BlockOperation.Flush, BlockFlags.None, "flush 0+512")]
    [InlineData(BlockOperation.Discard, BlockFlags.None, "discard 0+512")]
    [InlineData(BlockOperation.WriteZeroes, BlockFlags.NoUnmap | BlockFlags.FastZero, "write-zeroes+no-unmap+fast-zero 0+512")]
    [InlineData(BlockOperation.BlockStatus, BlockFlags.None, "block-status 0+512")]
    [InlineData(BlockOperation.Cache, BlockFlags.None, "cache 0+512")]
    public void Names_operations_and_flags(BlockOperation operation, BlockFlags flags, string text)
    {
        _recorder.Command(FlightEventKind.Fetched, 1, 1, 1, operation, flags, 0, 512, 0);
        string[] lines = Lines("handler", -1);
        Assert.Equal("transport 0, channel 4, handler of backend 2: 1 events, the last 1:", lines[0]);
        Assert.EndsWith($" tag 0    {text}", lines[1], StringComparison.Ordinal);
    }

    [Fact]
    public void Has_the_time_of_day_of_an_event()
    {
        DateTime before = DateTime.UtcNow.AddSeconds(-30);
        _recorder.Life(FlightEventKind.Offered, MonotonicClock.Microseconds, 1);
        FlightEventDescription described = Assert.Single(FlightText.Describe(_recorder, 0, "queue", 2, 1).Events);
        Assert.InRange(described.Time, before, DateTime.UtcNow.AddSeconds(30));
    }

    private string[] Lines(string side, int blkdev)
    {
        var text = new StringWriter();
        FlightText.Write(text, [FlightText.Describe(_recorder, 0, side, 2, blkdev)]);
        return text.ToString().TrimEnd('\n').Split('\n');
    }
}
