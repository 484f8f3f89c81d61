using System.Globalization;
using Cbd.Blocks;
using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Ublk;

/// <summary>One device in this kernel through ublk: /dev/ublkbN, served through /dev/ublkcN.</summary>
/// <remarks>
/// User recovery is on: when the daemon dies, the kernel keeps the device and what was in flight, and waits for a
/// successor or for <see cref="UblkAttachKind.FindLeftovers"/>. With a life a successor goes on with it (<see cref="Recover"/>). The kernel gives it
/// all requests that were not answered once more. /dev/ublkcN is opened by each process anew: the kernel waits until it is closed.
/// </remarks>
internal sealed class UblkAttachment : IKernelAttachment
{
    /// <summary>Largest payload of one request, bytes; 128 of them are the most that a queue ever holds.</summary>
    private const int MaxTransferBytes = 512 << 10;

    /// <summary>What the kernel must have for a device that outlives its daemon.</summary>
    internal const ulong RecoveryFeatures = UblkProtocol.FeatureUserRecovery | UblkProtocol.FeatureUserRecoveryReissue;

    /// <summary>How long one attempt waits until the kernel lets go of what a dead server had.</summary>
    private const int OldServerTimeoutMs = 5_000;

    private const int OldServerPollMs = 5;

    private const int NodeTimeoutMs = 5000;
    private const int NodePollMs = 20;

    private readonly UblkControl _control;
    private readonly ulong _features;
    private readonly Action<string> _log;
    private readonly string _name;
    private readonly AttachmentLife? _life;
    private readonly AttachmentLives? _lives;
    private readonly UblkOwner _owner;
    private IBlockDevice? _device;
    private UblkPump[] _pumps = [];
    private FileDescriptor? _server;
    private uint _number;
    private bool _isAdded;

    /// <summary>A process before this one left it, and it stays as it is until it is served or abandoned.</summary>
    private bool _isLeft;
    private bool _isOver;
    private volatile string _node = "";

    /// <param name="control">Owned from here on.</param>
    /// <param name="features">What the kernel's ublk can do.</param>
    /// <param name="options">What is attached.</param>
    /// <param name="lives">Where the life of this attachment is kept from being a leftover; null if it has none.</param>
    internal UblkAttachment(UblkControl control, ulong features, KernelExportOptions options, AttachmentLives? lives)
    {
        _life = options.Life;
        _lives = lives;
        _owner = UblkOwner.Of(options.Life);
        _isLeft = options.Life is { GoesOn: true };
        if (options.Life is { } life)
            lives?.Add(life.Id);
        _control = control;
        _features = features;
        _name = options.Name;
        _log = message => options.Log($"{options.Name} (ublk): {message}");
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
            if (_isAdded)
                _ = _control.Stop(_number);
            Remove();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool TryPark()
    {
        if (_life is null || _node.Length == 0)
            return false;
        // Before anything that may throw: the device must not be removed then.
        _isOver = true;
        _isAdded = false;
        _node = "";
        Park();
        return true;
    }

    /// <inheritdoc/>
    public void Abandon()
    {
        if (!_isLeft || _isOver)
            return;
        _isLeft = false;
        if (IsOurs((uint)_life!.Number, out _))
            End((uint)_life.Number);
        EndLife();
    }

    /// <inheritdoc/>
    public void Resize()
    {
        if ((_features & UblkProtocol.FeatureUpdateSize) == 0)
            throw new CbdException(CbdErrorKind.Unsupported, $"{Node} cannot change its size on this kernel ({KernelSupport.Release}): ublk needs Linux 6.16 for that; stop and start the device, or attach it with nbd");
        long sizeBytes = _device!.Info.SizeBytes;
        Check(_control.UpdateSize(_number, sizeBytes), $"changing the size of {Node} to {sizeBytes} bytes");
    }

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        if (!_isAdded)
            return;
        // The pumps serve on until it has ended: what is dirty in the page cache is written first.
        int result = _control.Stop(_number);
        if (result < 0 && result != -Errno.ENODEV)
        {
            string problem = $"{Node} did not stop within {UblkControl.CommandTimeoutMs / 1000} s (errno {-result})";
            if (!force)
                throw new CbdException(CbdErrorKind.Busy, $"{problem}: it waits for its backend; try again, or stop it with --force");
            _log($"{problem}; its requests fail");
        }

        Remove();
    }

    public void Dispose()
    {
        if (_isAdded)
            Stop(force: true);
        _control.Dispose();
    }

    /// <summary>
    /// Goes on with the device that a process before this one served. Nothing of it is at that process's disk any more: the claim under which it
    /// was has been cleared, and its channels drained, before this is called. Throws, and leaves it as it was.
    /// </summary>
    private void Recover(IBlockDevice device, int queues, PollMode mode)
    {
        _number = (uint)_life!.Number;
        string node = $"/dev/ublkb{Number}";
        if (!IsOurs(_number, out UblkDeviceInfo info))
            throw Succession.Refused($"{node} is another's, or there is none: another program deleted it, and its users got errors");
        CheckDevice(device.Info, info, queues, node);
        try
        {
            AwaitOldServer(node);
            _server = OpenServer($"/dev/ublkc{Number}");
            MakePumps(device, queues, (int)info.MaxTransferBytes, mode);
            if (!_pumps.Select(pump => pump.AwaitAsked()).ToArray().All(static isWhole => isWhole))
                throw Succession.Refused($"the kernel refuses requests of {node}: see the log");
            Check(_control.EndRecovery(_number), $"going on with {node}");
        }
        catch (Exception e)
        {
            Park();
            if (Succession.Passing(e) is { } passing)
                throw passing;
            throw;
        }

        _isLeft = false;
        _isAdded = true;
        GoesOn = true;
        _node = node;
        Succession.AnnounceGrowth(device, node, Resize, _log);
    }

    /// <summary>What the kernel knows stays; the device must be able to do that.</summary>
    private static void CheckDevice(BlockDeviceInfo device, in UblkDeviceInfo info, int queues, string node)
    {
        if (info.State is not (UblkProtocol.StateLive or UblkProtocol.StateQuiesced))
            throw Succession.Refused($"{node} was stopped (state {info.State}), and its users got errors");
        if (info.Queues != queues || info.QueueDepth != UblkPump.Depth)
            throw Succession.Refused($"{node} has {info.Queues} queues of depth {info.QueueDepth}, not {queues} of {UblkPump.Depth}");
        if (info.MaxTransferBytes == 0 || info.MaxTransferBytes > (uint)device.MaxTransferBytes || info.MaxTransferBytes > MaxTransferBytes)
            throw Succession.Refused($"a request can have {device.MaxTransferBytes} bytes now, and the kernel sends up to {info.MaxTransferBytes}");
        KernelDisk disk = KernelDisk.Read(node) ?? throw Succession.Refused($"{node} cannot be read in /sys");
        if (disk.FindDifference(device, node) is { } difference)
            throw Succession.Refused(difference);
    }

    /// <summary>The kernel ends what the dead server had by itself, a moment after the process was waited for.</summary>
    private void AwaitOldServer(string node)
    {
        long limit = Environment.TickCount64 + OldServerTimeoutMs;
        while (true)
        {
            int result = _control.StartRecovery(_number);
            if (result == 0)
                return;
            // Another successor came so far, and died before a queue was served: it is ready.
            if (result == -Errno.EINVAL && IsOurs(_number, out UblkDeviceInfo info) && info.State == UblkProtocol.StateQuiesced)
                return;
            if (result != -Errno.EBUSY)
                Check(result, $"taking {node} over");
            if (Environment.TickCount64 >= limit)
                throw Held(node);
            Thread.Sleep(OldServerPollMs);
        }
    }

    /// <summary>It is that of this attachment, whoever serves it.</summary>
    private bool IsOurs(uint number, out UblkDeviceInfo info) => _control.GetInfo(number, out info) == 0 && info.Owner == _owner.Encode();

    private static CbdException Held(string node) => new(CbdErrorKind.Busy, $"the kernel still holds {node} for its last server: see dmesg") { MayPass = true };

    /// <summary>Ends the pumps as they are, and closes the server's side: the kernel keeps the device, and what was not answered.</summary>
    private void Park()
    {
        foreach (UblkPump pump in _pumps)
            pump.Park();
        foreach (UblkPump pump in _pumps)
            pump.Dispose();
        _pumps = [];
        _server?.Dispose();
        _server = null;
    }

    private void End(uint number)
    {
        // A command that never ended takes its own descriptor with it.
        using UblkControl? control = UblkControl.TryOpen(out string whyNot);
        int result = control is null ? -Errno.ENODEV : UblkAttachKind.End(control, number);
        if (result is not (0 or -Errno.ENODEV) || control is null)
            _log($"/dev/ublkb{number.ToString(CultureInfo.InvariantCulture)} was not deleted (errno {-result}{(control is null ? $", {whyNot}" : "")}); the next start of a device here tries again");
    }

    private void EndLife()
    {
        if (_life is null || _isOver)
            return;
        _isOver = true;
        _life.Forget?.Invoke([]);
        _lives?.Remove(_life.Id);
    }

    private void MakePumps(IBlockDevice device, int queues, int transfer, PollMode mode)
    {
        var pumps = new List<UblkPump>(queues);
        try
        {
            for (int queue = 0; queue < queues; queue++)
                pumps.Add(new UblkPump(_server!, device, queue, transfer, mode, _log));
        }
        finally
        {
            _pumps = [.. pumps];
        }

        foreach (UblkPump pump in _pumps)
            pump.Start();
    }

    private void Start(IBlockDevice device, int queues, PollMode mode)
    {
        BlockDeviceInfo info = device.Info;
        int page = Environment.SystemPageSize;
        int transfer = Math.Min(MaxTransferBytes, info.MaxTransferBytes) / page * page;
        if (transfer == 0)
            throw new CbdException(CbdErrorKind.Unsupported, $"{_name} takes requests of at most {info.MaxTransferBytes} bytes, ublk needs at least a page of {page}: format the transport with larger channels");
        var added = new UblkDeviceInfo
        {
            Queues = (ushort)queues,
            QueueDepth = UblkPump.Depth,
            MaxTransferBytes = (uint)transfer,
            ProcessId = -1,
            Flags = RecoveryFeatures |
                UblkProtocol.FeatureIoctlEncoding | (_features & UblkProtocol.FeatureUpdateSize),
            Owner = _owner.Encode(),
        };
        // First, so that a successor finds what the kernel keeps.
        _life?.Keep?.Invoke([]);
        Check(_control.Add(ref added), "adding a device");
        _number = added.Device;
        _isAdded = true;
        _life?.StoreNumber?.Invoke((int)_number);
        if (added.Queues != queues)
            throw new CbdException(CbdErrorKind.Unsupported, $"ublk gives this machine {added.Queues} queues, one per CPU, not {queues}: start it with --queues {added.Queues}, or attach it with nbd");
        if (added.QueueDepth != UblkPump.Depth || added.MaxTransferBytes < (uint)transfer)
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel's ublk gives queues of depth {added.QueueDepth} and payload {added.MaxTransferBytes} instead of {UblkPump.Depth} and {transfer}: attach it with nbd");

        _server = OpenServer($"/dev/ublkc{Number}");
        Check(_control.SetParameters(_number, UblkParameters.Describe(info, transfer)), "setting its sizes");
        MakePumps(device, queues, transfer, mode);
        Check(_control.Start(_number), "starting it");
        string node = $"/dev/ublkb{Number}";
        if (!WaitFor(() => File.Exists(node)))
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel made a block device, but {node} does not appear: mount devtmpfs on /dev, or run udev");
        _node = node;
    }

    private string Number => _number.ToString(CultureInfo.InvariantCulture);

    /// <summary>Ends the pumps and deletes the device, whose disk is gone.</summary>
    private void Remove()
    {
        foreach (UblkPump pump in _pumps)
            pump.RequestStop();
        for (int queue = 0; queue < _pumps.Length; queue++)
        {
            _pumps[queue].Dispose();
            _log(_pumps[queue].Statistics.Describe(queue));
        }

        _pumps = [];
        _server?.Dispose();
        _server = null;
        if (_isAdded && _control.Delete(_number) is < 0 and not -Errno.ENODEV and var result)
            _log($"/dev/ublkc{Number} was not deleted (errno {-result}); the next start of a device here tries again");
        _isAdded = false;
        _node = "";
        EndLife();
    }

    private static FileDescriptor OpenServer(string path)
    {
        FileDescriptor? file = null;
        int error = 0;
        // The node may come from a daemon, a moment after the device; a server that died may hold it a moment after its death.
        bool isOpen = WaitFor(() => (error = FileDescriptor.TryOpen(path, OpenFlags.ReadWrite, 0, out file)) is not (-Errno.ENOENT or -Errno.EBUSY));
        if (isOpen && error == 0)
            return file!;
        if (error == -Errno.EBUSY)
            throw Held(path);
        throw new CbdException(
            CbdErrorKind.Unsupported,
            $"{path} of a ublk device cannot be opened (errno {-error}): mount devtmpfs on /dev, and allow the node in the container");
    }

    private static bool WaitFor(Func<bool> condition)
    {
        for (int waited = 0; !condition(); waited += NodePollMs)
        {
            if (waited >= NodeTimeoutMs)
                return false;
            Thread.Sleep(NodePollMs);
        }

        return true;
    }

    private void Check(int result, string what)
    {
        if (result < 0)
            throw KernelRefusal.Of(_name, "ublk", what, result, words: "", Remedy(result));
    }

    private static string? Remedy(int result) => result switch
    {
        -Errno.ENOSPC or -Errno.ENOMEM => "stop other ublk devices, or raise the module's ublks_max",
        -Errno.ETIMEDOUT => "the device was not read in time: is its backend alive (backend-list)?",
        _ => null,
    };
}
