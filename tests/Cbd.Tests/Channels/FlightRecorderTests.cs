using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Channels;

public class FlightRecorderTests
{
    private static BlockRequest Write(NativeBuffer buffer, long offset, BlockFlags flags = BlockFlags.None) =>
        new(1, BlockOperation.Write, flags, offset, 4096, new BufferSlice(buffer, 0, 4096));

    [Fact]
    public void Both_sides_keep_what_a_request_went_through()
    {
        using var bench = new ChannelBench();
        using var buffer = new NativeBuffer(4096);
        bench.Attach();
        Assert.True(bench.Queue.TrySubmit(Write(buffer, 8192, BlockFlags.ForceUnitAccess)));
        bench.Finish();
        FlightEvent[] queue = [.. bench.Queue.Flight.Read()];
        FlightEvent[] handler = [.. Assert.Single(bench.Group.Flights).Read()];
        Assert.Equal([FlightEventKind.Offered, FlightEventKind.Attached, FlightEventKind.Issued, FlightEventKind.Completed], queue.Select(e => e.Kind));
        Assert.Equal([FlightEventKind.Attached, FlightEventKind.Fetched, FlightEventKind.Answered], handler.Select(e => e.Kind));
        Assert.Equal(4, bench.Queue.Flight.Recorded);
        foreach (FlightEvent command in queue[2..].Concat(handler[1..]))
        {
            Assert.Equal(bench.Word.Epoch, command.Epoch);
            Assert.Equal(
                (1ul, BlockOperation.Write, BlockFlags.ForceUnitAccess, 8192L, 4096L, 0),
                (command.Sequence, command.Operation, command.Flags, command.Offset, command.Length, command.Error));
        }

        // The offer was before the first Poll.
        Assert.All(queue, e => Assert.True(e.TimeMicroseconds > 0));
    }

    [Fact]
    public void Errors_and_what_made_a_channel_fail_are_kept()
    {
        using var bench = new ChannelBench(disk: "null:1M");
        bench.Attach();
        bench.StoreCommand(new CommandLine(1, bench.Word.Epoch, BlockOperation.Read, BlockFlags.None, 1 << 20, 4096, 0, 4096, 0, 5));
        bench.Group.Poll(77);
        bench.StoreCommand(new CommandLine(2, bench.Word.Epoch, (BlockOperation)99, BlockFlags.None, 0, 4096, 0, 0, 0, 6));
        bench.Group.Poll(78);
        FlightEvent[] handler = [.. bench.Group.Flights[0].Read()];
        Assert.Contains(handler, e => e is { Kind: FlightEventKind.Answered, Sequence: 1, Error: Errno.EINVAL, Tag: 5, Operation: BlockOperation.Read, TimeMicroseconds: 77 });
        Assert.Contains(handler, e => e.Kind == FlightEventKind.Failed && e.Detail.Contains("operation 99", StringComparison.Ordinal));
    }

    [Fact]
    public void Life_of_the_channel_is_kept_among_many_commands_and_the_last_commands_are()
    {
        using var bench = new ChannelBench();
        using var buffer = new NativeBuffer(4096);
        bench.Attach();
        const int Requests = FlightRecorder.CommandCount;
        for (int i = 0; i < Requests; i++)
        {
            Assert.True(bench.Queue.TrySubmit(Write(buffer, i * 4096L)));
            bench.Finish();
        }

        FlightEvent[] queue = [.. bench.Queue.Flight.Read()];
        Assert.Equal(2 * Requests + 2, bench.Queue.Flight.Recorded);
        Assert.Equal([FlightEventKind.Offered, FlightEventKind.Attached], queue[..2].Select(e => e.Kind));
        // The one that might be stored at this moment is left out.
        Assert.Equal(FlightRecorder.CommandCount - 1, queue.Length - 2);
        Assert.Equal((Requests - 1) * 4096L, queue[^1].Offset);
        Assert.Equal((ulong)Requests, queue[^1].Sequence);
    }

    [Fact]
    public void Recording_a_command_allocates_nothing()
    {
        using var bench = new ChannelBench();
        using var buffer = new NativeBuffer(4096);
        var completions = new BlockCompletion[4];
        bench.Attach();
        Run(100);
        Allocations.None(() => Run(2000));

        void Run(int count)
        {
            for (int i = 0; i < count; i++)
            {
                Assert.True(bench.Queue.TrySubmit(Write(buffer, 0)));
                int done = 0;
                while (done == 0)
                {
                    bench.Group.Poll(5);
                    done = bench.PollQueue(completions);
                }
            }
        }
    }

    [Fact]
    public void Readers_see_whole_events_while_another_thread_records()
    {
        var recorder = new FlightRecorder(3);
        bool stop = false;
        var writer = new Thread(() =>
        {
            for (uint i = 1; !Volatile.Read(ref stop); i++)
                recorder.Command(FlightEventKind.Issued, i, 1, i, BlockOperation.Read, BlockFlags.None, i * 512L, 512, (ushort)i);
        });
        writer.Start();
        try
        {
            for (int round = 0; round < 300; round++)
            {
                ulong last = 0;
                foreach (FlightEvent found in recorder.Read())
                {
                    Assert.Equal((found.Sequence, (long)found.Sequence * 512, (ushort)found.Sequence), ((ulong)found.TimeMicroseconds, found.Offset, (ushort)found.Tag));
                    Assert.True(found.Sequence == last + 1 || last == 0);
                    last = found.Sequence;
                }
            }
        }
        finally
        {
            Volatile.Write(ref stop, true);
            writer.Join();
        }
    }

    [Fact]
    public void Epochs_are_whole_though_commands_keep_their_low_bits()
    {
        var recorder = new FlightRecorder(0);
        recorder.Life(FlightEventKind.Attached, 1, 0xFFFFF);
        recorder.Command(FlightEventKind.Issued, 2, 0xFFFFF, 1, BlockOperation.Read, BlockFlags.None, 0, 512, 0);
        recorder.Life(FlightEventKind.Reset, 3, 0x100000, "nobody fetches a command");
        recorder.Command(FlightEventKind.Reissued, 4, 0x100000, 1, BlockOperation.Read, BlockFlags.None, 0, 512, 0);
        Assert.Equal([0xFFFFFul, 0xFFFFF, 0x100000, 0x100000], recorder.Read().Select(e => e.Epoch));
    }

    [Fact]
    public void Lengths_beyond_what_fits_are_the_largest()
    {
        var recorder = new FlightRecorder(0);
        recorder.Command(FlightEventKind.Issued, 2, 1, 1, BlockOperation.Discard, BlockFlags.None, 0, long.MaxValue, 0);
        Assert.Equal((long)uint.MaxValue << 9, recorder.Read()[0].Length);
    }

    [Fact]
    public void Text_has_a_line_for_each_event()
    {
        var text = new StringWriter();
        FlightText.Write(text,
        [
            new FlightDescription
            {
                TransportId = 0, ChannelId = 4, Side = "queue", BackendId = 2, BlkdevId = 1, Recorded = 700,
                Events =
                [
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 6, DateTimeKind.Utc), "issued", 9, 12, "write", "fua", 8192, 4096, 3, 0, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 7, DateTimeKind.Utc), "completed", 9, 12, "", "", 0, 0, 3, 5, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 8, DateTimeKind.Utc), "reset", 10, 0, "", "", 0, 0, 0, 0, "why"),
                ],
            },
        ]);
        Assert.Equal(
            """
            transport 0, channel 4, queue of device 1 on backend 2: 700 events, the last 3:
              2026-01-02T03:04:05.006Z  epoch 9  issued            12 tag 3    write+fua 8192+4096
              2026-01-02T03:04:05.007Z  epoch 9  completed         12 tag 3    errno 5
              2026-01-02T03:04:05.008Z  epoch 10  reset       why

            """,
            text.ToString());
    }
}
