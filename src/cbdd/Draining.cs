using Cbd.Host;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>The end of a daemon: everything of it stops, in an order in which it can.</summary>
internal sealed class Draining(INode node, ILogger logger)
{
    /// <summary>
    /// Stops devices and backends, each after what lies on it, then leaves the transports, so that every entry is free again. The
    /// record keeps them: they are what the next daemon starts again. True if all of it went.
    /// </summary>
    public static bool Drain(INode node, ILogger logger) => new Draining(node, logger).Run();

    private bool Run()
    {
        var isClean = true;
        var transports = node.ListTransports().Select(t => t.TransportId).ToList();
        var devices = new List<(int Transport, DeviceDescription Device)>();
        var backends = new List<(int Transport, BackendDescription Backend)>();
        foreach (var id in transports)
        {
            var own = new ListRequest { Transport = id };
            devices.AddRange((Try(() => node.Execute(Operations.ListDevices, own), ref isClean) ?? []).Select(d => (id, d)));
            backends.AddRange((Try(() => node.Execute(Operations.ListBackends, own), ref isClean) ?? []).Select(b => (id, b)));
        }

        // A backend's disk may lie on a device of another transport. Nothing goes round in a circle, but what is at its end ends too.
        while (devices.Count + backends.Count > 0)
        {
            var free = devices.Where(d => d.Device.Node.Length == 0 || !backends.Exists(b => node.LiesOn(b.Backend.Path, d.Device.Node))).ToList();
            if (free.Count == 0 && !backends.Exists(IsFree))
                free = [.. devices];
            foreach (var (id, device) in free)
            {
                devices.Remove((id, device));
                var stop = new StopRequest { Transport = id, Id = device.BlkdevId, Force = true };
                isClean &= Try($"device {device.BlkdevId}", () => node.Execute(Operations.StopDevice, stop).ThrowIfStopping());
            }

            foreach (var (id, backend) in backends.Where(IsFree).ToList())
            {
                backends.Remove((id, backend));
                isClean &= Try($"backend {backend.BackendId}", () => node.LeaveBackend(id, backend.BackendId));
            }
        }

        foreach (var id in transports)
            isClean &= Try($"transport {id}", () => node.LeaveTransport(id));
        return isClean;

        bool IsFree((int Transport, BackendDescription Backend) b) => !devices.Exists(d => d.Transport == b.Transport && d.Device.BackendId == b.Backend.BackendId);
    }

    private bool Try(string what, Action stop)
    {
        try
        {
            stop();
            return true;
        }
        catch (CbdException e)
        {
            logger.LogError("{What} is not stopped: {Reason}", what, e.Message);
            return false;
        }
    }

    private T? Try<T>(Func<T> list, ref bool isClean)
        where T : class
    {
        T? items = null;
        isClean &= Try("a list", () => items = list());
        return items;
    }
}
