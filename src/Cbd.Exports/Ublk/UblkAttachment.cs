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
/// successor or for <see cref="UblkAttachKind.FindLeftovers"/>.
/// </remarks>
internal sealed class UblkAttachment : IKernelAttachment
{
    /// <summary>Largest payload of one request, bytes; 128 of them are the most that a queue ever holds.</summary>
    private const int MaxTransferBytes = 512 << 10;

    private const int NodeTimeoutMs = 5000;
    private const int NodePollMs = 20;

    private readonly UblkControl _control;
    private readonly ulong _features;
    private readonly Action<string> _log;
    private readonly string _name;
    private IBlockDevice? _device;
    private UblkPump[] _pumps = [];
    private FileDescriptor? _server;
    private uint _number;
    private bool _isAdded;
    private volatile string _node = "";

    internal UblkAttachment(UblkControl control, ulong features, KernelExportOptions options)
    {
        _control = control;
        _features = features;
        _name = options.Name;
        _log = message => options.Log($"{options.Name} (ublk): {message}");
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
            if (_isAdded)
                _ = _control.Stop(_number);
            Remove();
            throw;
        }
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
            Flags = UblkProtocol.FeatureUserRecovery | UblkProtocol.FeatureUserRecoveryReissue |
                UblkProtocol.FeatureIoctlEncoding | (_features & UblkProtocol.FeatureUpdateSize),
            Owner = UblkOwner.Self.Encode(),
        };
        Check(_control.Add(ref added), "adding a device");
        _number = added.Device;
        _isAdded = true;
        if (added.Queues != queues)
            throw new CbdException(CbdErrorKind.Unsupported, $"ublk gives this machine {added.Queues} queues, one per CPU, not {queues}: start it with --queues {added.Queues}, or attach it with nbd");
        if (added.QueueDepth != UblkPump.Depth || added.MaxTransferBytes < (uint)transfer)
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel's ublk gives queues of depth {added.QueueDepth} and payload {added.MaxTransferBytes} instead of {UblkPump.Depth} and {transfer}: attach it with nbd");

        _server = OpenServer($"/dev/ublkc{Number}");
        Check(_control.SetParameters(_number, UblkParameters.Describe(info, transfer)), "setting its sizes");
        var pumps = new List<UblkPump>(queues);
        try
        {
            for (int queue = 0; queue < queues; queue++)
                pumps.Add(new UblkPump(_server, device, queue, transfer, mode, _log));
        }
        finally
        {
            _pumps = [.. pumps];
        }

        foreach (UblkPump pump in _pumps)
            pump.Start();
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
    }

    private static FileDescriptor OpenServer(string path)
    {
        FileDescriptor? file = null;
        int error = 0;
        // The node may come from a daemon, a moment after the device.
        bool isOpen = WaitFor(() => (error = FileDescriptor.TryOpen(path, OpenFlags.ReadWrite, 0, out file)) is not (-Errno.ENOENT));
        if (isOpen && error == 0)
            return file!;
        throw new CbdException(
            CbdErrorKind.Unsupported,
            $"{path} of a new ublk device cannot be opened (errno {-error}): mount devtmpfs on /dev, and allow the node in the container");
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
