using System.Globalization;
using Cbd.Exports.Kernel;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// Whose an nbd device is, in the text that the kernel keeps with it: "cbd:PROCESS:START:NAME".
/// </summary>
/// <param name="ProcessId">The daemon, or 0: <see cref="OwnerProcess.SelfInFirstNamespace"/>.</param>
/// <param name="StartTicks">When it began.</param>
/// <param name="Name">The device's name there.</param>
internal readonly record struct KernelNbdOwner(int ProcessId, long StartTicks, string Name)
{
    private const string Magic = "cbd";

    internal static KernelNbdOwner Self(string name) => new(OwnerProcess.SelfInFirstNamespace.Id, OwnerProcess.Self.StartTicks ?? 0, name);

    /// <summary>The process has ended for sure.</summary>
    internal bool IsGone => new OwnerProcess(ProcessId, StartTicks, OwnerProcess.FirstNamespace).IsGone;

    internal string Encode() => string.Create(CultureInfo.InvariantCulture, $"{Magic}:{ProcessId}:{StartTicks}:{Name}");

    /// <summary>False if the text is not one of ours.</summary>
    internal static bool TryDecode(string text, out KernelNbdOwner owner)
    {
        owner = default;
        string[] parts = text.Split(':', 4);
        if (parts.Length != 4 || parts[0] != Magic ||
            !OwnerProcess.TryParse(parts[1], out int process) ||
            !OwnerProcess.TryParse(parts[2], out long start))
            return false;
        owner = new KernelNbdOwner(process, start, parts[3]);
        return true;
    }
}
