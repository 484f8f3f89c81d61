using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Microsoft.Extensions.Logging;

namespace Cbd.Tests.Control;

/// <summary>A state directory that the record of one life of a daemon is left in, and the next one finds.</summary>
public abstract class LivesOfADaemon : IDisposable
{
    private protected LivesOfADaemon() => Logger = Log.CreateLogger("cbdd");

    private protected TemporaryDirectory Files { get; } = new();

    private protected WrittenLog Log { get; } = new();

    private protected ILogger Logger { get; }

    public void Dispose()
    {
        Files.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>The record as the next life of the daemon has it.</summary>
    private protected StateRecord NextRecord(bool restore = true)
    {
        var file = new StateFile(Files.Path);
        return new StateRecord(file, Logger, [.. file.Read().Select(entry => entry with { Held = restore ? null : "not now" })]);
    }

    private protected static void StartTwoDevices(RecordingControl daemon)
    {
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 });
    }

    private protected static IEnumerable<string> Names(ListedNode node) =>
        node.Execute(Operations.ListDevices, new ListRequest()).Select(d => $"{d.Name} on {d.BackendId}");
}
