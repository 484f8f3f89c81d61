using static Cbd.Memory.Errno;

namespace Cbd.Memory;

/// <summary>Errors that say that the machine, or a limit, has no more of something. Thread-safe.</summary>
public static class Exhaustion
{
    /// <summary>What to do for this errno, to put behind a message, with its separator; null if it says something else.</summary>
    public static string? RemedyOf(int errno) => errno switch
    {
        EMFILE => ": no descriptor is left: raise the limit of open files (LimitNOFILE= of the unit, ulimit -n), or stop something",
        ENFILE => ": no descriptor is left on this machine: raise the sysctl fs.file-max, or stop something",
        ENOMEM or ENOBUFS => ": no memory is left for it: raise the limits (MemoryMax= of the unit, ulimit -v)",
        ENOSPC or EDQUOT => ": make room there",
        _ => null,
    };

    /// <summary>The disk has no more room for this user.</summary>
    public static bool IsOfSpace(int errno) => errno is ENOSPC or EDQUOT;
}
