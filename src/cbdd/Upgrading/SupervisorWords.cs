using System.Globalization;

namespace Cbd.Programs.Daemon.Upgrading;

/// <summary>What a supervisor tells its worker about itself, in variables of the environment. They are removed when they are read.</summary>
/// <param name="Program">Path of the program that the supervisor was started from; null if there is no supervisor.</param>
/// <param name="Restarts">How often it has started a worker again.</param>
/// <param name="IsFollowed">Another worker is started when this one ends, however it ends: one before it has done what the command line asks for.</param>
/// <param name="UpgradeFailure">Why the last upgrade was taken back; null if it was not.</param>
internal sealed record SupervisorWords(string? Program, int Restarts, bool IsFollowed, string? UpgradeFailure)
{
    public const string ProgramVariable = "CBD_PROGRAM", RestartsVariable = "CBD_RESTARTS", FollowedVariable = "CBD_FOLLOWED", FailureVariable = "CBD_UPGRADE_FAILURE";

    /// <summary>Name of the program of an upgrade in the store.</summary>
    public const string NextProgram = "program-next";

    public static SupervisorWords TakeFromEnvironment() => new(
        Take(ProgramVariable),
        int.TryParse(Take(RestartsVariable), NumberStyles.None, CultureInfo.InvariantCulture, out var restarts) ? restarts : 0,
        Take(FollowedVariable) is not null,
        Take(FailureVariable));

    private static string? Take(string variable)
    {
        var value = Environment.GetEnvironmentVariable(variable);
        if (value is not null)
            Environment.SetEnvironmentVariable(variable, null);
        return string.IsNullOrEmpty(value) ? null : value;
    }
}
