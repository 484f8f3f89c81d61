using System.Globalization;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// Whose an nbd device is, in the text that the kernel keeps with it: "cbd:PROCESS:START:NAME" of one that ends with its daemon,
/// "cbd:UUID:LIFE:NAME" of one that outlives it.
/// </summary>
/// <param name="ProcessId">The daemon, or 0: <see cref="OwnerProcess.SelfInFirstNamespace"/>.</param>
/// <param name="StartTicks">When it began.</param>
/// <param name="Name">The device's name there.</param>
/// <param name="Life">What outlives its daemon; null if it ends with it.</param>
internal readonly record struct KernelNbdOwner(int ProcessId, long StartTicks, string Name, LifeMark? Life = null)
{
    private const string Magic = "cbd";

    internal static KernelNbdOwner Self(string name) => new(OwnerProcess.SelfInFirstNamespace.Id, OwnerProcess.Self.StartTicks ?? 0, name);

    /// <summary>This process, or the life if there is one.</summary>
    internal static KernelNbdOwner Of(string name, AttachmentLife? life) => life is null ? Self(name) : new(0, 0, name, new LifeMark(life.Host, life.Id));

    /// <summary>The process has ended for sure.</summary>
    internal bool IsGone => new OwnerProcess(ProcessId, StartTicks, OwnerProcess.FirstNamespace).IsGone;

    /// <summary>The device was left for sure: its process is gone, or this daemon's state directory has it and it is none that is served.</summary>
    /// <param name="lives">Of this daemon; null if it has no lives.</param>
    internal bool IsLeftover(AttachmentLives? lives) => Life is { } life ? life.IsLeftover(lives) : IsGone;

    internal string Encode() => Life is { } life
        ? $"{Magic}:{life.Host:D}:{AttachmentLife.TextOf(life.Id)}:{Name}"
        : string.Create(CultureInfo.InvariantCulture, $"{Magic}:{ProcessId}:{StartTicks}:{Name}");

    /// <summary>False if the text is not one of ours.</summary>
    internal static bool TryDecode(string text, out KernelNbdOwner owner)
    {
        owner = default;
        string[] parts = text.Split(':', 4);
        if (parts.Length != 4 || parts[0] != Magic)
            return false;
        if (Guid.TryParseExact(parts[1], "D", out Guid host) && parts[2].Length == 16 &&
            ulong.TryParse(parts[2], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong life))
        {
            owner = new KernelNbdOwner(0, 0, parts[3], new LifeMark(host, life));
            return true;
        }

        if (!OwnerProcess.TryParse(parts[1], out int process) || !OwnerProcess.TryParse(parts[2], out long start))
            return false;
        owner = new KernelNbdOwner(process, start, parts[3]);
        return true;
    }
}
