using System.Globalization;
using Cbd.Control.Server;
using Cbd.Control.Verbs;
using Cbd.Host;
using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.State;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>
/// The <c>--run</c> lines of a daemon, one after the other. One that only waits for something (a region, a host, a backend, a lock)
/// is done again until it works; any other error ends the daemon, unless a process before this one has done all lines. What the record has of them already is taken as it is there.
/// </summary>
internal sealed class RunLines
{
    private const int LeastPauseMs = 100;
    private const int MostPauseMs = 2_000;

    private readonly StateRecord _record;
    private readonly RecordingControl _listed;
    private readonly CheckedControl _control;
    private readonly StopSignal _stop;
    private readonly ILogger _logger;

    /// <param name="node">Does the verbs.</param>
    /// <param name="record">Where they are kept.</param>
    /// <param name="listed">Shows the line that waits.</param>
    /// <param name="stop">Ends the waiting.</param>
    /// <param name="logger">Has the answers, and what is waited for.</param>
    public RunLines(INode node, StateRecord record, RecordingControl listed, StopSignal stop, ILogger logger)
    {
        _record = record;
        _listed = listed;
        _control = new CheckedControl(new RecordingControl(node, record, isRun: true) { Moved = listed.Moved, IsEnding = () => stop.IsSet });
        _stop = stop;
        _logger = logger;
    }

    /// <summary>A process before this one has done all lines: what one of them cannot do now must not take the rest from its users.</summary>
    public bool WereDone { get; init; }

    /// <summary>Called when a line begins to wait for something, with the reason.</summary>
    public Action<string> Waits { get; init; } = static _ => { };

    public void Do(ParsedVerb verb)
    {
        var pauseMs = LeastPauseMs;
        string? said = null;
        while (!_stop.IsSet)
        {
            try
            {
                Try(verb);
                break;
            }
            catch (FailedThingException e) when (verb.Name == Operations.StartDevice.Name)
            {
                // It stays in the lists, and the rest is served.
                _logger.LogError("--run {Verb}: {Reason}", verb.Name, e.Message);
                break;
            }
            catch (CbdException e) when (e.MayPass || e is OtherRegionException or FailedThingException)
            {
                // What a verb has to confirm or stop needs a daemon for that verb.
                if (said != e.Message)
                {
                    _logger.LogWarning("--run {Verb}: {Reason}; it is tried again until it works", verb.Name, e.Message);
                    Waits($"--run {verb.Name} waits: {e.Message}");
                }

                said = e.Message;
                _listed.WaitingLine = new WantedThing { Kind = WantedThing.Line, Name = verb.Name, State = e.MayPass ? WantedThing.Waiting : WantedThing.Failed, Reason = e.Message };
            }
            catch (CbdException e) when (WereDone)
            {
                _logger.LogError("--run {Verb}: {Reason}; the rest is served", verb.Name, e.Message);
                break;
            }
            catch (CbdException e)
            {
                throw new CbdException(e.Kind, $"--run {verb.Name}: {e.Message}", e);
            }

            for (var waited = 0; waited < pauseMs && !_stop.IsSet; waited += LeastPauseMs)
                Thread.Sleep(LeastPauseMs);
            pauseMs = Math.Min(2 * pauseMs, MostPauseMs);
        }

        _listed.WaitingLine = null;
    }

    /// <summary>Says what the record has of lines that are not there any more.</summary>
    public void SayHeld()
    {
        foreach (var entry in _record.Entries.Where(e => e is { Held: not null, FromRun: true }))
            _logger.LogWarning("{What} is held: {Why}; forget it with {Verb}", entry, entry.Held, entry.StopVerb);
    }

    private void Try(ParsedVerb verb)
    {
        using var answer = new StringWriter(CultureInfo.InvariantCulture);
        verb.Execute(_control, new VerbOutput(answer, toTerminal: false, note => _logger.LogInformation("{Verb}: {Note}", verb.Name, note)));
        _logger.LogInformation("{Verb}: {Answer}", verb.Name, answer.ToString().TrimEnd('\n'));
    }
}
