using Cbd.Blocks;
using Cbd.Host.Wanted;

namespace Cbd.Simulation.Region;

/// <summary>Stops, of verbs, and those that an earlier life did not live to finish.</summary>
internal sealed partial class SimulatedWanted<TPolicy>
{
    private sealed record Stop(IReadOnlyList<int> Numbers, Func<bool> IsOver)
    {
        /// <summary>Once it is over: something was stopped. If not, it is tried again.</summary>
        public Func<bool> HasEffect { get; init; } = static () => true;

        /// <summary>What an operator had asked to stop; null for a stop of an earlier life.</summary>
        public string? Name { get; init; }
    }

    /// <summary>An earlier life died while it stopped a backend.</summary>
    private void FinishStop(StateEntry stop)
    {
        if (_stops.Exists(s => s.Numbers.Contains(stop.Number)))
            return;
        string name = NameOf(stop);
        switch (WantedRules<TPolicy>.FindStopStep(stop, Offered()))
        {
            case StopStep.Over:
                if (stop.Forced == true)
                    Watch.StopIsOver(_process, name);
                _record.EndStop([stop.Number]);
                break;
            case StopStep.Refused:
                Watch.Asked(Slot, name, DiskOf(stop));
                Watch.Open(Slot, name);
                _record.CancelStop([stop.Number]);
                if (!_record.IsDirty)
                    Watch.Answered(Slot, name);
                break;
            default:
                BeginToFinish(stop, name);
                break;
        }
    }

    /// <summary>It is taken over, under no name, and stopped.</summary>
    private void BeginToFinish(StateEntry stop, string name)
    {
        try
        {
            OfferedBackend? left = WantedRules<TPolicy>.FindLeft(stop.Backend!, Offered());
            string path = left?.Path ?? stop.Backend!.Path;
            SharedDisk<TPolicy> disk = Watch.OpenPath(_process.Machine, path);
            SimulatedSession<TPolicy> session = _process.StartBackend(disk, left?.Id, fenced: false, isConfirmed: false, name: null, path);
            try
            {
                WantedRules<TPolicy>.CheckDisk(stop.Backend!.DiskIdentity, new DiskIdentity(session.Identity), path, left?.Id);
            }
            catch (CbdException)
            {
                session.Abandon();
                throw;
            }

            bool isStopped = false;
            _stops.Add(new Stop([stop.Number], () =>
            {
                if (session.IsServing && !isStopped)
                {
                    isStopped = true;
                    Watch.StopsByForce(_process, name, session);
                    session.Stop(force: true);
                }

                return session.IsOver;
            })
            { HasEffect = () => isStopped });
        }
        catch (CbdException e)
        {
            _record.SetReason(stop.Number, e.Message);
        }
    }

    /// <summary>backend-stop or dev-stop of one thing, whether it is there or not.</summary>
    public void StopThing(StateEntry entry, bool force)
    {
        if (_record.Find(entry.Number) is not { Intent: null } found || _attempts.Exists(a => a.Number == entry.Number))
            return;
        string name = NameOf(found);
        if (found.IsPending)
        {
            // Where it cannot be written, both are right.
            Watch.Open(Slot, name);
            _record.Forget(e => e.Number == found.Number);
            Watch.Remove(Slot, name);
            return;
        }

        SimulatedSession<TPolicy>? session = found.Backend is null ? null : SessionOf(name);
        SimulatedDevice<TPolicy>? device = _devices.GetValueOrDefault(found.Number);
        Watch.Open(Slot, name);
        if (force && session is not null)
            Watch.StopsByForce(_process, name, session);
        IReadOnlyList<int> numbers = _record.BeginStop(e => e.Number == found.Number, force);
        if (!_record.IsDirty)
            Watch.Remove(Slot, name);
        try
        {
            session?.Stop(force);
            device?.Stop(force);
        }
        catch (CbdException)
        {
            Watch.Asked(Slot, name, DiskOf(found));
            Watch.Open(Slot, name);
            _record.CancelStop(numbers);
            if (!_record.IsDirty)
                Watch.Answered(Slot, name);
            throw;
        }

        _stops.Add(new Stop(numbers, () => session?.IsOver ?? device?.IsOver ?? true) { Name = name });
    }

    private void Follow(Stop stop)
    {
        if (!stop.IsOver())
            return;
        _stops.Remove(stop);
        if (stop.HasEffect())
        {
            // If it throws, the operator learns that the thing may return.
            _record.EndStop(stop.Numbers);
            if (stop.Name is { } name)
                Watch.Remove(Slot, name);
        }

        _pauses.Told(_process.Machine.NowMs);
    }
}
