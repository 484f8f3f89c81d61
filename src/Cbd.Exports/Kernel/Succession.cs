using Cbd.Blocks;
using Cbd.Host.Attachments;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>The life of an attachment, as the kernel keeps it with a device.</summary>
/// <param name="Host">Host of the state directory.</param>
/// <param name="Id">The life.</param>
internal readonly record struct LifeMark(Guid Host, ulong Id)
{
    /// <summary>This daemon's state directory has it, and it is none that is served.</summary>
    /// <param name="lives">Of this daemon; null if it has no lives.</param>
    internal bool IsLeftover(AttachmentLives? lives) => lives is not null && lives.IsLeftover(Host, Id);
}

/// <summary>What is the same for all kinds of attachment that go on with an earlier process's device.</summary>
internal static class Succession
{
    /// <summary>The error that another try does not change: the device ends.</summary>
    internal static CbdException Refused(string what) => new(CbdErrorKind.Invalid, $"the device cannot go on where its last daemon ended: {what}");

    /// <summary>
    /// The same error as one that may pass, if memory, a descriptor or a thread cannot be had now; null for others, which another try does not
    /// change.
    /// </summary>
    internal static CbdException? Passing(Exception e) => e switch
    {
        CbdException { Kind: CbdErrorKind.Exhausted or CbdErrorKind.Busy } passing => new CbdException(passing.Kind, passing.Message, passing) { MayPass = true },
        OutOfMemoryException => new CbdException(CbdErrorKind.Exhausted, "there is no memory left", e) { MayPass = true },
        _ => null,
    };

    /// <summary>The device served on while it grew. A kernel that is not told of it goes on with what it knows.</summary>
    internal static void AnnounceGrowth(IBlockDevice device, string node, Action resize, Action<string> log)
    {
        try
        {
            if (KernelDisk.Read(node) is { } disk && device.Info.SizeBytes > disk.SizeBytes)
                resize();
        }
        catch (CbdException e)
        {
            log($"{node} has its old size: {e.Message}");
        }
    }
}
