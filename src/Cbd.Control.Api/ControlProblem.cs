namespace Cbd.Control.Api;

/// <summary>
/// Every refusal and failure, as problem details (RFC 9457): <c>detail</c> is the one line for the operator,
/// <c>kind</c> what to do about it (see <see cref="ErrorKinds"/>).
/// </summary>
internal sealed record ControlProblem
{
    public string Type { get; init; } = "about:blank";
    public required string Title { get; init; }
    public required int Status { get; init; }
    public required string Kind { get; init; }
    public required string Detail { get; init; }

    public static ControlProblem From(CbdErrorKind kind, string message) => new()
    {
        Title = ErrorKinds.Title(kind),
        Status = ErrorKinds.HttpStatus(kind),
        Kind = ErrorKinds.Name(kind),
        Detail = OneLine.From(message),
    };

    /// <summary>The error again, on the client's side.</summary>
    public CbdException ToException() => new(ErrorKinds.FromName(Kind), OneLine.From(Detail));
}
