namespace Cbd.Memory;

/// <summary>What tells one running kernel from another.</summary>
public static class ProcessIdentity
{
    private const string BootIdPath = "/proc/sys/kernel/random/boot_id";

    /// <summary>Random for each boot of this kernel (proc_sys_kernel(5)); containers share their kernel's.</summary>
    public static Guid BootId { get; } = ReadBootId();

    private static Guid ReadBootId()
    {
        string text = File.ReadAllText(BootIdPath).Trim();
        return Guid.TryParseExact(text, "D", out Guid id)
            ? id
            : throw new CbdException(CbdErrorKind.Unsupported, $"{BootIdPath} holds '{text}', which is not a UUID: mount /proc of the running kernel");
    }
}
