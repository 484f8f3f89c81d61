namespace Cbd.Control.Verbs;

/// <summary>Paths mean what they mean where they were typed; the daemon has another working directory.</summary>
internal static class PathText
{
    /// <summary>A region or disk path made absolute; <c>memory:</c> and <c>null:</c> disks stay as they are.</summary>
    public static string FromCaller(string path) =>
        path.Length == 0 || StartBackendOptions.IsDiskScheme(path) || path.Contains('\0', StringComparison.Ordinal)
            ? path
            : Path.GetFullPath(path);

    /// <summary>The same for an NBD address: only <c>unix:</c> has a path in it.</summary>
    public static string AddressFromCaller(string address) =>
        address.StartsWith("unix:", StringComparison.Ordinal) ? "unix:" + FromCaller(address["unix:".Length..]) : address;
}
