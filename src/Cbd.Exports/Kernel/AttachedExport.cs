using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Attachments;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>
/// A device of this machine's kernel as an export: what is the same for all kinds of attachment. Whatever ends the
/// device, its link goes before its node does.
/// </summary>
internal sealed class AttachedExport : IExport
{
    private const int UseWaitMs = 2000;
    private const int UsePollMs = 50;

    private readonly string _kind;
    private readonly IKernelAttachment _attachment;
    private readonly DeviceLink _link;
    private readonly Action<string> _log;

    /// <summary>A process before this one served it.</summary>
    private readonly bool _isLeft;

    internal AttachedExport(string kind, IKernelAttachment attachment, DeviceLink link, Action<string> log, bool isLeft = false)
    {
        _isLeft = isLeft;
        _kind = kind;
        _attachment = attachment;
        _link = link;
        _log = log;
    }

    /// <inheritdoc/>
    public string Uri => _link.Path;

    /// <inheritdoc/>
    public int ClientCount => 0;

    /// <inheritdoc/>
    public string Node => _attachment.Node;

    /// <summary>Takes the name, then what the kind needs of the kernel. Throws <see cref="CbdException"/>, and holds nothing then.</summary>
    internal static AttachedExport Open(IAttachKind kind, KernelExportOptions options, AttachPlaces places)
    {
        bool isLeft = options.Life is { GoesOn: true };
        DeviceLink link = DeviceLink.Take(places, options.Name, options.Region, isLeft);
        try
        {
            return new AttachedExport(kind.Name, kind.Open(options), link, options.Log, isLeft);
        }
        catch
        {
            link.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        try
        {
            _attachment.Serve(device, queues, mode);
            if (_attachment.GoesOn)
                // Its users are there already.
                PointAgain();
            else
                _link.Point(_attachment.Node);
        }
        catch (CbdException e) when (!e.MayPass)
        {
            TryRemoveLink();
            if (_attachment.Node.Length > 0)
                _attachment.Stop(force: true);
            else
                _attachment.Abandon();
            throw new CbdException(e.Kind, _isLeft
                ? $"{_link.Path} is over, and its users get I/O errors: {e.Message}; unmount it, dev-stop, check the data, dev-start"
                : $"{_link.Path} cannot be attached by {_kind}: {e.Message}; --attach none serves the device over NBD instead", e);
        }
    }

    /// <inheritdoc/>
    public Action? LookAgain
    {
        get => _attachment.LookAgain;
        set => _attachment.LookAgain = value;
    }

    /// <inheritdoc/>
    public string? FindTrouble()
    {
        if (_attachment.FindTrouble() is not { } trouble)
            return null;
        TryRemoveLink();
        return $"{_link.Path}: {trouble}";
    }

    /// <summary>
    /// Whoever was told of the device by udev looks at it for a moment: what ends by itself soon is no use.
    /// </summary>
    public string? DescribeUse()
    {
        // Users of the number are another's.
        if (_attachment.FindTrouble() is not null)
            return null;
        string? users = NodeUsers.Describe(_attachment.Node);
        // A look takes its time where there are many processes.
        long limit = Environment.TickCount64 + UseWaitMs;
        while (users is not null && !users.StartsWith("mounted", StringComparison.Ordinal) && Environment.TickCount64 < limit)
        {
            Thread.Sleep(UsePollMs);
            users = NodeUsers.Describe(_attachment.Node);
        }

        return users is null ? null : $"as {_link.Path} ({_attachment.Node}), {users}: unmount or close it";
    }

    /// <inheritdoc/>
    public void Resize() => _attachment.Resize();

    /// <inheritdoc/>
    public bool TryPark() => _attachment.TryPark();

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        if (force)
            TryRemoveLink();
        else
            _link.Remove();
        try
        {
            _attachment.Stop(force);
        }
        catch (CbdException) when (_attachment.Node.Length > 0)
        {
            PointAgain();
            throw;
        }
    }

    public void Dispose()
    {
        TryRemoveLink();
        _attachment.Dispose();
        _link.Dispose();
    }

    /// <summary>Its users have it, so it serves on, under its name if that can be had.</summary>
    private void PointAgain()
    {
        try
        {
            _link.Point(_attachment.Node);
        }
        catch (CbdException e)
        {
            _log($"{_attachment.Node} serves on without its name: {e.Message}");
        }
    }

    /// <summary>For an end that nothing holds up.</summary>
    private void TryRemoveLink()
    {
        try
        {
            _link.Remove();
        }
        catch (CbdException e)
        {
            _log(e.Message);
        }
    }
}
