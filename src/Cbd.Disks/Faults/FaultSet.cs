using Cbd.Blocks;

namespace Cbd.Disks;

/// <summary>A fault in force and how many requests it has struck.</summary>
public readonly record struct FaultCount(FaultSpec Spec, long Struck);

/// <summary>The faults of one disk, which can be changed while it is used. Thread-safe.</summary>
public sealed class FaultSet
{
    private readonly Lock _lock = new();
    private readonly List<FaultyQueue> _queues = [];
    private FaultRule[] _rules;

    public FaultSet(IReadOnlyList<FaultSpec> specs) => _rules = [.. specs.Select(s => new FaultRule(s))];

    /// <summary>The rules in force; another array after each change, even to the same.</summary>
    internal FaultRule[] Rules => Volatile.Read(ref _rules);

    /// <summary>The faults in force and what they did so far.</summary>
    public IReadOnlyList<FaultCount> List() => [.. Rules.Select(r => new FaultCount(r.Spec, r.Struck))];

    /// <summary>
    /// Puts other faults in the place of those in force, with counts and draws from the beginning. What was delayed or
    /// stuck goes on to the disk at once.
    /// </summary>
    public void Switch(IReadOnlyList<FaultSpec> specs)
    {
        FaultRule[] rules = [.. specs.Select(s => new FaultRule(s))];
        lock (_lock)
        {
            Volatile.Write(ref _rules, rules);
            foreach (FaultyQueue queue in _queues)
                queue.Interrupt();
        }
    }

    /// <summary>
    /// How many bytes of a read or write to ask the kernel for, at least a block: all, or where a fault makes it short
    /// fewer.
    /// </summary>
    /// <param name="wholeBlocks">The kernel takes whole blocks only (O_DIRECT).</param>
    internal int Shorten(BlockOperation operation, long offset, int length, int blockBytes, bool wholeBlocks)
    {
        foreach (FaultRule rule in Rules)
        {
            if (rule.Spec.Kind != FaultKind.Short || length <= blockBytes || !rule.Strikes(operation, offset, length, out ulong draw))
                continue;
            int part = blockBytes + (int)(draw % (uint)(length - blockBytes));
            return wholeBlocks ? part & -blockBytes : part;
        }

        return length;
    }

    internal void Add(FaultyQueue queue)
    {
        lock (_lock)
            _queues.Add(queue);
    }

    internal void Remove(FaultyQueue queue)
    {
        lock (_lock)
            _queues.Remove(queue);
    }
}
