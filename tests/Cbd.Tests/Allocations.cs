using Xunit;

namespace Cbd.Tests;

/// <summary>That nothing is allocated per request.</summary>
internal static class Allocations
{
    /// <summary>Rounds of <see cref="None(Action)"/>.</summary>
    public const int Rounds = 3;

    /// <summary>Of this thread: what other tests allocate meanwhile does not count.</summary>
    public static void None(Action requests) => None(requests, GC.GetAllocatedBytesForCurrentThread);

    /// <summary>
    /// What is allocated per request is allocated in each round. The runtime allocates once or twice in all for a method that it compiles anew while it
    /// runs, and a disk once for its workers: one round without a byte is the proof.
    /// </summary>
    /// <param name="requests">Many of them; done before, so that all of it was there once.</param>
    /// <param name="allocated">Bytes that the thread that does them has allocated so far.</param>
    public static void None(Action requests, Func<long> allocated)
    {
        List<long> rounds = [];
        for (int round = 0; round < Rounds; round++)
        {
            long before = allocated();
            requests();
            rounds.Add(allocated() - before);
        }

        Assert.True(rounds.Contains(0), $"bytes of each round: {string.Join(", ", rounds)}");
    }
}
