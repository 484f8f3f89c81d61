namespace Cbd.Host.Wanted;

/// <summary>When what is pending is tried again: after pauses that grow, and sooner when something moved. One thread at a time.</summary>
/// <param name="leastMs">First pause, and the one after something got on.</param>
/// <param name="mostMs">Longest pause.</param>
/// <param name="newsMs">Hosts that wait for each other announce their attempts: the least time between two passes that such news begin.</param>
internal sealed class RetryPauses(int leastMs, int mostMs, int newsMs)
{
    private int _pauseMs;
    private int _left = int.MaxValue;

    /// <summary>When the next pass is due, by the clock of the caller; the greatest value while nothing is left to do.</summary>
    public long NextMs { get; private set; }

    private long _passedMs;

    /// <summary>As <see cref="NextMs"/>, but no later than so long after the last pass: for what users wait for.</summary>
    public long NextWithin(int ms) => Math.Min(NextMs, _passedMs + ms);

    /// <summary>A pass has ended.</summary>
    /// <param name="left">How much is still pending.</param>
    /// <param name="isDirty">The record has to be written again.</param>
    /// <param name="nowMs">The caller's monotonic clock.</param>
    public void Passed(int left, bool isDirty, long nowMs)
    {
        // It gets on: the rest may be possible now.
        _pauseMs = left < _left ? leastMs : Math.Min(2 * _pauseMs, mostMs);
        _left = left;
        _passedMs = nowMs;
        NextMs = left > 0 ? nowMs + _pauseMs : isDirty ? nowMs + mostMs : long.MaxValue;
    }

    /// <summary>Something changed here: what could not be started may be possible now.</summary>
    public void Told(long nowMs)
    {
        _pauseMs = leastMs;
        NextMs = nowMs;
    }

    /// <summary>Another host announced something.</summary>
    public void Heard(long nowMs) => NextMs = Math.Min(NextMs, _left > 0 ? nowMs + newsMs : nowMs);
}
