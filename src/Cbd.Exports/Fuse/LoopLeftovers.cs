using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Cbd.Memory;

namespace Cbd.Exports.Fuse;

/// <summary>Loop devices that a killed daemon left: their file system has ended with it, they themselves have not.</summary>
internal static class LoopLeftovers
{
    /// <param name="loop">Removes them.</param>
    /// <param name="lives">Those of this daemon; null if it has none.</param>
    internal static IEnumerable<KernelLeftover> Find(LoopProcess loop, AttachmentLives? lives)
    {
        foreach (string device in KernelFiles.Entries("/sys/block").Where(name => name.StartsWith("loop", StringComparison.Ordinal)))
        {
            string node = $"/dev/{device}";
            string file = LoopDevice.FileOf(node);
            if (LoopOwner.TryParse(file) is { } owner && owner.IsLeftover(lives))
                yield return new KernelLeftover(node, () => Remove(loop, node, file, owner));
        }
    }

    private static string Remove(LoopProcess loop, string node, string file, LoopOwner owner)
    {
        string what = $"{node} was left by {owner.Describe()}";
        try
        {
            loop.Clear(node, file, exclusive: false);
        }
        catch (CbdException e)
        {
            return $"{what} and cannot be removed: {e.Message}";
        }

        string left = LoopDevice.FileOf(node) == file ? "; it goes when those who still use it, with errors, let it go" : "";
        return $"{what} and is removed{left}";
    }
}
