using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Host.Attachments;

/// <summary>
/// A device of this machine's kernel as an export: what is the same for all kinds of attachment.
/// </summary>
internal sealed class AttachedExport(string kind, IKernelAttachment attachment, DeviceLink link) : IExport
{
    private const int UseWaitMs = 2000;
    private const int UsePollMs = 50;

    /// <inheritdoc/>
    public string Uri => link.Path;

    /// <inheritdoc/>
    public int ClientCount => 0;

    /// <inheritdoc/>
    public string Node => attachment.Node;

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        try
        {
            attachment.Serve(device, queues, mode);
            link.Point(attachment.Node);
        }
        catch (CbdException e)
        {
            if (attachment.Node.Length > 0)
                attachment.Stop(force: true);
            throw new CbdException(e.Kind, $"{link.Path} cannot be attached by {kind}: {e.Message}; --attach none serves the device over NBD instead", e);
        }
    }

    /// <summary>
    /// Whoever was told of the device by udev looks at it for a moment: what ends by itself soon is no use.
    /// </summary>
    public string? DescribeUse()
    {
        string? users = NodeUsers.Describe(attachment.Node);
        for (int waited = 0; users is not null && !users.StartsWith("mounted", StringComparison.Ordinal) && waited < UseWaitMs; waited += UsePollMs)
        {
            Thread.Sleep(UsePollMs);
            users = NodeUsers.Describe(attachment.Node);
        }

        return users is null ? null : $"as {link.Path} ({attachment.Node}), {users}: unmount or close it";
    }

    /// <inheritdoc/>
    public void Resize() => attachment.Resize();

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        attachment.Stop(force);
        link.Remove();
    }

    public void Dispose()
    {
        attachment.Dispose();
        link.Dispose();
    }
}
