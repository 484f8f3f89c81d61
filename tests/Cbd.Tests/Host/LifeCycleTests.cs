using Cbd.Host.Sessions;
using Cbd.Tests.Architecture;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class The_life_of_a_thing
{
    private readonly LifeCycle _life = new(1000);

    [Fact]
    public void Begins_wanted_and_has_since_then()
    {
        Assert.Equal(new LifeStatus(LifeState.Wanted, "", 1000), _life.Status);
    }

    [Fact]
    public void Keeps_the_time_of_a_state_while_its_reason_changes()
    {
        Assert.True(_life.Go(LifeState.Waiting, "for this", 2000));
        Assert.True(_life.Go(LifeState.Waiting, "for that", 3000));
        Assert.False(_life.Go(LifeState.Waiting, "for that", 4000));
        Assert.Equal(new LifeStatus(LifeState.Waiting, "for that", 2000), _life.Status);
    }

    [Fact]
    public void Refuses_a_step_that_the_table_does_not_have()
    {
        _life.Go(LifeState.Starting, "", 1000);
        _life.Go(LifeState.Gone, "", 1000);
        foreach (LifeState state in Enum.GetValues<LifeState>().Where(s => s != LifeState.Gone))
            Assert.Throws<InvalidOperationException>(() => _life.Go(state, "", 2000));
        Assert.Equal(LifeState.Gone, _life.State);
    }

    [Fact]
    public void Has_a_way_from_every_state_to_gone()
    {
        foreach (LifeState start in Enum.GetValues<LifeState>())
        {
            var reached = new HashSet<LifeState> { start };
            while (reached.SelectMany(s => LifeCycle.Transitions[s]).Any(reached.Add))
            {
            }

            Assert.Contains(LifeState.Gone, reached);
        }
    }

    /// <summary>Stored nowhere yet, and shown to operators: values only grow.</summary>
    [Fact]
    public void Has_these_states() => Assert.Equal(
        ["Wanted 0", "Waiting 1", "Starting 2", "Running 3", "Stopping 4", "Failed 5", "Gone 6"],
        Enum.GetValues<LifeState>().Select(s => $"{s} {(int)s}"));

    /// <summary>A row is <c>| `state` | meaning | `state`, `state` |</c>.</summary>
    [Fact]
    public void Is_the_table_of_the_document()
    {
        var rows = File.ReadLines(Path.Combine(SourceTree.Root, "docs", "architecture.md"))
            .Select(line => line.Split('|', StringSplitOptions.TrimEntries))
            .Where(cells => cells.Length == 5 && Enum.GetValues<LifeState>().Any(s => cells[1] == Word(s)))
            .ToDictionary(cells => cells[1], cells => cells[3]);
        Assert.Equal(
            Enum.GetValues<LifeState>().Select(s => $"{Word(s)}: {string.Join(", ", LifeCycle.Transitions[s].Select(Word))}"),
            Enum.GetValues<LifeState>().Select(s => $"{Word(s)}: {rows.GetValueOrDefault(Word(s), "is not there")}"));
    }

    private static string Word(LifeState state) => $"`{state.ToString().ToLowerInvariant()}`";
}
