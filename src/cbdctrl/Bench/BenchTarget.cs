using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>What is measured: a device, and the other side's use of CPU time and memory where that can be known.</summary>
internal abstract class BenchTarget : IDisposable
{
    /// <summary>What it is, for the report.</summary>
    public abstract string Name { get; }

    public abstract IBlockDevice Device { get; }

    /// <summary>What the serving side used so far; null where it runs elsewhere.</summary>
    public abstract ServerUse? Server();

    public abstract void Dispose();
}

/// <summary>CPU time, µs, and managed memory allocated, bytes (null where it cannot be known), so far.</summary>
internal readonly record struct ServerUse(long CpuMicroseconds, long? AllocatedBytes);

/// <summary>A backend of a region, through a blkdev of this process.</summary>
internal sealed class BackendTarget : BenchTarget
{
    private readonly IControl _control;
    private readonly int _transport;
    private readonly int _backend;
    private readonly LocalHost _host;
    private readonly LocalBlkdev _blkdev;

    public BackendTarget(IControl control, int transport, int backend, int queues, bool readOnly)
    {
        _control = control;
        _transport = transport;
        _backend = backend;
        TransportDescription region = control.Execute(Operations.GetTransport, new TransportTarget { Transport = transport });
        Name = $"backend {backend} of {region.Path}, payload CRC {(region.PayloadCrc ? "on" : "off")}";
        _host = LocalHost.Join(region.Path, new LocalHostOptions { Name = $"cbdctrl-bench-{Environment.ProcessId}" });
        try
        {
            _blkdev = _host.OpenBlkdev(backend, queues, readOnly);
        }
        catch
        {
            _host.Dispose();
            throw;
        }
    }

    public override string Name { get; }

    public override IBlockDevice Device => _blkdev;

    public override ServerUse? Server()
    {
        foreach (BackendDescription backend in _control.Execute(Operations.ListBackends, new ListRequest { Transport = _transport }))
        {
            if (backend.BackendId == _backend)
                return backend.CpuUs is { } cpu ? new ServerUse(cpu, backend.AllocatedBytes) : null;
        }

        return null;
    }

    public override void Dispose()
    {
        try
        {
            _blkdev.Dispose();
        }
        finally
        {
            _host.Dispose();
        }
    }
}
