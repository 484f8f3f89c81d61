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
/// <remarks>
/// With a life the kernel keeps the device when the process dies, and a successor makes its connections anew (<see cref="Recover"/>). What was in
/// flight on a connection that was lost is sent again by the kernel: with one connection at its next look at the request, with several when the
/// request has had its time. Then requests of a lost connection may be at the device still, and <see cref="LostConnections"/> keeps new ones waiting.
/// </remarks>
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

    /// <summary>
    /// The same of a device that outlives its daemon: what was in flight at a death is sent again then. Longer than any disk takes that works,
    /// because a request that always takes longer would never be done.
    /// </summary>
    private const int ResendSeconds = 30;

    /// <summary>
    /// How often the kernel looks at a request of a device with one connection: whether that was made anew since. It says each time that the
    /// request may be stuck.
    /// </summary>
    private const int LookMs = 2000;

    /// <summary>How long one attempt waits until the kernel has noticed the end of all connections of a dead server.</summary>
    private const int RecoverTimeoutMs = 5000;

    private const int RecoverPollMs = 5;

    /// <summary>Clients of a pump: its connection, and the one that comes in its place before that is quite closed.</summary>
    private const int MaxConnectionsPerPump = 2;

    private const int MaxReconnects = 5;
    private const int ReconnectPauseMs = 200;

    private readonly Lock _lock = new();
    private readonly NbdNetlink _netlink;
    private readonly Action<string> _log;
    private readonly string _backend;
    private readonly string _name;
    private readonly AttachmentLife? _life;
    private readonly AttachmentLives? _lives;
    private IBlockDevice? _device;
    private NbdPump[] _pumps = [];
    private LostConnections[] _lost = [];
    private int _number = -1;
    private long _connections;
    private int _reconnects;
    private bool _stopping;

    /// <summary>A process before this one left it, and it stays as it is until it is served or abandoned.</summary>
    private bool _isLeft;
    private bool _isOver;
    private volatile string _node = "";

    /// <param name="netlink">Owned from here on.</param>
    /// <param name="options">What is attached.</param>
    /// <param name="lives">Where the life of this attachment is kept from being a leftover; null if it has none.</param>
    internal KernelNbdAttachment(NbdNetlink netlink, KernelExportOptions options, AttachmentLives? lives)
    {
        _netlink = netlink;
        _name = options.Name;
        _life = options.Life;
        _lives = lives;
        _isLeft = options.Life is { GoesOn: true };
        if (options.Life is { } life)
            lives?.Add(life.Id);
        _backend = KernelNbdOwner.Of(options.Name, options.Life).Encode();
        _log = message => options.Log($"{options.Name} (nbd): {message}");
    }

    /// <inheritdoc/>
    public string Node => _node;

    /// <inheritdoc/>
    public bool GoesOn { get; private set; }

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        _device = device;
        if (_isLeft)
        {
            Recover(device, queues, mode);
            return;
        }

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
    public bool TryPark()
    {
        if (_life is null || _node.Length == 0)
            return false;
        lock (_lock)
        {
            _stopping = true;
            _number = -1;
            _node = "";
        }

        // Before anything that may throw: the device must not be removed then.
        _isOver = true;
        Park();
        return true;
    }

    /// <inheritdoc/>
    public void Abandon()
    {
        if (!_isLeft || _isOver)
            return;
        _isLeft = false;
        lock (_lock)
        {
            _number = _life!.Number;
            if (IsStillOurs() && _netlink.Disconnect(_number) is < 0 and var error)
                _log($"/dev/nbd{Number} was not disconnected: errno {-error} {_netlink.LastText}");
            _number = -1;
        }

        EndLife();
    }

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        if (_isLeft)
            return;
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
        foreach (NbdPump pump in _pumps)
            pump.Join();
        for (int queue = 0; queue < _pumps.Length; queue++)
        {
            _pumps[queue].Dispose();
            _log(_pumps[queue].Statistics.Describe(queue));
        }

        ForgetPumps();
        EndLife();
    }

    public void Dispose()
    {
        Stop(force: true);
        _netlink.Dispose();
    }

    private string Number => _number.ToString(CultureInfo.InvariantCulture);

    /// <summary>
    /// Goes on with the device that a process before this one served. Nothing of it is at that process's disk any more: the claim under which it
    /// was has been cleared, and its channels drained, before this is called. Throws, and leaves it as it was.
    /// </summary>
    private void Recover(IBlockDevice device, int queues, PollMode mode)
    {
        int number = _life!.Number;
        string node = $"/dev/nbd{number.ToString(CultureInfo.InvariantCulture)}";
        if (KernelNbdAttachKind.BackendOf(number) != _backend)
            throw Succession.Refused($"{node} is not connected any more, or is another's: another program disconnected it, and its users got errors");
        KernelDisk disk = KernelDisk.Read(node) ?? throw Succession.Refused($"{node} cannot be read in /sys");
        if (disk.FindDifference(device.Info, node) is { } difference)
            throw Succession.Refused(difference);
        try
        {
            Volatile.Write(ref _stopping, false);
            MakePumps(device, queues, mode);
            lock (_lock)
            {
                _number = number;
                // The device gets no request before all that may fail is done: another try would not know what is at the disk already.
                StreamSocket[] sockets = TakeAll(node);
                foreach (LostConnections lost in _lost)
                {
                    foreach (StreamSocket socket in sockets)
                        lost.Watch(socket);
                }

                for (int queue = 0; queue < sockets.Length; queue++)
                    _pumps[queue].Adopt(ConnectionOf(sockets[queue]));
            }
        }
        catch (Exception e)
        {
            lock (_lock)
                _number = -1;
            Park();
            if (Succession.Passing(e) is { } passing)
                throw passing;
            throw;
        }

        _isLeft = false;
        GoesOn = true;
        _node = node;
        Succession.AnnounceGrowth(device, node, Resize, _log);
    }

    /// <summary>A connection for each pump, in the places of the dead server's, whose end the kernel notices by itself. Nothing reads from them yet.</summary>
    private StreamSocket[] TakeAll(string node)
    {
        var sockets = new List<StreamSocket>();
        try
        {
            long limit = Environment.TickCount64 + RecoverTimeoutMs;
            while (sockets.Count < _pumps.Length)
                sockets.Add(Take(node, limit));
            return [.. sockets];
        }
        catch
        {
            sockets.ForEach(static socket => socket.Dispose());
            throw;
        }
    }

    private StreamSocket Take(string node, long limit)
    {
        while (true)
        {
            int error = TryConnectAgain(out StreamSocket? socket);
            if (error == 0)
                return socket!;
            if (error != -Errno.ENOSPC)
                Check(error, $"taking {node} over");
            if (Environment.TickCount64 >= limit)
                throw new CbdException(CbdErrorKind.Busy, $"the kernel still has connections of {node} to its last server: see dmesg") { MayPass = true };
            Thread.Sleep(RecoverPollMs);
        }
    }

    /// <summary>ENOSPC if no connection of the device is dead. Under the lock.</summary>
    private int TryConnectAgain(out StreamSocket? socket)
    {
        socket = null;
        (StreamSocket ours, FileDescriptor kernelEnd) = StreamSocket.CreatePair();
        int error;
        using (kernelEnd)
            error = _netlink.Reconnect(_number, _backend, [kernelEnd]);
        // Some kernels say nothing of a socket for which they had no place.
        if (error == 0 && LostConnections.IsLost(ours))
            error = -Errno.ENOSPC;
        if (error == 0)
            socket = ours;
        else
            ours.Dispose();
        return error;
    }

    /// <summary>Ends the pumps as they are, and with them their connections: the kernel keeps the device, and what was not answered.</summary>
    private void Park()
    {
        Volatile.Write(ref _stopping, true);
        foreach (NbdPump pump in _pumps)
            pump.Park();
        // Their threads wake each other.
        foreach (NbdPump pump in _pumps)
            pump.Join();
        foreach (NbdPump pump in _pumps)
            pump.Dispose();
        ForgetPumps();
    }

    private void ForgetPumps()
    {
        _pumps = [];
        foreach (LostConnections lost in _lost)
            lost.Dispose();
        _lost = [];
    }

    private void EndLife()
    {
        if (_life is null || _isOver)
            return;
        _isOver = true;
        _life.Forget?.Invoke([]);
        _lives?.Remove(_life.Id);
    }

    private void MakePumps(IBlockDevice device, int queues, PollMode mode)
    {
        // The kernel sends nothing again that may be at the device still, unless it has a limit for requests.
        if (_life is not null && queues > 1)
            _lost = [.. Enumerable.Range(0, queues).Select(static _ => new LostConnections())];
        var pumps = new List<NbdPump>(queues);
        try
        {
            for (int queue = 0; queue < queues; queue++)
            {
                int number = queue;
                pumps.Add(new NbdPump(device, queue, mode, MaxConnectionsPerPump, ClientPatience.Default, _log, () => ConnectionLost(number))
                {
                    Lost = _lost.ElementAtOrDefault(queue),
                });
            }
        }
        finally
        {
            _pumps = [.. pumps];
        }

        foreach (NbdPump pump in _pumps)
            pump.Start();
    }

    private void Start(IBlockDevice device, int queues, PollMode mode)
    {
        BlockDeviceInfo info = device.Info;
        MakePumps(device, queues, mode);
        var settings = new NbdKernelDevice(
            info.SizeBytes, info.LogicalBlockBytes, (ushort)NbdExportInfo.Describe(info).Flags,
            queues == 1 ? 0 : _life is null ? LongestRequestSeconds : ResendSeconds,
            _life is null ? DeadConnectionSeconds : LongestRequestSeconds, _backend);
        // First, so that a successor finds what the kernel keeps.
        _life?.Keep?.Invoke([]);
        var kernelEnds = new List<FileDescriptor>(queues);
        try
        {
            foreach (NbdPump pump in _pumps)
            {
                (StreamSocket ours, FileDescriptor kernelEnd) = StreamSocket.CreatePair();
                kernelEnds.Add(kernelEnd);
                Adopt(pump, ours);
            }

            int number;
            lock (_lock)
            {
                Check(_netlink.Connect(settings, kernelEnds, out number), "connecting a device");
                _number = number;
            }

            _life?.StoreNumber?.Invoke(number);
        }
        finally
        {
            kernelEnds.ForEach(static end => end.Dispose());
        }

        string node = $"/dev/nbd{Number}";
        if (_life is not null && queues == 1 && KernelSettings.TryWrite($"/sys/block/nbd{Number}/queue/io_timeout", LookMs) is not 0 and var error)
            _log($"{node} sends what was in flight at the end of a daemon only after 30 s, because its time-out cannot be set (errno {-error})");
        if (!File.Exists(node))
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel connected a block device, but {node} does not exist: mount devtmpfs on /dev, or give this container the node");
        _node = node;
    }

    /// <summary>Nobody has disconnected it and connected another server since, where the kernel tells.</summary>
    private bool IsStillOurs() => KernelNbdAttachKind.BackendOf(_number) is var text && (text == _backend || (text.Length == 0 && _life is null));

    private void Adopt(NbdPump pump, StreamSocket socket)
    {
        foreach (LostConnections lost in _lost)
            lost.Watch(socket);
        pump.Adopt(ConnectionOf(socket));
    }

    private NbdConnection ConnectionOf(StreamSocket socket) => new(Interlocked.Increment(ref _connections), socket, default);

    /// <summary>A pump's connection was closed. Its thread must not wait for the kernel, which may wait for it.</summary>
    private void ConnectionLost(int queue)
    {
        if (Volatile.Read(ref _stopping))
            return;
        // All that it had at the device has ended: the others may go on.
        if (_lost.Length > 0)
        {
            foreach (NbdPump pump in _pumps)
                pump.LookAgain();
        }

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
                // With a limit for requests a backend that is away costs all connections each time.
                if (_reconnects++ == MaxReconnects && _lost.Length == 0)
                {
                    _log($"connection {queue} was lost again after {MaxReconnects} new ones; {Node} fails when all are lost: see dmesg, stop the device");
                    return;
                }

                int error = TryConnectAgain(out StreamSocket? socket);
                if (error == 0)
                {
                    Adopt(_pumps[queue], socket!);
                    if (_reconnects <= MaxReconnects)
                        _log($"connection {queue} to the kernel was lost and made anew");
                    return;
                }

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
