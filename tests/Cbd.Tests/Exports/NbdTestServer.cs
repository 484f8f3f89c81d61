using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>An export on a Unix socket in a directory of its own. Where time is not what a test is about, a busy machine must not matter.</summary>
internal sealed class NbdTestServer : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-nbd-").FullName;
    private readonly List<string> _log = [];

    internal static readonly ClientPatience Endless = new() { RateLooks = 600, LastRepliesSeconds = 600, TlsLingerMs = 120_000, StopSeconds = 120 };

    internal NbdTestServer(IBlockDevice device, int queues = 1, int handshakeSeconds = 300, ClientPatience? patience = null)
    {
        Path = System.IO.Path.Combine(_directory, "s");
        Export = new NbdExportFactory(message =>
        {
            lock (_log)
                _log.Add(message);
        })
        {
            Patience = patience ?? Endless,
        }.OpenNbd("unix:" + Path, new SocketOptions { HandshakeSeconds = handshakeSeconds });
        Export.Serve(device, queues, PollMode.Adaptive);
    }

    internal string Path { get; }

    internal NbdExport Export { get; }

    internal string Log
    {
        get
        {
            lock (_log)
                return string.Join('\n', _log);
        }
    }

    internal NbdTestClient Connect() => NbdTestClient.Go(Path);

    /// <summary>Waits until something that the server does by itself has happened. The limit is for a test that would hang.</summary>
    internal static void Until(Func<bool> condition, string what) =>
        Assert.True(SpinWait.SpinUntil(condition, TimeSpan.FromSeconds(180)), $"never happened: {what}");

    public void Dispose()
    {
        Export.Dispose();
        Directory.Delete(_directory, recursive: true);
    }
}
