using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Cbd.Host;
using Cbd.Memory.Store;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>One process of a daemon after the other that serves the device 'vm-1' at one address, as far as its NBD export is concerned.</summary>
internal sealed class NbdHandoverWorkers : IDisposable
{
    internal const string Device = "vm-1";

    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-nbd-").FullName;
    private readonly List<string> _log = [];
    private KeptSockets? _kept;
    private NbdExport? _export;

    internal NbdHandoverWorkers(int capacity = 256) => Store = new NbdTestStore(capacity);

    internal NbdTestStore Store { get; }

    internal string Path => System.IO.Path.Combine(_directory, "s");

    internal NbdExport Export => _export!;

    internal SocketOptions Options { get; set; } = new() { HandshakeSeconds = 300, Device = Device };

    /// <summary>A busy machine must not matter, except where time is what a test is about.</summary>
    internal ClientPatience Patience { get; set; } = NbdTestServer.Endless with { ParkMs = 120_000 };

    internal int Queues { get; set; } = 1;

    internal int Believed { get; set; } = 256;

    internal string Log
    {
        get
        {
            lock (_log)
                return string.Join('\n', _log);
        }
    }

    /// <summary>The next process starts and serves.</summary>
    internal void Start(IBlockDevice device)
    {
        Open();
        _export!.Serve(device, Queues, PollMode.Adaptive);
    }

    /// <summary>The next process has got so far that it could serve.</summary>
    internal void Open()
    {
        _kept = Store.NextProcess(Say, Believed);
        _export = new NbdExportFactory(Say, kept: _kept) { Patience = Patience }.OpenNbd("unix:" + Path, Options);
        _export.KeepFor(Device);
    }

    /// <summary>Hands over, and ends the process.</summary>
    internal void Park()
    {
        Assert.True(_export!.TryPark());
        End();
    }

    internal void ParkAndStart(IBlockDevice device)
    {
        Park();
        Start(device);
    }

    /// <summary>The process is told that nobody wants the device any more.</summary>
    internal void CloseUnwanted() => _kept!.CloseUnwanted(static _ => false);

    internal void End()
    {
        _export?.Dispose();
        _export = null;
        _kept?.Dispose();
        _kept = null;
    }

    public void Dispose()
    {
        End();
        Store.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private void Say(string message)
    {
        lock (_log)
            _log.Add(message);
    }
}
