using System.Collections.Concurrent;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Clients with many requests in flight, while one process hands over to the next again and again.</summary>
[Collection("environment of a store")]
public sealed class NbdHandoverLoadTests : IDisposable
{
    private const int Handovers = 25;

    private readonly NbdHandoverWorkers _workers = new() { Queues = 2 };

    public void Dispose() => _workers.Dispose();

    [Fact]
    public async Task Every_reply_comes_once_and_the_data_is_right()
    {
        const int clients = 4;
        using TestDevice device = TestDevice.OfSize(clients * Load.Bytes);
        _workers.Start(device);
        Load[] loads = [.. Enumerable.Range(0, clients).Select(number => new Load(_workers.Path, number))];
        Task[] running = [.. loads.SelectMany(static load => load.Run())];
        var random = new Random(7);
        for (int i = 0; i < Handovers; i++)
        {
            int answered = loads.Sum(static load => load.Answered);
            NbdTestServer.Until(() => loads.Sum(static load => load.Answered) > answered + random.Next(20, 400) || running.Any(static task => task.IsFaulted), "the load goes on");
            _workers.ParkAndStart(device);
        }

        foreach (Load load in loads)
            load.End();
        await Task.WhenAll(running).WaitAsync(TimeSpan.FromSeconds(180), TestContext.Current.CancellationToken);
        Assert.DoesNotContain("disconnected", _workers.Log, StringComparison.Ordinal);
        Assert.Equal(Handovers, _workers.Log.Split('\n').Count(static line => line.Contains("4 client(s) of the process before go on", StringComparison.Ordinal)));
        foreach (Load load in loads)
            load.Dispose();
    }

    /// <summary>One client: each place of its own is written, read back and compared, in turn, all of them at once.</summary>
    private sealed class Load(string path, int number) : IDisposable
    {
        internal const int Bytes = Places * PlaceBytes;
        private const int Places = 40;
        private const int PlaceBytes = 320 << 10;

        private readonly NbdTestClient _client = NbdTestClient.Go(path);
        private readonly BlockingCollection<int> _free = [.. Enumerable.Range(0, Places)];
        private readonly ConcurrentDictionary<ulong, (int Place, byte[] Data, bool IsRead)> _flying = [];
        private readonly byte[]?[] _written = new byte[]?[Places];
        private readonly ManualResetEventSlim _sent = new();
        private volatile bool _ending;
        private int _answered;

        internal int Answered => Volatile.Read(ref _answered);

        internal IEnumerable<Task> Run() =>
        [
            Task.Factory.StartNew(SendAll, TestContext.Current.CancellationToken, TaskCreationOptions.LongRunning, TaskScheduler.Default),
            Task.Factory.StartNew(ReceiveAll, TestContext.Current.CancellationToken, TaskCreationOptions.LongRunning, TaskScheduler.Default),
        ];

        internal void End() => _ending = true;

        public void Dispose() => _client.Dispose();

        private void SendAll()
        {
            var random = new Random(number);
            ulong handle = (ulong)number << 32;
            while (!_ending)
            {
                if (!_free.TryTake(out int place, 100))
                    continue;
                handle++;
                long offset = ((long)number * Bytes) + ((long)place * PlaceBytes);
                if (_written[place] is { } data)
                {
                    _flying[handle] = (place, data, true);
                    _client.SendRequest(NbdCommand.Read, handle, offset, (ulong)data.Length);
                    continue;
                }

                data = new byte[512 * random.Next(1, random.Next(4) == 0 ? PlaceBytes / 512 : 16)];
                random.NextBytes(data);
                _flying[handle] = (place, data, false);
                _client.SendRequest(NbdCommand.Write, handle, offset, (ulong)data.Length, payload: data);
            }

            _sent.Set();
        }

        private void ReceiveAll()
        {
            while (!_sent.IsSet || !_flying.IsEmpty)
            {
                if (_flying.IsEmpty)
                    continue;
                (NbdError error, ulong handle) = _client.ReadReply();
                Assert.Equal(NbdError.None, error);
                Assert.True(_flying.TryRemove(handle, out (int Place, byte[] Data, bool IsRead) request), $"{handle:x} is answered and was not asked, or was answered before");
                if (request.IsRead)
                    Assert.True(_client.Read(request.Data.Length).AsSpan().SequenceEqual(request.Data), $"place {request.Place} has what was not written");
                _written[request.Place] = request.IsRead ? null : request.Data;
                Interlocked.Increment(ref _answered);
                _free.Add(request.Place);
            }
        }
    }
}
