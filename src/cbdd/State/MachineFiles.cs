using Cbd.Host.Wanted;

namespace Cbd.Programs.Daemon.State;

/// <summary>What this machine says of itself.</summary>
internal static class MachineFiles
{
    /// <param name="root">The directory that stands for <c>/</c>.</param>
    public static MachineIdentity Read(string root = "/") => new()
    {
        MachineId = Text(Path.Combine(root, "etc/machine-id")),
        DmiUuid = Text(Path.Combine(root, "sys/class/dmi/id/product_uuid")),
    };

    private static string? Text(string path)
    {
        try
        {
            using var file = new StreamReader(path);
            var buffer = new char[128];
            var text = new string(buffer, 0, file.ReadBlock(buffer)).Trim().ToLowerInvariant();
            // "uninitialized" before the first boot; some firmware has no uuid of its own.
            return text.Length is >= 32 and <= 36 && text.All(c => char.IsAsciiHexDigit(c) || c == '-') && text.Any(c => c is not ('0' or 'f' or '-')) ? text : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
