using System.Globalization;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// Whose an nbd device is, in the text that the kernel keeps with it: "cbd:PROCESS:START:NAME". So what a killed daemon
/// left is found without any file.
/// </summary>
/// <param name="ProcessId">The daemon, or 0: <see cref="DaemonProcess"/>.</param>
/// <param name="StartTicks">When it began.</param>
/// <param name="Name">The device's name there.</param>
internal readonly record struct KernelNbdOwner(int ProcessId, long StartTicks, string Name)
{
    private const string Magic = "cbd";

    internal static KernelNbdOwner Self(string name) => new(DaemonProcess.OwnNumber, DaemonProcess.OwnStartTicks, name);

    /// <summary>The process has ended for sure.</summary>
    internal bool IsGone => DaemonProcess.IsGone(ProcessId, StartTicks);

    internal string Encode() => string.Create(CultureInfo.InvariantCulture, $"{Magic}:{ProcessId}:{StartTicks}:{Name}");

    /// <summary>False if the text is not one of ours.</summary>
    internal static bool TryDecode(string text, out KernelNbdOwner owner)
    {
        owner = default;
        string[] parts = text.Split(':', 4);
        if (parts.Length != 4 || parts[0] != Magic ||
            !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int process) ||
            !long.TryParse(parts[2], NumberStyles.None, CultureInfo.InvariantCulture, out long start))
            return false;
        owner = new KernelNbdOwner(process, start, parts[3]);
        return true;
    }
}
