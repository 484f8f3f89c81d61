using Cbd.Memory;

namespace Cbd.Host;

/// <summary>A stop was accepted and has taken effect, and something of it ends later, by itself. The message says what is waited for.</summary>
internal sealed class StillStoppingException : CbdException
{
    public StillStoppingException(string message)
        : base(CbdErrorKind.TimedOut, message)
    {
    }
}
