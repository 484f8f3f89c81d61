namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// How long a worker that died is not started again: at once, unless one after the other dies before it has served for
/// <see cref="GoodMs"/>. No clock; one thread at a time.
/// </summary>
internal sealed class RestartPauses
{
    /// <summary>A worker that was ready for so long is one that works.</summary>
    public const long GoodMs = 1_000;

    /// <summary>The first pause. Each further one is twice as long.</summary>
    public const long LeastMs = 100;

    /// <summary>The longest pause.</summary>
    public const long MostMs = 10_000;

    private int _shortLives;

    /// <summary>A worker died. Returns the pause before the next one, milliseconds.</summary>
    /// <param name="readyMs">How long it was ready; null if it never was.</param>
    public long Died(long? readyMs)
    {
        if (readyMs >= GoodMs)
        {
            _shortLives = 0;
            return 0;
        }

        var pauses = _shortLives++;
        return pauses == 0 ? 0 : Math.Min(LeastMs << Math.Min(pauses - 1, 20), MostMs);
    }
}
