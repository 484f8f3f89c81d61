using System.Globalization;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Fuse;

/// <summary>The kind "fuse": a file served over <c>/dev/fuse</c> with a loop device on it. Thread-safe.</summary>
/// <param name="program">
/// The program that has <see cref="LoopProgram"/> as its hidden subcommand; null: the one that runs.
/// </param>
internal sealed class FuseAttachKind(string? program = null) : IAttachKind
{
    private const int AdministratorCapability = 21; // CAP_SYS_ADMIN
    private static readonly Version s_leastKernel = new(5, 8);

    private readonly LoopProcess _loop = new(program ?? LoopProcess.OwnProgram);

    /// <inheritdoc/>
    public string Name => "fuse";

    /// <inheritdoc/>
    public bool IsAvailable(out string whyNot)
    {
        whyNot = WhyNot();
        return whyNot.Length == 0;
    }

    /// <inheritdoc/>
    public IKernelAttachment Open(AttachOptions options) => new FuseAttachment(options, _loop);

    /// <inheritdoc/>
    public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log) => LoopLeftovers.Find(_loop);

    private static string WhyNot()
    {
        // LOOP_CONFIGURE is of 5.8, the calls that mount without a place of 5.2 and FUSE's part in them of 5.4.
        Version kernel = Environment.OSVersion.Version;
        if (kernel < s_leastKernel)
            return $"this kernel is {kernel}, and {s_leastKernel} is needed";
        foreach ((string path, string module) in new[] { (FuseChannel.DevicePath, "fuse"), (LoopDevice.ControlPath, "loop") })
        {
            int error = FileDescriptor.TryOpen(path, OpenFlags.ReadWrite, 0, out FileDescriptor? opened);
            opened?.Dispose();
            if (error is -Errno.ENOENT or -Errno.ENODEV or -Errno.ENXIO)
                return $"{path} does not exist or has no driver: load the module with 'modprobe {module}'";
            if (error != 0)
                return $"{path} cannot be opened (errno {-error}): run cbdd as root, in a container with that device";
        }

        return HasCapability(AdministratorCapability) ? "" : "the right to mount and to configure loop devices is missing: run cbdd as root, with CAP_SYS_ADMIN";
    }

    private static bool HasCapability(int number)
    {
        const string key = "CapEff:";
        try
        {
            string? line = File.ReadLines("/proc/self/status").FirstOrDefault(l => l.StartsWith(key, StringComparison.Ordinal));
            return line is not null &&
                ulong.TryParse(line.AsSpan(key.Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong bits) &&
                (bits >> number & 1) != 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
