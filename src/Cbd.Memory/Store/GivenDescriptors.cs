using System.Globalization;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Store;

/// <summary>One descriptor that this process was started with. It belongs to whoever takes it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Number">Its number. It need not be open.</param>
public readonly record struct GivenDescriptor(string Name, int Number);

/// <summary>
/// The descriptors that a service manager passed to this process (sd_listen_fds(3)): their number and names are in the environment, and they
/// are 3, 4 and so on. Listening sockets for the daemon, and what a store kept of the process before.
/// </summary>
public static class GivenDescriptors
{
    /// <summary>Far more than anybody passes; the name of each takes space in the environment.</summary>
    private const int MostDescriptors = 4096;

    /// <summary>The name that a service manager gives to a descriptor without one.</summary>
    private const string NoName = "unknown";
    private const int FirstDescriptor = 3;

    /// <summary>
    /// Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, and removes the three from this process's environment, so that no child believes
    /// that they mean it. None if they are not there or are another process's. Once per process.
    /// </summary>
    /// <exception cref="CbdException">They are wrong.</exception>
    public static IReadOnlyList<GivenDescriptor> TakeFromEnvironment()
    {
        string? process = TakeVariable("LISTEN_PID");
        string? countText = TakeVariable("LISTEN_FDS");
        string? namesText = TakeVariable("LISTEN_FDNAMES");
        if (process is null || countText is null)
            return [];
        if (!int.TryParse(process, NumberStyles.None, CultureInfo.InvariantCulture, out int processId))
            throw Invalid($"LISTEN_PID is '{process}' and not a process id");
        if (processId != Environment.ProcessId)
            return [];
        if (!int.TryParse(countText, NumberStyles.None, CultureInfo.InvariantCulture, out int count) || count > MostDescriptors)
            throw Invalid($"LISTEN_FDS is '{countText}' and not a number up to {MostDescriptors}");
        string[] names = namesText?.Split(':') ?? [.. Enumerable.Repeat(NoName, count)];
        if (names.Length != count)
            throw Invalid($"LISTEN_FDNAMES has {names.Length} names ('{namesText}') and LISTEN_FDS is {count}");
        return [.. names.Select((name, index) => new GivenDescriptor(name, FirstDescriptor + index))];
    }

    /// <summary>
    /// Owns a descriptor that was passed, and keeps it from children. Null if that number is not open, or is of this process's own making:
    /// what comes through an exec has no close-on-exec flag.
    /// </summary>
    public static FileDescriptor? TryOwn(GivenDescriptor given)
    {
        using var borrowed = FileDescriptor.Borrow(given.Number, given.Name);
        int flags = LibC.FCntl(borrowed, FcntlGetDescriptorFlags, 0);
        if (flags < 0 || (flags & DescriptorCloseOnExec) != 0)
            return null;
        borrowed.SetInherited(false);
        return FileDescriptor.Own(given.Number, given.Name);
    }

    internal static CbdException Invalid(string what) => new(CbdErrorKind.Invalid, $"the sockets of the service manager cannot be used: {what}");

    /// <summary>A variable of the environment, which is removed from it; null if it is not there or empty.</summary>
    internal static string? TakeVariable(string name)
    {
        string? value = Environment.GetEnvironmentVariable(name);
        Environment.SetEnvironmentVariable(name, null);
        return string.IsNullOrEmpty(value) ? null : value;
    }
}
