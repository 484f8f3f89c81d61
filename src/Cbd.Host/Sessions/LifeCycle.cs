namespace Cbd.Host.Sessions;

/// <summary>Where a transport, a backend or a device of this host stands. Shown in lists; the values only grow.</summary>
internal enum LifeState
{
    /// <summary>Asked for; nothing was done yet.</summary>
    Wanted = 0,

    /// <summary>Something else has to happen first; the reason says what.</summary>
    Waiting = 1,

    /// <summary>It claims what it needs.</summary>
    Starting = 2,

    /// <summary>It serves.</summary>
    Running = 3,

    /// <summary>A stop was accepted. It finishes by itself.</summary>
    Stopping = 4,

    /// <summary>For good, with a reason. Only a stop ends it.</summary>
    Failed = 5,

    /// <summary>Nothing of it is left.</summary>
    Gone = 6,
}

/// <summary>Where one thing stands.</summary>
/// <param name="State">The state.</param>
/// <param name="Reason">Why it is there, in one line; empty if there is nothing to say.</param>
/// <param name="SinceMs">When it entered the state, on this host's monotonic clock, ms.</param>
internal sealed record LifeStatus(LifeState State, string Reason, long SinceMs);

/// <summary>
/// The life of one thing. The table of transitions is in docs/architecture.md, and a test compares. A step that the table
/// does not have is a bug of our own. One thread at a time changes it; any thread reads <see cref="Status"/>.
/// </summary>
/// <param name="nowMs">This host's monotonic clock.</param>
internal sealed class LifeCycle(long nowMs)
{
    private LifeStatus _status = new(LifeState.Wanted, "", nowMs);

    /// <summary>The transitions that there are, by the state that is left.</summary>
    public static IReadOnlyDictionary<LifeState, LifeState[]> Transitions { get; } = new Dictionary<LifeState, LifeState[]>
    {
        [LifeState.Wanted] = [LifeState.Waiting, LifeState.Starting, LifeState.Gone],
        [LifeState.Waiting] = [LifeState.Starting, LifeState.Running, LifeState.Stopping, LifeState.Failed, LifeState.Gone],
        [LifeState.Starting] = [LifeState.Waiting, LifeState.Running, LifeState.Stopping, LifeState.Failed, LifeState.Gone],
        [LifeState.Running] = [LifeState.Waiting, LifeState.Stopping, LifeState.Failed],
        // Back to what it was: the kernel says that the device is in use after all.
        [LifeState.Stopping] = [LifeState.Running, LifeState.Waiting, LifeState.Failed, LifeState.Gone],
        [LifeState.Failed] = [LifeState.Stopping, LifeState.Gone],
        [LifeState.Gone] = [],
    };

    public LifeStatus Status => Volatile.Read(ref _status);

    public LifeState State => Status.State;

    /// <summary>Goes to a state, or gives it another reason. False if nothing changed.</summary>
    /// <exception cref="InvalidOperationException">The table has no such transition.</exception>
    public bool Go(LifeState to, string reason, long nowMs)
    {
        LifeStatus left = Status;
        if (left.State == to && left.Reason == reason)
            return false;
        if (left.State != to && !Transitions[left.State].Contains(to))
            throw new InvalidOperationException($"nothing goes from {left.State} to {to} ({reason})");
        Volatile.Write(ref _status, left.State == to ? left with { Reason = reason } : new LifeStatus(to, reason, nowMs));
        return true;
    }
}
