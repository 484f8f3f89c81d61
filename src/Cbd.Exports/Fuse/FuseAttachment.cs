using System.Text;
using Cbd.Blocks;
using Cbd.Exports.InFlight;
using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Cbd.Host;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Fuse;

/// <summary>
/// A device as one file of a FUSE file system that is mounted nowhere, and a loop device on that file. With a life that is kept it outlives
/// this process: a successor adopts both, and all that is in flight.
/// </summary>
internal sealed class FuseAttachment : IKernelAttachment
{
    private const int ClearTimeoutMs = 10_000;
    private const int ClearPollMs = 10;

    private readonly KernelExportOptions _options;
    private readonly LoopProcess _loop;
    private readonly AttachmentLives? _lives;
    private readonly string _fileName;
    private FusePump[] _pumps = [];
    private FuseFile? _file;
    private FuseMount? _mount;
    private uint? _connection;
    private int _queueCount;
    private int _isOver;

    /// <summary>What was given could not be gone on with: it is left as it is until it is abandoned.</summary>
    private bool _isLeft;
    private volatile string _node = "";

    /// <param name="options">What is attached.</param>
    /// <param name="loop">Does what may wait for this process.</param>
    /// <param name="lives">Where the life of this attachment is kept from being a leftover; null if it has none.</param>
    internal FuseAttachment(KernelExportOptions options, LoopProcess loop, AttachmentLives? lives)
    {
        _options = options;
        _loop = loop;
        _lives = lives;
        _fileName = LoopOwner.Self(options.Name, options.Life).FileName;
        // What was given stays as it is until it is served.
        _isLeft = options.Life is { Given.Count: > 0 };
        if (options.Life is { } life)
            lives?.Add(life.Id);
    }

    /// <inheritdoc/>
    public string Node => _node;

    /// <inheritdoc/>
    public bool GoesOn { get; private set; }

    /// <inheritdoc/>
    public Action? LookAgain { get; set; }

    /// <summary>The file of the loop device as the kernel names it.</summary>
    private string BackingFile => "/" + _fileName;

    private AttachmentLife? Life => _options.Life;

    /// <summary>Duplicates of the channels are open elsewhere.</summary>
    private bool IsKept => Life is { Keep: not null } or { Given.Count: > 0 };

    /// <summary>Managed memory that the pumps allocated while they served.</summary>
    internal long AllocatedBytes => _pumps.Sum(pump => pump.AllocatedBytes);

    /// <summary>
    /// Serves a new file system, or, with descriptors that were given, goes on with that of a process before this one. The number of queues is
    /// that of the life then.
    /// </summary>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        if (Life is { Given.Count: > 0 } life)
            Adopt(life, device, mode);
        else
            Begin(device, queues, mode);
        if (!IsDirect(_node))
            _options.Log($"{_options.Name}: {_node} has no direct I/O; what is written stays in memory twice");
    }

    /// <inheritdoc/>
    public void Resize()
    {
        BlockDeviceInfo info = _file!.Device.Info;
        int error = _pumps[0].Channel.AnnounceSize(FuseRequest.FileNode, info.SizeBytes, info.LogicalBlockBytes);
        if (error != 0)
            throw new SystemCallException("write FUSE_NOTIFY_STORE", -error, FuseChannel.DevicePath);
        _loop.Resize(_node);
    }

    /// <inheritdoc/>
    public string? FindTrouble() => _node is { Length: > 0 } node && LoopDevice.TryGetFile(node) is { } file && file != BackingFile
        ? $"another program detached its loop device {node} (losetup -d), and what used it got errors: stop the device and start it again"
        : null;

    /// <inheritdoc/>
    public bool TryPark()
    {
        if (!IsKept || _node.Length == 0)
            return false;
        _file!.ExpectEnd();
        _file.Park();
        foreach (FusePump pump in _pumps)
            pump.Park();
        _pumps = [];
        _mount?.Dispose();
        _mount = null;
        _node = "";
        _isOver = 1;
        return true;
    }

    /// <inheritdoc/>
    public void Abandon()
    {
        if (Life is not { } life || _isOver != 0)
            return;
        _connection ??= FuseAdoption.TryFindConnection(life);
        _ = TryEndConnection();
        foreach (KeptDescriptor given in life.Given)
            given.Descriptor.Dispose();
        EndLife([.. life.Given.Select(given => given.Name)]);
    }

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        if (_node.Length == 0)
            return;
        _file!.ExpectEnd();
        if (FindTrouble() is not null)
        {
            // The number may be another's by now, in use by others.
            EndFileSystem();
        }
        else if (force)
        {
            // Its users get errors from here on, so that nothing waits for what will never be answered.
            TryClear();
            EndFileSystem();
            TryClear();
        }
        else
        {
            _loop.Clear(_node, BackingFile, exclusive: true);
            if (!AwaitCleared())
                _options.Log($"{_options.Name}: {_node} was opened while it was being stopped; it goes when it is closed, with errors until then");
            EndFileSystem();
        }

        _node = "";
    }

    public void Dispose()
    {
        if (_node.Length > 0)
            Stop(force: true);
        else if (_isOver == 0 && !_isLeft)
            EndFileSystem();
    }

    private void Begin(IBlockDevice device, int queues, PollMode mode)
    {
        int error = FuseChannel.TryOpen(out FuseChannel? channel);
        if (error != 0)
            throw new SystemCallException("open", -error, FuseChannel.DevicePath);
        var channels = new List<FuseChannel> { channel! };
        var records = new List<InFlightRecord>();
        try
        {
            _mount = FuseMount.Create(channel!, _options.Name, "cbd");
            _connection = _mount.GetConnectionNumber();
            BlockDeviceInfo info = device.Info;
            _file = NewFile(device, FuseFile.MaxTransferOf(info));
            for (int queue = 0; queue < queues; queue++)
            {
                // Every pump but the first has a clone.
                if (queue > 0)
                    channels.Add(channel!.Clone());
                records.Add(InFlightRecord.Create(HeaderOf(info, queue, queues), isKept: Life?.Keep is not null));
            }

            WarnOfLock(records);
            _queueCount = queues;
            Life?.Keep?.Invoke([.. DescriptorsOf(channels, records)]);
            MakePumps(channels, records, mode);
            foreach (FusePump pump in _pumps)
                pump.Start();
            _node = _loop.Configure(_mount, _fileName, info.LogicalBlockBytes, info.ReadOnly);
        }
        catch (Exception e)
        {
            bool isTooOld = _file is { IsTooOld: true };
            EndFileSystem();
            // What became no pump.
            foreach (FuseChannel own in channels)
                own.Dispose();
            foreach (InFlightRecord own in records)
                own.Dispose();
            if (isTooOld)
                throw new CbdException(CbdErrorKind.Unsupported, $"{_options.Name}: FUSE of this kernel is older than 7.{FuseProtocol.MinorVersion}: Linux 5.4 or later is needed", e);
            throw;
        }
    }

    private void Adopt(AttachmentLife life, IBlockDevice device, PollMode mode)
    {
        _isLeft = true;
        // For the end, should this fail.
        _connection = FuseAdoption.TryFindConnection(life);
        FuseAdoption? adoption = null;
        try
        {
            adoption = FuseAdoption.Open(life, _options.Name, device.Info);
            if (device.MaxQueues < adoption.Records.Count)
                throw new CbdException(CbdErrorKind.Invalid, $"the device has {device.MaxQueues} queues, and its attachment goes on with {adoption.Records.Count}, as it was begun");
            _file = NewFile(device, (int)adoption.Header.MaxTransferBytes);
            WarnOfLock(adoption.Records);
            // Until it is known that no queue has anything left.
            _file.AwaitQueues(adoption.Records.Count);
            MakePumps(adoption.Channels, adoption.Records, mode);
            foreach (FusePump pump in _pumps)
                pump.AnswerAgain();
            _file.AwaitQueues(_pumps.Count(pump => pump.HasLeft));
            foreach (FusePump pump in _pumps)
                pump.Start();
        }
        catch (Exception e)
        {
            // Nothing was read, and what was left stays so.
            _file?.Park();
            foreach (FusePump pump in _pumps)
                pump.Dispose();
            _pumps = [];
            adoption?.Dispose();
            if (Succession.Passing(e) is { } passing)
                throw passing;
            throw;
        }

        foreach (KeptDescriptor given in life.Given)
            given.Descriptor.Dispose();
        _isLeft = false;
        GoesOn = true;
        _node = adoption.Node;
        Succession.AnnounceGrowth(device, _node, Resize, line => _options.Log($"{_options.Name}: {line}"));
    }

    /// <summary>Every pump owns its channel and its record once it is made.</summary>
    private void MakePumps(IReadOnlyList<FuseChannel> channels, IReadOnlyList<InFlightRecord> records, PollMode mode)
    {
        _queueCount = channels.Count;
        for (int number = 0; number < channels.Count; number++)
        {
            var pump = new FusePump(_file!, channels[number], records[number], number, mode);
            if (number > 0)
                _pumps[^1].Next = pump;
            _pumps = [.. _pumps, pump];
        }
    }

    private FuseFile NewFile(IBlockDevice device, int maxTransferBytes) =>
        new(device, _fileName, maxTransferBytes, Life, _options.Log, WakePumps, EndConnection) { LookAgain = LookAgain };

    private InFlightHeader HeaderOf(BlockDeviceInfo info, int queue, int queues)
    {
        var header = new InFlightHeader
        {
            Queue = (uint)queue,
            QueueCount = (uint)queues,
            Life = Life?.Id ?? 0,
            Host = Life?.Host ?? Guid.Empty,
            MaxTransferBytes = (uint)_file!.MaxTransferBytes,
            LogicalBlockBytes = (uint)info.LogicalBlockBytes,
            ReadOnly = info.ReadOnly ? 1u : 0,
            Connection = _connection!.Value,
        };
        Encoding.UTF8.GetBytes(_fileName, header.Name);
        return header;
    }

    private IEnumerable<KeptDescriptor> DescriptorsOf(List<FuseChannel> channels, List<InFlightRecord> records)
    {
        for (int queue = 0; queue < channels.Count; queue++)
        {
            yield return new KeptDescriptor(Life!.ChannelName(queue), channels[queue].Descriptor);
            yield return new KeptDescriptor(Life.RecordName(queue), records[queue].Kept!.Descriptor);
        }
    }

    private void WarnOfLock(IReadOnlyList<InFlightRecord> records)
    {
        if (records.FirstOrDefault(record => record.Kept is { LockError: not 0 })?.Kept is { } open)
            _options.Log($"{_options.Name}: its in-flight record cannot be locked in memory (errno {open.LockError}): grant CAP_IPC_LOCK or raise LimitMEMLOCK=; a daemon that is killed while the machine is short of memory may lose a request, whose user gets an I/O error then");
    }

    /// <summary>The loop device has no file any more.</summary>
    private bool AwaitCleared()
    {
        for (int waited = 0; waited < ClearTimeoutMs; waited += ClearPollMs)
        {
            if (LoopDevice.TryGetFile(_node) is { } file && file != BackingFile)
                return true;
            Thread.Sleep(ClearPollMs);
        }

        return false;
    }

    private void TryClear()
    {
        try
        {
            _loop.Clear(_node, BackingFile, exclusive: false);
        }
        catch (CbdException e)
        {
            _options.Log($"{_options.Name}: {_node} is left: {e.Message}");
        }
    }

    private void EndFileSystem()
    {
        _file?.ExpectEnd();
        foreach (FusePump pump in _pumps)
            pump.RequestStop();
        foreach (FusePump pump in _pumps)
            pump.Dispose();
        _pumps = [];
        if (IsKept)
            _ = EndConnection();
        _mount?.Dispose();
        _mount = null;
        if (Life is { } life)
            EndLife(NamesOf(life));
    }

    private IReadOnlyList<string> NamesOf(AttachmentLife life) =>
        [.. Enumerable.Range(0, _queueCount).SelectMany(queue => new[] { life.ChannelName(queue), life.RecordName(queue) })];

    /// <summary>
    /// Where the connection cannot be aborted, it ends with the last of its channels: those that are kept elsewhere are given up, and the
    /// caller closes its own.
    /// </summary>
    private bool EndConnection()
    {
        if (TryEndConnection())
            return true;
        if (IsKept)
            EndLife(NamesOf(Life!));
        return false;
    }

    private void EndLife(IReadOnlyList<string> names)
    {
        if (Interlocked.Exchange(ref _isOver, 1) != 0)
            return;
        if (names.Count > 0)
            Life!.Forget?.Invoke(names);
        _lives?.Remove(Life!.Id);
    }

    /// <summary>
    /// Aborts the connection, whose number is this file system's as long as the mount or the loop device holds it. Where nothing is kept
    /// elsewhere, closing the channels does the same.
    /// </summary>
    private bool TryEndConnection()
    {
        if (!IsKept || _connection is not { } connection)
            return false;
        if (_mount is null && FuseAdoption.NodeOf(_fileName) is null)
            return true;
        try
        {
            int error = FuseMount.TryAbort(connection);
            if (error is 0 or -Errno.ENOENT)
                return true;
            _options.Log($"{_options.Name}: its connection {connection} of FUSE cannot be aborted (errno {-error})");
        }
        catch (CbdException e)
        {
            _options.Log($"{_options.Name}: its connection {connection} of FUSE cannot be aborted: {e.Message}");
        }

        return false;
    }

    private void WakePumps()
    {
        foreach (FusePump pump in _pumps)
            pump.Wake();
    }

    private static bool IsDirect(string node) => KernelFiles.Line($"/sys/block/{Path.GetFileName(node)}/loop/dio") == "1";
}
