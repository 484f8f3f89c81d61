using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>
/// Says in which cells of the crash matrix a death is, from what is really so, and counts each when its outcome was
/// seen afterwards. An outcome that neither comes nor becomes impossible is an error of the run, and so is a record or a
/// latch that is lost.
/// </summary>
internal sealed partial class CrashWatch<TPolicy>(World<TPolicy> world)
    where TPolicy : struct, IProtocolPolicy
{
    private readonly List<Expectation> _open = [];
    private readonly Dictionary<string, int> _covered = [];

    /// <summary>The process that made each claim word of hosts CLEARING.</summary>
    private readonly Dictionary<long, int> _clearers = [];

    /// <summary>The process that claimed it: the lock of an entry is held on each machine by itself, also by one that comes too late.</summary>
    private readonly Dictionary<long, int> _claimers = [];

    /// <summary>One thing that has to happen after a death.</summary>
    private sealed class Expectation
    {
        public required MatrixCell Cell { get; init; }

        /// <summary>The claim word that is followed, and as it was at the death; −1 for none.</summary>
        public long Offset { get; init; } = -1;
        public ClaimWord Word { get; init; }
        public bool SawClosing { get; set; }
        public bool SawDetached { get; set; }
        public bool SawClearing { get; set; }
        public bool SawOrphaned { get; set; }

        /// <summary>That claim has ended: its word is free, or a later claim has it.</summary>
        public bool IsOver { get; set; }

        /// <summary>The word as that claim, and what comes of it, left it last.</summary>
        public ClaimWord Latest { get; set; }

        /// <summary>Seen (true), never to be seen any more (false), or not yet.</summary>
        public required Func<Expectation, bool?> Judge { get; init; }
    }

    /// <summary>Deaths whose outcome was seen, by cell.</summary>
    public IReadOnlyDictionary<string, int> Covered => _covered;

    public bool IsEmpty => _open.Count == 0;

    public string Describe() => string.Join(", ", _open.Select(e => $"{e.Cell.Name} → {e.Cell.Outcome} of {e.Word} at {e.Offset}, now {e.Latest}"));

    /// <summary>The processes are about to die, all at once.</summary>
    public void BeforeDeath(ReadOnlySpan<SimulatedProcess<TPolicy>> processes) => _open.AddRange(Find([.. processes]));

    /// <summary>Another region: what was in the old one is over.</summary>
    public void Formatted() => _open.RemoveAll(e => e.Offset >= 0);

    public void Swapped(int process, long offset, ClaimWord from, ClaimWord to)
    {
        if (to.State == ClaimState.Clearing)
            _clearers[offset] = process;
        if (to.State == ClaimState.Claiming)
            _claimers[offset] = process;
        foreach (Expectation expectation in _open)
        {
            if (expectation.Offset != offset || expectation.IsOver)
                continue;
            expectation.Latest = to;
            expectation.IsOver = to.State == ClaimState.Free || (to.Epoch > expectation.Word.Epoch && to.State is ClaimState.Claimed or ClaimState.Claiming);
            expectation.SawClosing |= to.State == ClaimState.Closing;
            expectation.SawDetached |= to.State == ClaimState.Detached;
            expectation.SawClearing |= to.State == ClaimState.Clearing;
            expectation.SawOrphaned |= to.State == ClaimState.Orphaned;
        }
    }

    public void Check()
    {
        for (int i = _open.Count - 1; i >= 0; i--)
        {
            Expectation expectation = _open[i];
            if (expectation.Judge(expectation) is not { } seen)
                continue;
            _open.RemoveAt(i);
            if (seen)
                _covered[expectation.Cell.Name] = _covered.GetValueOrDefault(expectation.Cell.Name) + 1;
        }
    }

    /// <summary>Processes that are in the state of a cell now, so that it would be hit if they died; none if there are none.</summary>
    public SimulatedProcess<TPolicy>[] FindVictims(MatrixCell cell)
    {
        SimulatedProcess<TPolicy>[] living = [.. world.Living];
        if (cell.State == MatrixState.Everybody)
            return Find(living).Exists(e => e.Cell == cell) && living.Count(p => p.IsUp) >= 2 ? living : [];
        if (cell.Death == MatrixDeath.Both)
        {
            foreach (SimulatedProcess<TPolicy> one in living)
            {
                foreach (SimulatedProcess<TPolicy> other in living)
                {
                    if (one.Number < other.Number && Find([one, other]).Exists(e => e.Cell == cell))
                        return [one, other];
                }
            }

            return [];
        }

        foreach (SimulatedProcess<TPolicy> process in living)
        {
            if (Find([process]).Exists(e => e.Cell == cell))
                return [process];
        }

        return [];
    }

    private List<Expectation> Find(SimulatedProcess<TPolicy>[] dying)
    {
        var found = new List<Expectation>();
        foreach (SimulatedProcess<TPolicy> process in dying)
        {
            if (process.IsFormatting && TransportInfo.IsFormatting(world.Region.Word(TransportInfo.MagicOffset)) && LastFormatter == process.Number)
                Add(found, MatrixState.Formatter, MatrixDeath.Owner, -1, default, _ => world.Region.Word(TransportInfo.MagicOffset) == TransportInfo.Magic ? true : null);
        }

        if (!world.IsFormatted)
            return found;
        foreach (SimulatedProcess<TPolicy> process in dying)
            FindEntries(found, process);
        for (int channel = 0; channel < world.Geometry.ChannelCount; channel++)
            FindChannel(found, dying, channel);
        FindEverybody(found, dying);
        return found;
    }

    /// <summary>The process whose compare-and-swap was the last on the magic.</summary>
    private int LastFormatter => world.LastMagicSwap;

    private static void Add(List<Expectation> found, MatrixState state, MatrixDeath death, long offset, ClaimWord word, Func<Expectation, bool?> judge)
    {
        if (CrashMatrix.Find(state, death) is { } cell)
            found.Add(new Expectation { Cell = cell, Offset = offset, Word = word, Latest = word, Judge = judge });
    }

    private void FindEverybody(List<Expectation> found, SimulatedProcess<TPolicy>[] dying)
    {
        if (dying.Count(p => p.IsUp) < 2 || world.Living.Any(p => p.IsUp && !dying.Contains(p)))
            return;
        (long Offset, ClaimWord Word)[] hosts = [.. dying.Where(p => p.IsUp)
            .Select(p => world.Geometry.HostOffset(p.Host!.Host)).Select(o => (o, world.Word(o)))];
        Guid region = world.Geometry.RegionId;
        Add(found, MatrixState.Everybody, MatrixDeath.Both, -1, default, _ =>
            world.Geometry.RegionId != region ? false
            : hosts.All(h => world.Word(h.Offset) is var now && (now.Epoch > h.Word.Epoch || now.State == ClaimState.Free)) ? true : null);
    }
}
