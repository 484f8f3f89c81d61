using System.Globalization;
using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Ublk;

/// <summary>Attaches devices through ublk, the kernel's block driver whose server is a process (Linux 6.5 and later).</summary>
/// <param name="lives">The lives of this daemon's attachments; null: its attachments end with it.</param>
internal sealed class UblkAttachKind(AttachmentLives? lives = null) : IAttachKind
{
    private const string ServerPrefix = "ublkc", BlockPrefix = "ublkb";

    /// <inheritdoc/>
    public string Name => AttachChoice.Ublk;

    /// <summary>The kernel can wait for another server, and gives it what the last one had not done.</summary>
    public bool Outlives
    {
        get
        {
            using UblkControl? control = TryOpen(out ulong features, out _);
            return control is not null && (features & UblkAttachment.RecoveryFeatures) == UblkAttachment.RecoveryFeatures;
        }
    }

    /// <inheritdoc/>
    public bool IsAvailable(out string whyNot)
    {
        using UblkControl? control = TryOpen(out _, out whyNot);
        return control is not null;
    }

    /// <inheritdoc/>
    public IKernelAttachment Open(KernelExportOptions options)
    {
        UblkControl control = TryOpen(out ulong features, out string whyNot) ??
            throw new CbdException(CbdErrorKind.Unsupported, $"ublk is not available: {whyNot}");
        return new UblkAttachment(control, features, options, lives);
    }

    /// <inheritdoc/>
    public bool GoesOn(string kernelName)
    {
        if (!kernelName.StartsWith(BlockPrefix, StringComparison.Ordinal) ||
            !uint.TryParse(kernelName.AsSpan(BlockPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out uint device))
            return false;
        using UblkControl? control = UblkControl.TryOpen(out _);
        // What cannot be looked at may be one.
        if (control is null || (control.GetInfo(device, out UblkDeviceInfo info) is < 0 and not -Errno.ENODEV))
            return true;
        return UblkOwner.TryDecode(info.Owner, out UblkOwner owner) && owner.Life is { } life && !life.IsLeftover(lives);
    }

    /// <inheritdoc/>
    public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log)
    {
        uint[] devices = [.. ListDevices()];
        if (devices.Length == 0)
            yield break;
        using UblkControl? control = UblkControl.TryOpen(out string whyNot);
        if (control is null)
        {
            log($"ublk devices of killed daemons, if there are any, are left alone: {whyNot}");
            yield break;
        }

        foreach (uint device in devices)
        {
            if (control.GetInfo(device, out UblkDeviceInfo info) == 0 && IsLeftover(info, lives))
            {
                string node = $"/dev/ublkb{device.ToString(CultureInfo.InvariantCulture)}";
                yield return new KernelLeftover(node, () => Remove(control, device, $"{node} of the ended process {info.ProcessId}"));
            }
        }
    }

    /// <summary>Ends a device without a server, with errors for its users, and gives its number back.</summary>
    internal static int End(UblkControl control, uint device)
    {
        int result = control.Stop(device);
        return result is 0 or -Errno.ENODEV ? control.Delete(device) : result;
    }

    /// <summary>It is one of ours, and its daemon has ended.</summary>
    /// <param name="info">What the kernel says of it.</param>
    /// <param name="lives">Of this daemon; null if it has no lives.</param>
    internal static bool IsLeftover(in UblkDeviceInfo info, AttachmentLives? lives)
    {
        if (!UblkOwner.TryDecode(info.Owner, out UblkOwner owner))
            return false;
        if (owner.Life is { } life)
            return life.IsLeftover(lives);
        // Quiesced: the kernel says that the server's files are closed. Any other state may be that of a device which a
        // living daemon starts or stops.
        return info.State is UblkProtocol.StateQuiesced or UblkProtocol.StateFailIo || owner.IsGone;
    }

    private static string Remove(UblkControl control, uint device, string what)
    {
        int result = End(control, device);
        return result is 0 or -Errno.ENODEV
            ? $"{what} was removed; what it had not written is lost to its users"
            : $"{what} cannot be removed: errno {-result}; see dmesg";
    }

    private static IEnumerable<uint> ListDevices()
    {
        foreach (string name in KernelFiles.Entries(UblkProtocol.DevicesDirectory))
        {
            if (name.StartsWith(ServerPrefix, StringComparison.Ordinal) &&
                uint.TryParse(name.AsSpan(ServerPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out uint device))
                yield return device;
        }
    }

    private static UblkControl? TryOpen(out ulong features, out string whyNot)
    {
        features = 0;
        UblkControl? control = UblkControl.TryOpen(out whyNot);
        if (control is null)
            return null;
        int result = control.GetFeatures(out features);
        if (result == 0 && (features & UblkProtocol.FeatureIoctlEncoding) != 0)
            return control;
        control.Dispose();
        whyNot = result is -Errno.EPERM or -Errno.EACCES
            ? $"{UblkProtocol.ControlNode} refuses commands (errno {-result}): {Privilege.Remedy("CAP_SYS_ADMIN")}"
            : $"this kernel's ublk ({KernelSupport.Release}) is too old (GET_FEATURES: {result}): Linux 6.5 is needed";
        return null;
    }
}
