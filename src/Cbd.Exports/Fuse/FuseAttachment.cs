using Cbd.Blocks;
using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Cbd.Host;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Fuse;

/// <summary>
/// A device as one file of a FUSE file system that is mounted nowhere, and a loop device on that file.
/// </summary>
internal sealed class FuseAttachment(KernelExportOptions options, LoopProcess loop) : IKernelAttachment
{
    private const int ClearTimeoutMs = 10_000;
    private const int ClearPollMs = 10;

    private readonly string _fileName = LoopOwner.Self(options.Name).FileName;
    private FusePump[] _pumps = [];
    private FuseFile? _file;
    private FuseMount? _mount;
    private volatile string _node = "";

    /// <inheritdoc/>
    public string Node => _node;

    /// <inheritdoc/>
    public Action? LookAgain { get; set; }

    /// <summary>The file of the loop device as the kernel names it.</summary>
    private string BackingFile => "/" + _fileName;

    /// <summary>Managed memory that the pumps allocated while they served.</summary>
    internal long AllocatedBytes => _pumps.Sum(pump => pump.AllocatedBytes);

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        int error = FuseChannel.TryOpen(out FuseChannel? channel);
        if (error != 0)
            throw new SystemCallException("open", -error, FuseChannel.DevicePath);
        var pumps = new List<FusePump>(queues);
        try
        {
            _mount = FuseMount.Create(channel!, options.Name, "cbd");
            _file = new FuseFile(device, _fileName, options.Log, WakePumps) { LookAgain = LookAgain };
            // Every pump but the first has a clone; a pump owns its channel once it is made.
            FuseChannel? next = channel;
            for (int number = 0; number < queues; number++)
            {
                FuseChannel own = number == 0 ? channel! : channel!.Clone();
                next = own;
                pumps.Add(new FusePump(_file, own, number, mode));
                if (number > 0)
                    pumps[number - 1].Next = pumps[number];
            }

            _pumps = [.. pumps];
            foreach (FusePump pump in _pumps)
                pump.Start();
            BlockDeviceInfo info = device.Info;
            _node = loop.Configure(_mount, _fileName, info.LogicalBlockBytes, info.ReadOnly);
        }
        catch (Exception e)
        {
            _pumps = [.. pumps];
            if (pumps.Count == 0)
                channel!.Dispose();
            bool isTooOld = _file is { IsTooOld: true };
            EndFileSystem();
            if (isTooOld)
                throw new CbdException(CbdErrorKind.Unsupported, $"{options.Name}: FUSE of this kernel is older than 7.{FuseProtocol.MinorVersion}: Linux 5.4 or later is needed", e);
            throw;
        }

        if (!IsDirect(_node))
            options.Log($"{options.Name}: {_node} has no direct I/O; what is written stays in memory twice");
    }

    /// <inheritdoc/>
    public void Resize()
    {
        BlockDeviceInfo info = _file!.Device.Info;
        loop.Resize(_mount!, _fileName, _node, info.SizeBytes, info.LogicalBlockBytes);
    }

    /// <inheritdoc/>
    public string? FindTrouble() => _node is { Length: > 0 } node && LoopDevice.TryGetFile(node) is { } file && file != BackingFile
        ? $"another program detached its loop device {node} (losetup -d), and what used it got errors: stop the device and start it again"
        : null;

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
            loop.Clear(_node, BackingFile, exclusive: true);
            if (!AwaitCleared())
                options.Log($"{options.Name}: {_node} was opened while it was being stopped; it goes when it is closed, with errors until then");
            EndFileSystem();
        }

        _node = "";
    }

    public void Dispose()
    {
        if (_node.Length > 0)
            Stop(force: true);
        else
            EndFileSystem();
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
            loop.Clear(_node, BackingFile, exclusive: false);
        }
        catch (CbdException e)
        {
            options.Log($"{options.Name}: {_node} is left: {e.Message}");
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
        _mount?.Dispose();
        _mount = null;
    }

    private void WakePumps()
    {
        foreach (FusePump pump in _pumps)
            pump.Wake();
    }

    private static bool IsDirect(string node) => KernelFiles.Line($"/sys/block/{Path.GetFileName(node)}/loop/dio") == "1";
}
