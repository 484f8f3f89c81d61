using Cbd.Control;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class KindsOfErrors
{
    [Theory]
    [InlineData(CbdErrorKind.Invalid, "invalid", 400, 2)]
    [InlineData(CbdErrorKind.NotFound, "not_found", 404, 3)]
    [InlineData(CbdErrorKind.Busy, "busy", 409, 4)]
    [InlineData(CbdErrorKind.Exhausted, "exhausted", 507, 5)]
    [InlineData(CbdErrorKind.Denied, "denied", 403, 6)]
    [InlineData(CbdErrorKind.Corrupt, "corrupt", 422, 7)]
    [InlineData(CbdErrorKind.Failed, "failed", 500, 8)]
    [InlineData(CbdErrorKind.TimedOut, "timed_out", 504, 9)]
    [InlineData(CbdErrorKind.Unsupported, "unsupported", 501, 10)]
    public void Names_statuses_and_exit_codes_never_change(CbdErrorKind kind, string name, int status, int exitCode)
    {
        Assert.Equal(name, ErrorKinds.Name(kind));
        Assert.Equal(status, ErrorKinds.HttpStatus(kind));
        Assert.Equal(exitCode, ErrorKinds.ExitCode(kind));
        Assert.Equal(kind, ErrorKinds.FromName(name));
    }

    [Fact]
    public void Every_kind_has_a_row_and_all_exit_codes_differ()
    {
        var kinds = Enum.GetValues<CbdErrorKind>();
        Assert.Equal(kinds, ErrorKinds.All);
        var codes = kinds.Select(ErrorKinds.ExitCode)
            .Concat([ErrorKinds.ExitSuccess, ErrorKinds.ExitBug, ErrorKinds.ExitNoDaemon]).ToList();
        Assert.Equal(codes.Count, codes.Distinct().Count());
    }

    [Fact]
    public void A_problem_carries_an_error_to_the_client_whole()
    {
        var error = ControlProblem.From(CbdErrorKind.Busy, "host 'a\nb' is taken").ToException();
        Assert.Equal(CbdErrorKind.Busy, error.Kind);
        Assert.Equal(@"host 'a\nb' is taken", error.Message);
    }
}
