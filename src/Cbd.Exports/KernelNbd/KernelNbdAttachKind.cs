using System.Globalization;
using Cbd.Memory;
using Cbd.Host.Attachments;

namespace Cbd.Exports.KernelNbd;

/// <summary>Attaches devices through the kernel's NBD client, whose server is this process.</summary>
internal sealed class KernelNbdAttachKind : IAttachKind
{
    private const string Module = "nbd";
    private const string BlockDirectory = "/sys/block";
    private const int CapabilityAdministrator = 21;

    /// <inheritdoc/>
    public string Name => "nbd";

    /// <inheritdoc/>
    public bool IsAvailable(out string whyNot)
    {
        using NbdNetlink? netlink = TryOpen(out whyNot);
        return netlink is not null;
    }

    /// <inheritdoc/>
    public IKernelAttachment Open(AttachOptions options)
    {
        NbdNetlink netlink = TryOpen(out string whyNot) ??
            throw new CbdException(CbdErrorKind.Unsupported, $"the kernel's nbd is not available: {whyNot}");
        return new KernelNbdAttachment(netlink, options);
    }

    /// <inheritdoc/>
    public void CleanUp(Action<string> log)
    {
        int[] leftovers = [.. FindLeftovers()];
        if (leftovers.Length == 0)
            return;
        using NbdNetlink? netlink = TryOpen(out string whyNot);
        foreach (int number in leftovers)
        {
            string what = $"/dev/nbd{number.ToString(CultureInfo.InvariantCulture)} of an ended daemon";
            int error = netlink?.Disconnect(number) ?? -Errno.EPERM;
            log(error == 0
                ? $"{what} was disconnected; what it had not written is lost to its users"
                : $"{what} cannot be disconnected: {(netlink is null ? whyNot : $"errno {-error} {netlink.LastText}")}");
        }
    }

    private static NbdNetlink? TryOpen(out string whyNot)
    {
        whyNot = "";
        if (!Directory.Exists($"/sys/module/{Module}"))
        {
            whyNot = $"the module is not loaded: load it with 'modprobe {Module}' (CONFIG_BLK_DEV_NBD)";
            return null;
        }

        if (!HasCapability(CapabilityAdministrator))
        {
            whyNot = "this process lacks CAP_SYS_ADMIN, which connecting needs: run as root";
            return null;
        }

        NbdNetlink? netlink = NbdNetlink.TryOpen(out int error);
        if (netlink is null)
        {
            whyNot = error == -Errno.ENOENT
                ? "its netlink family is not found: run in the machine's first network namespace, on Linux 4.12 or later"
                : $"netlink refuses (errno {-error})";
        }

        return netlink;
    }

    private static bool HasCapability(int capability)
    {
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("CapEff:", StringComparison.Ordinal))
                return (ulong.Parse(line.AsSpan(7).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) >> capability & 1) != 0;
        }

        return false;
    }

    private static IEnumerable<int> FindLeftovers()
    {
        if (!Directory.Exists(BlockDirectory))
            yield break;
        foreach (string path in Directory.EnumerateFileSystemEntries(BlockDirectory, "nbd*"))
        {
            string name = Path.GetFileName(path);
            if (int.TryParse(name.AsSpan(3), NumberStyles.None, CultureInfo.InvariantCulture, out int number) &&
                ReadBackend(path) is { } text && KernelNbdOwner.TryDecode(text, out KernelNbdOwner owner) && owner.IsGone)
                yield return number;
        }
    }

    /// <summary>Null: not connected, or by somebody who gave no text, or a kernel before 5.14.</summary>
    private static string? ReadBackend(string path)
    {
        try
        {
            return File.ReadAllText($"{path}/backend").Trim();
        }
        catch (IOException)
        {
            return null;
        }
    }
}
