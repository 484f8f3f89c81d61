namespace Cbd;

/// <summary>What kind of remedy an error has; the programs turn it into an exit code and an HTTP status.</summary>
public enum CbdErrorKind
{
    /// <summary>An argument is wrong; nothing was changed.</summary>
    Invalid = 1,

    /// <summary>The named thing does not exist.</summary>
    NotFound = 2,

    /// <summary>The named thing is in use, taken, or already there.</summary>
    Busy = 3,

    /// <summary>No free entry, space or credit.</summary>
    Exhausted = 4,

    /// <summary>The caller may not do this.</summary>
    Denied = 5,

    /// <summary>Stored or received bytes are not what they must be.</summary>
    Corrupt = 6,

    /// <summary>A system call or a peer failed.</summary>
    Failed = 7,

    /// <summary>The other side did not answer in time.</summary>
    TimedOut = 8,

    /// <summary>This machine or this version cannot do it.</summary>
    Unsupported = 9,
}

/// <summary>
/// An error meant for the operator: one line that says what was wrong, with which value, and what to do about it.
/// </summary>
public class CbdException : Exception
{
    /// <summary>An error.</summary>
    /// <param name="kind">What kind of remedy it has.</param>
    /// <param name="message">One line for the operator: the thing, the value, the remedy.</param>
    public CbdException(CbdErrorKind kind, string message)
        : base(message) => Kind = kind;

    /// <summary>An error that follows from another one.</summary>
    /// <param name="kind">What kind of remedy it has.</param>
    /// <param name="message">One line for the operator: the thing, the value, the remedy.</param>
    /// <param name="inner">Its cause.</param>
    public CbdException(CbdErrorKind kind, string message, Exception inner)
        : base(message, inner) => Kind = kind;

    /// <summary>What kind of remedy it has.</summary>
    public CbdErrorKind Kind { get; }

    /// <summary>
    /// Nothing is wrong with what was asked for: what is missing (a region, another host, a backend, a lock) may come by itself, and
    /// the same request succeed then.
    /// </summary>
    public bool MayPass { get; init; }
}
