namespace Cbd.Disks;

/// <summary>Short texts that the kernel or the system has in files.</summary>
internal static class KernelText
{
    /// <summary>Without white space around it; empty where there is no such file.</summary>
    public static string Read(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The kernel has no such attribute for this kind of device, or not for us.
            return "";
        }
    }
}
