using System.Globalization;
using System.Text.RegularExpressions;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Fuse;

/// <summary>
/// Whose a loop device is, in the name of its file, which the kernel shows in sysfs: "NAME.cbdd-PROCESS-START-NAMESPACE" of one that ends with
/// its daemon, "NAME.cbdd-UUID-LIFE" of one that outlives it. Exactly one of the two is there.
/// </summary>
/// <param name="Name">The device's name there.</param>
/// <param name="Process">The daemon that serves the file.</param>
/// <param name="Life">The life of the attachment.</param>
internal sealed partial record LoopOwner(string Name, OwnerProcess? Process, LifeMark? Life)
{
    /// <summary>The file that this process serves as the device <paramref name="name"/>, in a life of its own if there is one.</summary>
    internal static LoopOwner Self(string name, AttachmentLife? life = null) =>
        life is null ? new(name, OwnerProcess.Self, null) : new(name, null, new LifeMark(life.Host, life.Id));

    internal string FileName => Life is { } life
        ? $"{Name}.cbdd-{life.Host:D}-{AttachmentLife.TextOf(life.Id)}"
        : string.Create(CultureInfo.InvariantCulture, $"{Name}.cbdd-{Process!.Value.Id}-{Process.Value.StartTicks}-{Process.Value.Namespace}");

    /// <summary>The device was left for sure: its process is gone, or this daemon's state directory has it and it is none that is served.</summary>
    /// <param name="lives">Of this daemon; null if it has no lives.</param>
    internal bool IsLeftover(AttachmentLives? lives) =>
        Life is { } life ? life.IsLeftover(lives) : Process!.Value.IsGone;

    /// <summary>For the log: "a killed cbdd (pid 5, cbd0)".</summary>
    internal string Describe() => Life is { } life
        ? $"a killed cbdd (host {life.Host:D}, {Name}, life {AttachmentLife.TextOf(life.Id)})"
        : string.Create(CultureInfo.InvariantCulture, $"a killed cbdd (pid {Process!.Value.Id}, {Name})");

    /// <summary>Reads the path of a loop device's file; null if the device is none of CBD's.</summary>
    internal static LoopOwner? TryParse(string path)
    {
        Match match = LifePattern().Match(path);
        if (match.Success)
        {
            ulong id = ulong.Parse(match.Groups[3].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
            return id == 0 ? null : new LoopOwner(match.Groups[1].Value, null, new LifeMark(Guid.ParseExact(match.Groups[2].ValueSpan, "D"), id));
        }

        match = ProcessPattern().Match(path);
        if (!match.Success ||
            !OwnerProcess.TryParse(match.Groups[2].Value, out int process) ||
            !OwnerProcess.TryParse(match.Groups[3].Value, out long start) ||
            !ulong.TryParse(match.Groups[4].Value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong space))
            return null;
        return new LoopOwner(match.Groups[1].Value, new OwnerProcess(process, start, space), null);
    }

    [GeneratedRegex(@"^/?([A-Za-z][A-Za-z0-9._-]{0,30})\.cbdd-([0-9]+)-([0-9]+)-([0-9]+)$")]
    private static partial Regex ProcessPattern();

    [GeneratedRegex(@"^/?([A-Za-z][A-Za-z0-9._-]{0,30})\.cbdd-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([0-9a-f]{16})$")]
    private static partial Regex LifePattern();
}
