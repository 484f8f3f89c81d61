using System.Globalization;
using System.Text.RegularExpressions;
using Cbd.Exports.Kernel;

namespace Cbd.Exports.Fuse;

/// <summary>
/// Whose a loop device is, in the name of its file, which the kernel shows in sysfs: "NAME.cbdd-PROCESS-START-NAMESPACE".
/// </summary>
/// <param name="Name">The device's name there.</param>
/// <param name="Process">The daemon that serves the file.</param>
internal sealed partial record LoopOwner(string Name, OwnerProcess Process)
{
    /// <summary>The file that this process serves as the device <paramref name="name"/>.</summary>
    internal static LoopOwner Self(string name) => new(name, OwnerProcess.Self);

    internal string FileName => string.Create(CultureInfo.InvariantCulture, $"{Name}.cbdd-{Process.Id}-{Process.StartTicks}-{Process.Namespace}");

    /// <summary>Reads the path of a loop device's file; null if the device is none of CBD's.</summary>
    internal static LoopOwner? TryParse(string path)
    {
        Match match = Pattern().Match(path);
        if (!match.Success ||
            !OwnerProcess.TryParse(match.Groups[2].Value, out int process) ||
            !OwnerProcess.TryParse(match.Groups[3].Value, out long start) ||
            !ulong.TryParse(match.Groups[4].Value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong space))
            return null;
        return new LoopOwner(match.Groups[1].Value, new OwnerProcess(process, start, space));
    }

    [GeneratedRegex(@"^/?([A-Za-z][A-Za-z0-9._-]{0,30})\.cbdd-([0-9]+)-([0-9]+)-([0-9]+)$")]
    private static partial Regex Pattern();
}
