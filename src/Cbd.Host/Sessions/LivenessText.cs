using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Sessions;

/// <summary>Words of lists.</summary>
internal static class LivenessText
{
    public static string Of(Liveness liveness) => liveness switch
    {
        Liveness.Alive => "alive",
        Liveness.Dead => "dead",
        _ => "unknown",
    };

    public static string Of(ClaimState state) => state.ToString().ToLowerInvariant();
}
