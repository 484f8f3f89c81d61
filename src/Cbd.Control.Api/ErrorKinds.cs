namespace Cbd.Control.Api;

/// <summary>
/// The one table that gives every kind of error its name on the socket, its HTTP status and its exit code. Scripts
/// depend on all three: rows are only ever added.
/// </summary>
internal static class ErrorKinds
{
    /// <summary>Exit code of success.</summary>
    public const int ExitSuccess = 0;

    /// <summary>Exit code of a bug of our own; the message asks to report it.</summary>
    public const int ExitBug = 1;

    /// <summary>Exit code when no daemon answers on the run directory.</summary>
    public const int ExitNoDaemon = 11;

    private static readonly (CbdErrorKind Kind, string Name, string Title, int HttpStatus, int ExitCode)[] Table =
    [
        (CbdErrorKind.Invalid, "invalid", "An argument is wrong", 400, 2),
        (CbdErrorKind.NotFound, "not_found", "There is no such thing", 404, 3),
        (CbdErrorKind.Busy, "busy", "It is in use", 409, 4),
        (CbdErrorKind.Exhausted, "exhausted", "Nothing of it is free", 507, 5),
        (CbdErrorKind.Denied, "denied", "This is not allowed", 403, 6),
        (CbdErrorKind.Corrupt, "corrupt", "Bytes are not what they must be", 422, 7),
        (CbdErrorKind.Failed, "failed", "Something failed", 500, 8),
        (CbdErrorKind.TimedOut, "timed_out", "There was no answer in time", 504, 9),
        (CbdErrorKind.Unsupported, "unsupported", "It cannot be done here", 501, 10),
    ];

    public static IEnumerable<CbdErrorKind> All => Table.Select(row => row.Kind);

    public static string Name(CbdErrorKind kind) => Row(kind).Name;

    public static string Title(CbdErrorKind kind) => Row(kind).Title;

    public static int HttpStatus(CbdErrorKind kind) => Row(kind).HttpStatus;

    public static int ExitCode(CbdErrorKind kind) => Row(kind).ExitCode;

    /// <summary>The exit code of an error.</summary>
    public static int ExitCodeOf(CbdException error) => error is Client.NoDaemonException ? ExitNoDaemon : ExitCode(error.Kind);

    /// <summary>The kind of a name; a name of a later version counts as a failure.</summary>
    public static CbdErrorKind FromName(string name)
    {
        foreach (var row in Table)
        {
            if (row.Name == name)
                return row.Kind;
        }

        return CbdErrorKind.Failed;
    }

    private static (CbdErrorKind Kind, string Name, string Title, int HttpStatus, int ExitCode) Row(CbdErrorKind kind)
    {
        foreach (var row in Table)
        {
            if (row.Kind == kind)
                return row;
        }

        throw new InvalidOperationException($"error kind {(int)kind} has no row in the table of error kinds");
    }
}
