using Cbd.Blocks;

namespace Cbd.Disks;

/// <summary>
/// A fault in force on one disk: decides which requests it strikes, and counts them. Thread-safe, and allocates nothing.
/// </summary>
/// <remarks>
/// The decision about the n-th request that it covers is a function of seed and n alone. Queues of one disk share the
/// numbers, so with several it depends on their order.
/// </remarks>
internal sealed class FaultRule(FaultSpec spec)
{
    private const double TwoTo53 = 1L << 53;

    private readonly ulong _threshold = (ulong)(spec.Rate * TwoTo53);
    private readonly long _limit = spec.Count ?? long.MaxValue;
    private long _covered;
    private long _struck;

    public FaultSpec Spec => spec;

    /// <summary>Requests struck so far.</summary>
    public long Struck => Volatile.Read(ref _struck);

    /// <summary>Whether this one is struck.</summary>
    public bool Strikes(BlockOperation operation, long offset, long length) => Strikes(operation, offset, length, out _);

    /// <param name="draw">Where it strikes, a number to draw something else from.</param>
    public bool Strikes(BlockOperation operation, long offset, long length, out ulong draw)
    {
        draw = 0;
        if (spec.Operation is { } only && only != operation)
            return false;
        // A flush has no range, so a part of the disk does not cover it.
        if (spec.HasRange && (length == 0 || offset + length <= spec.Offset || offset - spec.Offset >= spec.Length))
            return false;
        draw = Mix(spec.Seed + (ulong)Interlocked.Increment(ref _covered) * 0x9E3779B97F4A7C15);
        return draw >> 11 < _threshold && TryCount();
    }

    private bool TryCount()
    {
        long seen = Volatile.Read(ref _struck);
        while (seen < _limit)
        {
            long before = Interlocked.CompareExchange(ref _struck, seen + 1, seen);
            if (before == seen)
                return true;
            seen = before;
        }

        return false;
    }

    /// <summary>The output function of SplitMix64 (Steele, Lea, Flood 2014).</summary>
    private static ulong Mix(ulong z)
    {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
