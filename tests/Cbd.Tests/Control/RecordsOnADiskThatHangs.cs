using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Cbd.Tests.Host;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Who only looks does not wait for the disk of the record.</summary>
public sealed class RecordsOnADiskThatHangs : IRecordMedium, IDisposable
{
    private readonly WrittenLog _log = new();
    private readonly ListedNode _node = new();
    private readonly ManualResetEventSlim _hangs = new();
    private readonly ManualResetEventSlim _goOn = new();
    private readonly StateRecord _record;
    private readonly RecordingControl _daemon;
    private volatile bool _isHanging;

    public RecordsOnADiskThatHangs()
    {
        _record = new StateRecord(this, _log.CreateLogger("cbdd"), []);
        _daemon = PatientDaemon.Control(new InterceptedControl(_node, request =>
        {
            if (request is StartBackendOptions { Path: "/dev/sda" } start)
            {
                start.Limit!.Check("its disk is looked for");
                _goOn.Wait();
            }

            return request;
        }), _record);
    }

    void IRecordMedium.Write(IReadOnlyList<StateEntry> entries)
    {
        if (!_isHanging)
            return;
        _hangs.Set();
        _goOn.Wait();
    }

    public void Dispose()
    {
        _goOn.Set();
        Eventually.True(() => _record.Entries.All(e => e.Intent is null));
        _hangs.Dispose();
    }

    private static T Answer<T>(Func<T> look) => Eventually.Result(Task.Factory.StartNew(look, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default));

    [Fact]
    public void Answer_lists()
    {
        _daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        _daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        _daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        _node.Execute(Operations.StopBackend, new StopRequest { Id = 0 });
        _record.SetBackendPending("/r", 0, "its disk is gone");
        Task start = Start("/dev/sda");
        Eventually.True(() => _record.Entries.Any(e => e.Intent == StateIntent.Starting) && _record.WaitsOf(_record.Entries[^1].Number) is not null);
        _isHanging = true;
        Task second = Start("/dev/sdc");
        _hangs.Wait(TestContext.Current.CancellationToken);

        Assert.Equal(["/r"], Answer(() => _daemon.Execute(Operations.ListTransports, new ControlRequest())).Select(t => t.Path));
        Assert.Contains("its disk is gone", Answer(() => _daemon.Execute(Operations.ListBackends, new ListRequest())).Select(b => b.Reason));
        Assert.Equal(["cbd0"], Answer(() => _daemon.Execute(Operations.ListDevices, new ListRequest())).Select(d => d.Name));
        Assert.Equal(["cbd0"], Answer(_record.KernelNames));
        // What is not on the disk yet is not there yet.
        Assert.Equal(
            [("/r", null), ("/dev/sdb", "its disk is gone"), ("cbd0", null), ("/dev/sda", "it is being started: its disk is looked for")],
            Answer(() => _daemon.Execute(Operations.ListWanted, new ControlRequest())).Things.Select(t => (t.Name, t.Reason)));
        _goOn.Set();
        Eventually.True(() => start.IsCompleted && second.IsCompleted);

        Task Start(string disk) => Task.Factory.StartNew(
            () => _daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = disk }), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
    }
}
