namespace Cbd.Host.Attachments;

/// <summary>What can be asked for with <c>dev-start --attach</c>.</summary>
internal static class AttachChoice
{
    /// <summary>The best that there is, or none.</summary>
    public const string Auto = "auto";

    /// <summary>NBD over a socket: no node.</summary>
    public const string None = "none";

    /// <summary>The kernel's block driver whose server is a process.</summary>
    public const string Ublk = "ublk";

    /// <summary>The kernel's NBD client.</summary>
    public const string KernelNbd = "nbd";

    /// <summary>A file served over <c>/dev/fuse</c>, and a loop device on it.</summary>
    public const string Fuse = "fuse";

    /// <summary>The kinds by name, the best first.</summary>
    public static readonly IReadOnlyList<string> Order = [Ublk, KernelNbd, Fuse];
}
