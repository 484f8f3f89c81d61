using System.Globalization;
using Cbd.Blocks;
using Cbd.Exports.Kernel;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Host;
using Cbd.Host.Threads;
using Cbd.Host.Attachments;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// One device in this kernel through its NBD client: /dev/nbdN. Each queue has a connection of its own, one half of a
/// socket pair, whose other half the kernel reads and writes.
/// </summary>
internal sealed class KernelNbdAttachment : IKernelAttachment
{
    /// <summary>How long requests wait for new connections when all are gone; then they fail with EIO.</summary>
    private const int DeadConnectionSeconds = 60;

    /// <summary>
    /// How long a request may take where there are several connections. A request waits for its backend, however long
    /// that is away: sent a second time meanwhile, the first could land after a later write to the same place. As long
    /// as fits the kernel's 32-bit count of ticks, of which 2^31 are the future, with up to 1000 a second: 11 days.
    /// </summary>
    private const int LongestRequestSeconds = 1_000_000;

    /// <summary>Clients of a pump: its connection, and the one that comes in its place before that is quite closed.</summary>
    private const int MaxConnectionsPerPump = 2;

    private const int MaxReconnects = 5;
    private const int ReconnectPauseMs = 200;

    private readonly Lock _lock = new();
    private readonly NbdNetlink _netlink;
    private readonly Action<string> _log;
    private readonly string _backend;
    private readonly string _name;
    private IBlockDevice? _device;
    private NbdPump[] _pumps = [];
    private int _number = -1;
    private long _connections;
    private int _reconnects;
    private bool _stopping;
    private volatile string _node = "";

    internal KernelNbdAttachment(NbdNetlink netlink, KernelExportOptions options)
    {
        _netlink = netlink;
        _name = options.Name;
        _backend = KernelNbdOwner.Self(options.Name).Encode();
        _log = message => options.Log($"{options.Name} (nbd): {message}");
    }

    /// <inheritdoc/>
    public string Node => _node;

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        _device = device;
        try
        {
            Start(device, queues, mode);
        }
        catch
        {
            Stop(force: true);
            throw;
        }
    }

    /// <inheritdoc/>
    public void Resize()
    {
        long sizeBytes = _device!.Info.SizeBytes;
        lock (_lock)
            Check(_netlink.Resize(_number, _backend, sizeBytes), $"changing the size of {Node} to {sizeBytes} bytes");
        string path = $"/sys/block/nbd{Number}/size";
        long actual = long.Parse(File.ReadAllText(path), CultureInfo.InvariantCulture) * 512;
        if (actual != sizeBytes)
            throw new CbdException(CbdErrorKind.Unsupported, $"{Node} still has {actual} bytes instead of {sizeBytes}: its kernel changes the size of a connected device from Linux 5.9 on; stop and start the device");
    }

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        lock (_lock)
        {
            _stopping = true;
            if (_number >= 0 && IsStillOurs() && _netlink.Disconnect(_number) is < 0 and var error)
                _log($"{Node} was not disconnected: errno {-error} {_netlink.LastText}");
            _number = -1;
            _node = "";
        }

        foreach (NbdPump pump in _pumps)
            pump.RequestStop();
        for (int queue = 0; queue < _pumps.Length; queue++)
        {
            _pumps[queue].Dispose();
            _log(_pumps[queue].Statistics.Describe(queue));
        }

        _pumps = [];
    }

    public void Dispose()
    {
        Stop(force: true);
        _netlink.Dispose();
    }

    private string Number => _number.ToString(CultureInfo.InvariantCulture);

    private void Start(IBlockDevice device, int queues, PollMode mode)
    {
        BlockDeviceInfo info = device.Info;
        var pumps = new List<NbdPump>(queues);
        try
        {
            for (int queue = 0; queue < queues; queue++)
            {
                int number = queue;
                pumps.Add(new NbdPump(device, queue, mode, MaxConnectionsPerPump, ClientPatience.Default, _log, () => ConnectionLost(number)));
            }
        }
        finally
        {
            _pumps = [.. pumps];
        }

        foreach (NbdPump pump in _pumps)
            pump.Start();
        var settings = new NbdKernelDevice(
            info.SizeBytes, info.LogicalBlockBytes, (ushort)NbdExportInfo.Describe(info).Flags, queues == 1 ? 0 : LongestRequestSeconds,
            DeadConnectionSeconds, _backend);
        var kernelEnds = new List<FileDescriptor>(queues);
        try
        {
            foreach (NbdPump pump in _pumps)
            {
                (StreamSocket ours, FileDescriptor kernelEnd) = StreamSocket.CreatePair();
                kernelEnds.Add(kernelEnd);
                Adopt(pump, ours);
            }

            lock (_lock)
            {
                Check(_netlink.Connect(settings, kernelEnds, out int number), "connecting a device");
                _number = number;
            }
        }
        finally
        {
            kernelEnds.ForEach(static end => end.Dispose());
        }

        string node = $"/dev/nbd{Number}";
        if (!File.Exists(node))
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel connected a block device, but {node} does not exist: mount devtmpfs on /dev, or give this container the node");
        _node = node;
    }

    /// <summary>Nobody has disconnected it and connected another server since, where the kernel tells.</summary>
    private bool IsStillOurs() => KernelNbdAttachKind.BackendOf(_number) is var text && (text.Length == 0 || text == _backend);

    private void Adopt(NbdPump pump, StreamSocket socket) =>
        pump.Adopt(new NbdConnection(Interlocked.Increment(ref _connections), socket, default));

    /// <summary>A pump's connection was closed. Its thread must not wait for the kernel, which may wait for it.</summary>
    private void ConnectionLost(int queue)
    {
        if (!Volatile.Read(ref _stopping))
            PoolWork.Queue(() => TryReconnect(queue));
    }

    private void TryReconnect(int queue)
    {
        try
        {
            Reconnect(queue);
        }
        catch (Exception e)
        {
            // No descriptor, say. Nobody else would see it, and it would end the process.
            _log($"connection {queue} to the kernel was lost and is not made anew: {e.Message}: stop the device and start it again");
        }
    }

    private void Reconnect(int queue)
    {
        while (true)
        {
            // The kernel notices the end of the old connection a moment after us.
            Thread.Sleep(ReconnectPauseMs);
            lock (_lock)
            {
                if (_stopping || _number < 0)
                    return;
                if (_reconnects++ == MaxReconnects)
                {
                    _log($"connection {queue} was lost again after {MaxReconnects} new ones; {Node} fails when all are lost: see dmesg, stop the device");
                    return;
                }

                (StreamSocket ours, FileDescriptor kernelEnd) = StreamSocket.CreatePair();
                using FileDescriptor end = kernelEnd;
                int error = _netlink.Reconnect(_number, _backend, [end]);
                if (error == 0)
                {
                    // What the kernel has sent already waits in the socket.
                    Adopt(_pumps[queue], ours);
                    _log($"connection {queue} to the kernel was lost and made anew");
                    return;
                }

                ours.Dispose();
                if (error != -Errno.ENOSPC)
                {
                    _log($"connection {queue} to the kernel was lost and cannot be made anew (errno {-error} {_netlink.LastText}): was {Node} disconnected by somebody else? Stop the device");
                    return;
                }
            }
        }
    }

    private void Check(int result, string what)
    {
        if (result < 0)
            throw KernelRefusal.Of(_name, "nbd", what, result, _netlink.LastText, Remedy(result));
    }

    private static string? Remedy(int result) => result is -Errno.ENOMEM or -Errno.ENOSPC or -Errno.EBUSY
        ? "disconnect other nbd devices, or load the module with a larger nbds_max"
        : null;
}
