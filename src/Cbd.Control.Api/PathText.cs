namespace Cbd.Control.Api;

/// <summary>
/// Paths as they were typed. The kernel alone resolves them: behind a symbolic link, <c>..</c> is not what a text without it says. Any thread.
/// </summary>
internal static class PathText
{
    /// <summary>What a byte that is not UTF-8 becomes when a program gets its arguments as text.</summary>
    private const char Undecodable = '\uFFFD';

    private const int MostLinks = 40;

    /// <summary>
    /// The path of a region, disk, socket or directory, as it is under the working directory of this process; nothing else is changed but <c>.</c>
    /// and doubled slashes. <c>memory:</c> and <c>null:</c> disks stay as they are.
    /// </summary>
    /// <exception cref="CbdException">It has bytes that are not UTF-8, or is relative and there is no working directory any more.</exception>
    public static string FromCaller(string path)
    {
        if (path.Length == 0 || StartBackendOptions.IsDiskScheme(path) || path.Contains('\0', StringComparison.Ordinal))
            return path;
        if (path.Contains(Undecodable, StringComparison.Ordinal))
            throw new CbdException(CbdErrorKind.Invalid, $"path '{path}' has bytes that are not UTF-8: give the file a name that is, or a symbolic link with such a name");
        return Plain(path[0] == '/' ? path : $"{WorkingDirectory(path)}/{path}");
    }

    /// <summary>The same for an NBD address: only <c>unix:</c> has a path in it.</summary>
    public static string AddressFromCaller(string address) =>
        address.StartsWith("unix:", StringComparison.Ordinal) ? "unix:" + FromCaller(address["unix:".Length..]) : address;

    /// <summary>
    /// A directory as <see cref="FromCaller"/> gives it, and without <c>..</c>: what leads to it is looked up now. For files that libraries open,
    /// which take <c>..</c> away as text. What is not there yet keeps its name.
    /// </summary>
    /// <exception cref="CbdException">As <see cref="FromCaller"/>; or its symbolic links have no end.</exception>
    public static string DirectoryFromCaller(string path)
    {
        string absolute = FromCaller(path).TrimEnd('/');
        if (!absolute.Contains("/..", StringComparison.Ordinal))
            return absolute.Length > 0 ? absolute : "/";
        string reached = "";
        int links = 0;
        var rest = new Stack<string>(absolute.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse());
        while (rest.TryPop(out string? name))
        {
            if (name == "..")
            {
                reached = reached.Length > 0 ? reached[..reached.LastIndexOf('/')] : "";
                continue;
            }

            if (new FileInfo($"{reached}/{name}").LinkTarget is not { } target)
            {
                reached = $"{reached}/{name}";
                continue;
            }

            if (++links > MostLinks)
                throw new CbdException(CbdErrorKind.Invalid, $"path '{path}' has too many symbolic links: give one without");
            if (target.StartsWith('/'))
                reached = "";
            foreach (string part in target.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse().Where(part => part != "."))
                rest.Push(part);
        }

        return reached.Length > 0 ? reached : "/";
    }

    /// <summary>Without <c>.</c> and doubled slashes, which never change where a path leads; a slash at the end does.</summary>
    private static string Plain(string path)
    {
        string plain = "/" + string.Join('/', path.Split('/', StringSplitOptions.RemoveEmptyEntries).Where(part => part != "."));
        return plain.Length > 1 && (path.EndsWith('/') || path.EndsWith("/.", StringComparison.Ordinal)) ? plain + "/" : plain;
    }

    private static string WorkingDirectory(string path)
    {
        try
        {
            string directory = Environment.CurrentDirectory;
            return !directory.Contains(Undecodable, StringComparison.Ordinal) ? directory
                : throw new CbdException(CbdErrorKind.Invalid, $"path '{path}' is under a working directory whose name is not UTF-8: give an absolute path");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Invalid, $"path '{path}' is relative, and the working directory is gone: give an absolute path", e);
        }
    }
}
