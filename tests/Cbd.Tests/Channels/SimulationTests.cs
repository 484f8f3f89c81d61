using Cbd.Simulation;
using Xunit;

namespace Cbd.Tests.Channels;

/// <summary>Fixed seeds of the simulator, and the mutation gate that proves that it can fail.</summary>
public class SimulationTests
{
    public static TheoryData<string> Scenarios => [.. Simulations.Scenarios.Keys];

    public static TheoryData<string> Rules => [.. Simulations.Rules];

    [Theory]
    [MemberData(nameof(Scenarios))]
    public void Every_history_is_legal(string scenario)
    {
        int requests = 0;
        for (long seed = 1; seed <= 15; seed++)
            requests += Simulations.Run("", seed, Simulations.Scenarios[scenario], 12_000).Requests;
        Assert.True(requests > 10_000, $"the users sent {requests} requests only");
    }

    /// <summary>Where each safety rule shows; a rule that is off must be noticed in one of the fixed seeds at least.</summary>
    [Theory]
    [MemberData(nameof(Rules))]
    public void A_safety_rule_switched_off_is_caught(string rule)
    {
        GateEntry[] entries = [.. MutationGate.Entries.Where(e => e.Rule == rule)];
        Assert.NotEmpty(entries);
        Assert.All(entries, entry => Assert.True(MutationGate.Find(entry, out _) != 0, $"the simulator does not notice in '{entry.Scenario}' that the rule '{rule}' is off"));
    }

    [Fact]
    public void A_size_that_is_told_before_the_handlers_take_it_is_caught() => Assert.Contains(
        "were refused, and the device has",
        Assert.Throws<SimulationException>(() =>
        {
            for (long seed = 1; seed <= 40; seed++)
                Simulations.Run("", seed, Scenario.Growing with { AnnouncesGrowthFirst = true, Growth = 0.01 }, 20_000);
        }).Message,
        StringComparison.Ordinal);

    [Fact]
    public void A_seed_replays_the_same_run()
    {
        SimulationSummary first = Simulations.Run("", 7, Scenario.Crashing, 8_000);
        SimulationSummary second = Simulations.Run("", 7, Scenario.Crashing, 8_000);
        Assert.Equal(first, second);
        Assert.NotEqual(first, Simulations.Run("", 8, Scenario.Crashing, 8_000) with { Seed = 7 });
    }
}
