namespace Cbd.Host.Devices;

/// <summary>What a device was told to do while its backend is away.</summary>
/// <param name="Action">Wait or fail.</param>
/// <param name="TimeoutMs">With <see cref="OnBackendLoss.Queue"/>: they wait so long, then fail; 0: for ever.</param>
internal readonly record struct LossPolicy(OnBackendLoss Action, long TimeoutMs)
{
    public static LossPolicy WaitForEver => default;
}

/// <summary>How a device sees its backend.</summary>
internal enum BackendPresence
{
    Served = 0,

    /// <summary>Its host died, is not heard of, or nobody has taken the backend up again yet.</summary>
    Lost = 1,

    /// <summary>The operator of its host stopped it although devices use it.</summary>
    Stopped = 2,
}

/// <summary>
/// Decides when requests of a device are answered with EIO because its backend is away. A state machine without a clock;
/// one thread at a time.
/// </summary>
internal sealed class BackendLoss(LossPolicy policy)
{
    private long _sinceMs;

    public LossPolicy Policy => policy;

    public BackendPresence Presence { get; private set; }

    /// <summary>Requests are to be answered with EIO, until the backend is served again.</summary>
    public bool IsFailing { get; private set; }

    /// <summary>One look. Returns whether <see cref="IsFailing"/> changed.</summary>
    /// <param name="presence">How the backend looks now.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public bool Step(BackendPresence presence, long nowMs)
    {
        if (presence == BackendPresence.Served || Presence == BackendPresence.Served)
            _sinceMs = nowMs;
        Presence = presence;
        bool failing = presence switch
        {
            BackendPresence.Served => false,
            // Nobody is about to bring it back: waiting would be for nothing.
            BackendPresence.Stopped => true,
            _ => IsFailing || policy.Action == OnBackendLoss.Fail || (policy.TimeoutMs > 0 && nowMs - _sinceMs >= policy.TimeoutMs),
        };
        bool changed = failing != IsFailing;
        IsFailing = failing;
        return changed;
    }
}
