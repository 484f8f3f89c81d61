using System.IO.Hashing;
using System.Text;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// Hashes of what a disk is. They tell disks apart and protect nothing, so they are not cryptographic: those of .NET load
/// OpenSSL, and end the process where there is none.
/// </summary>
internal static class DiskHash
{
    /// <summary>
    /// The same for the same text as long as the system is not booted anew: what the kernel had taken for a disk, it
    /// still has.
    /// </summary>
    public static Guid ForThisBoot(string text) =>
        new(Hash($"{ProcessIdentity.BootId:D} {text}").AsSpan(0, 16));

    /// <summary>8 hexadecimal digits that stand for a text of any length.</summary>
    public static string Tag(string text) => Convert.ToHexStringLower(Hash(text).AsSpan(0, 4));

    /// <summary>16 hexadecimal digits that stand for a text of any length.</summary>
    public static string Shorten(string text) => Convert.ToHexStringLower(Hash(text).AsSpan(0, 8));

    /// <summary>32 hexadecimal digits that stand for a text of any length.</summary>
    public static string Name(string text) => Convert.ToHexStringLower(Hash(text));

    private static byte[] Hash(string text) => XxHash128.Hash(Encoding.UTF8.GetBytes(text));
}
