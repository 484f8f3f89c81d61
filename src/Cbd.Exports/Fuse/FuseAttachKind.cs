using Cbd.Exports.Kernel;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Fuse;

/// <summary>The kind "fuse": a file served over <c>/dev/fuse</c> with a loop device on it. Thread-safe.</summary>
/// <param name="program">
/// The program that has <see cref="LoopProgram"/> as its hidden subcommand; null: the one that runs.
/// </param>
/// <param name="lives">The lives of this daemon's attachments; null: its attachments end with it.</param>
internal sealed class FuseAttachKind(string? program = null, AttachmentLives? lives = null) : IAttachKind
{
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
    public bool Outlives => true;

    /// <inheritdoc/>
    public IKernelAttachment Open(KernelExportOptions options) => new FuseAttachment(options, _loop, lives);

    /// <inheritdoc/>
    public bool GoesOn(string kernelName) =>
        kernelName.StartsWith("loop", StringComparison.Ordinal) && LoopOwner.TryParse(LoopDevice.FileOf($"/dev/{kernelName}")) is { Life: not null } owner && !owner.IsLeftover(lives);

    /// <inheritdoc/>
    public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log) => LoopLeftovers.Find(_loop, lives);

    private static string WhyNot()
    {
        // LOOP_CONFIGURE is of 5.8, the calls that mount without a place of 5.2 and FUSE's part in them of 5.4.
        Version kernel = Environment.OSVersion.Version;
        if (kernel < s_leastKernel)
            return $"this kernel is {kernel}, and {s_leastKernel} is needed";
        foreach ((string path, string module) in new[] { (FuseChannel.DevicePath, "fuse"), (LoopDevice.ControlPath, "loop") })
        {
            using FileDescriptor? opened = KernelSupport.TryOpenNode(path, module, "", out string whyNot);
            if (opened is null)
                return whyNot;
        }

        return KernelSupport.WhyNoAdministrator("mounting and configuring loop devices") ?? "";
    }
}
