using System.Globalization;
using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Host.Attachments;

namespace Cbd.Exports.KernelNbd;

/// <summary>Attaches devices through the kernel's NBD client, whose server is this process.</summary>
/// <param name="lives">The lives of this daemon's attachments; null: its attachments end with it.</param>
internal sealed class KernelNbdAttachKind(AttachmentLives? lives = null) : IAttachKind
{
    private const string Module = "nbd";

    /// <summary>The first that keeps a text with a device, by which a successor knows it.</summary>
    private static readonly Version s_leastKernel = new(5, 14);

    /// <inheritdoc/>
    public string Name => AttachChoice.KernelNbd;

    /// <inheritdoc/>
    public bool Outlives => Environment.OSVersion.Version >= s_leastKernel;

    /// <inheritdoc/>
    public bool IsAvailable(out string whyNot)
    {
        using NbdNetlink? netlink = TryOpen(out whyNot);
        return netlink is not null;
    }

    /// <inheritdoc/>
    public IKernelAttachment Open(KernelExportOptions options)
    {
        NbdNetlink netlink = TryOpen(out string whyNot) ??
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel's nbd is not available: {whyNot}");
        return new KernelNbdAttachment(netlink, options, lives);
    }

    /// <inheritdoc/>
    public bool GoesOn(string kernelName) =>
        kernelName.StartsWith("nbd", StringComparison.Ordinal) && int.TryParse(kernelName.AsSpan(3), NumberStyles.None, CultureInfo.InvariantCulture, out int number) &&
        KernelNbdOwner.TryDecode(BackendOf(number), out KernelNbdOwner owner) && owner.Life is not null && !owner.IsLeftover(lives);

    /// <inheritdoc/>
    public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log)
    {
        int[] leftovers = [.. ListLeftovers()];
        if (leftovers.Length == 0)
            yield break;
        using NbdNetlink? netlink = TryOpen(out string whyNot);
        if (netlink is null)
        {
            log($"{leftovers.Length} nbd devices of ended daemons cannot be disconnected: {whyNot}");
            yield break;
        }

        foreach (int number in leftovers)
        {
            string node = $"/dev/nbd{number.ToString(CultureInfo.InvariantCulture)}";
            yield return new KernelLeftover(node, () => Remove(netlink, number, $"{node} of an ended daemon"));
        }
    }

    /// <summary>
    /// The text that the kernel keeps with a connected device; empty if it is not connected, or by somebody who gave no
    /// text, or before Linux 5.14.
    /// </summary>
    internal static string BackendOf(int number) => KernelFiles.Line($"/sys/block/nbd{number.ToString(CultureInfo.InvariantCulture)}/backend").Trim();

    private static string Remove(NbdNetlink netlink, int number, string what)
    {
        int error = netlink.Disconnect(number);
        return error == 0
            ? $"{what} was disconnected; what it had not written is lost to its users"
            : $"{what} cannot be disconnected: errno {-error} {netlink.LastText}";
    }

    private static NbdNetlink? TryOpen(out string whyNot)
    {
        if (!KernelSupport.HasModule(Module))
            whyNot = KernelSupport.WhyNoModule(Module, "CONFIG_BLK_DEV_NBD");
        else
            whyNot = KernelSupport.WhyNoAdministrator("connecting") ?? "";
        if (whyNot.Length > 0)
            return null;
        NbdNetlink? netlink = NbdNetlink.TryOpen(out int error);
        if (netlink is null)
        {
            whyNot = error == -Errno.ENOENT
                ? "its netlink family is not found: run in the machine's first network namespace, on Linux 4.12 or later"
                : $"netlink refuses (errno {-error})";
        }

        return netlink;
    }

    private IEnumerable<int> ListLeftovers()
    {
        foreach (string name in KernelFiles.Entries("/sys/block").Where(name => name.StartsWith("nbd", StringComparison.Ordinal)))
        {
            if (int.TryParse(name.AsSpan(3), NumberStyles.None, CultureInfo.InvariantCulture, out int number) &&
                KernelNbdOwner.TryDecode(BackendOf(number), out KernelNbdOwner owner) && owner.IsLeftover(lives))
                yield return number;
        }
    }
}
