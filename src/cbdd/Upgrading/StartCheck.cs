using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Cbd.Control;
using Cbd.Exports.InFlight;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Cbd.Protocol.Records;

namespace Cbd.Programs.Daemon.Upgrading;

/// <summary>
/// <c>cbdd --check-start</c>: whether a program can take the place of the one that runs. It reads its options and says which records of
/// kept devices it can read; it touches nothing.
/// </summary>
internal static class StartCheck
{
    /// <summary>The option; the others are those of the daemon.</summary>
    public const string Option = "--check-start";

    /// <summary>What outlives a process, with the version that this program writes and those that it reads.</summary>
    private static readonly (string Word, uint Version, IReadOnlyList<uint> Reads)[] s_formats =
    [
        ("device-record", DeviceRecord.Version, DeviceRecord.ReadableVersions),
        ("inflight-record", InFlightLayout.Version, InFlightLayout.ReadableVersions),
        ("nbd-state", NbdStateLayout.Version, NbdStateLayout.ReadableVersions),
    ];

    private const int TimeoutMs = 10_000;

    /// <summary>What this program says of itself.</summary>
    public static string Text { get; } = $"cbdd {ProductVersion.Text}\n{string.Concat(s_formats.Select(format => $"{format.Word} {string.Join(' ', format.Reads)}\n"))}";

    /// <summary>Runs the check of another program. Throws <see cref="CbdException"/>, with its reason, if it cannot take this one's place.</summary>
    /// <param name="program">A copy of it.</param>
    /// <param name="path">What messages call it.</param>
    /// <param name="words">The words that this process was started with.</param>
    public static void Run(FileDescriptor program, string path, IEnumerable<string> words)
    {
        var start = new ProcessStartInfo($"/proc/{Environment.ProcessId}/fd/{program.Number}") { RedirectStandardOutput = true, RedirectStandardError = true };
        start.ArgumentList.Add(Option);
        foreach (var word in words)
            start.ArgumentList.Add(word);
        try
        {
            using var process = Process.Start(start)!;
            var output = process.StandardOutput.ReadToEndAsync();
            var errors = process.StandardError.ReadToEndAsync();
            // A child of it may have its output still.
            if (!process.WaitForExit(TimeoutMs) || !Task.WaitAll([output, errors], TimeoutMs))
            {
                process.Kill(entireProcessTree: true);
                throw Refused(path, $"it did not say within {TimeoutMs / 1000} s that it can start", CbdErrorKind.TimedOut);
            }

            Check(path, process.ExitCode, output.GetAwaiter().GetResult(), errors.GetAwaiter().GetResult());
        }
        catch (Win32Exception e)
        {
            throw Refused(path, $"this machine cannot execute it ({e.Message})", CbdErrorKind.Invalid);
        }
    }

    /// <summary>Judges what a program said.</summary>
    internal static void Check(string path, int exitCode, string output, string errors)
    {
        if (exitCode != 0)
        {
            var reason = errors.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).FirstOrDefault();
            throw Refused(path, $"it cannot start with the options of this daemon, or is too old for upgrades: {(reason is null ? $"it ends with {exitCode}" : OneLine.From(reason))}", CbdErrorKind.Invalid);
        }

        foreach ((string word, uint version, _) in s_formats)
            CheckReads(path, output, word, version);
    }

    private static void CheckReads(string path, string output, string record, uint version)
    {
        var line = output.Split('\n').FirstOrDefault(line => line.StartsWith(record + ' ', StringComparison.Ordinal))
            ?? throw Refused(path, $"it is no cbdd: it does not say which versions of {record} it reads", CbdErrorKind.Invalid);
        if (!line.Split(' ').Skip(1).Contains(version.ToString(CultureInfo.InvariantCulture)))
            throw Refused(path, $"it reads the versions{line[record.Length..]} of {record}, and kept devices have {version}", CbdErrorKind.Unsupported);
    }

    private static CbdException Refused(string path, string why, CbdErrorKind kind) =>
        new(kind, $"'{path}' cannot take the place of this program: {why}; nothing was changed");
}
