namespace Cbd.Memory;

/// <summary>What tells one running kernel from another.</summary>
public static class ProcessIdentity
{
    private const string BootIdPath = "/proc/sys/kernel/random/boot_id";

    /// <summary>Random for each boot of this kernel (proc_sys_kernel(5)); containers share their kernel's.</summary>
    /// <exception cref="CbdException">/proc is not there, or not that of a running kernel.</exception>
    public static Guid BootId => s_bootId.Value;

    private static readonly Lazy<Guid> s_bootId = new(ReadBootId, LazyThreadSafetyMode.PublicationOnly);

    private static Guid ReadBootId()
    {
        string text;
        try
        {
            text = File.ReadAllText(BootIdPath).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Unsupported, $"{BootIdPath} cannot be read ({e.Message}): mount /proc of the running kernel", e);
        }

        return Guid.TryParseExact(text, "D", out Guid id)
            ? id
            : throw new CbdException(CbdErrorKind.Unsupported, $"{BootIdPath} holds '{text}', which is not a UUID: mount /proc of the running kernel");
    }
}
