using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;

namespace Cbd.Memory;

/// <summary>A system call failed: which one, on what, and why.</summary>
public sealed class SystemCallException : CbdException
{
    public SystemCallException(string call, int errno, string subject = "")
        : base(KindOf(errno), Describe(call, errno, subject))
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>Name of the call, e.g. <c>fallocate</c>.</summary>
    public string Call { get; }

    /// <summary>Positive errno.</summary>
    public int Errno { get; }

    /// <summary>The exception of the call that this thread made last, whose errno is still kept.</summary>
    internal static SystemCallException Last(string call, string subject = "") =>
        new(call, Marshal.GetLastPInvokeError(), subject);

    private static string Describe(string call, int errno, string subject)
    {
        // Callers add the remedy for memory and space.
        string? remedy = errno is EMFILE or ENFILE ? Exhaustion.RemedyOf(errno) : null;
        string reason = $"{Marshal.GetPInvokeErrorMessage(errno)} (errno {errno}){remedy}";
        return subject.Length == 0 ? $"{call}: {reason}" : $"{call} '{subject}': {reason}";
    }

    private static CbdErrorKind KindOf(int errno) => errno switch
    {
        ENOENT or ESRCH => CbdErrorKind.NotFound,
        EPERM or EACCES or EROFS => CbdErrorKind.Denied,
        EAGAIN or EBUSY or EEXIST or ETXTBSY => CbdErrorKind.Busy,
        _ when Exhaustion.RemedyOf(errno) is not null => CbdErrorKind.Exhausted,
        EINVAL or EISDIR or ENOTDIR or ELOOP => CbdErrorKind.Invalid,
        ENOSYS or EOPNOTSUPP => CbdErrorKind.Unsupported,
        ETIMEDOUT => CbdErrorKind.TimedOut,
        _ => CbdErrorKind.Failed,
    };
}
