namespace Cbd.Exports.Nbd;

/// <summary>How long the clients of an export may keep others, and its end, waiting. Immutable.</summary>
internal sealed record ClientPatience
{
    internal static readonly ClientPatience Default = new();

    /// <summary>Looks, one a second, after which a client that others wait for is judged (<see cref="MinimumRate"/>).</summary>
    internal int RateLooks { get; init; } = MinimumRate.Looks;

    /// <summary>How long a client that sends nothing more may read none of its last replies.</summary>
    internal int LastRepliesSeconds { get; init; } = 30;

    /// <summary>How long a client with TLS has to take its last replies, milliseconds.</summary>
    internal int TlsLingerMs { get; init; } = 5000;

    /// <summary>How long clients have to come to the end of a request when the export is parked, milliseconds.</summary>
    internal int ParkMs { get; init; } = 300;

    /// <summary>How long the end of the export waits for clients that do not take their replies.</summary>
    internal int StopSeconds { get; init; } = 10;
}
