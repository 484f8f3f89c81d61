namespace Cbd.Simulation.Region;

/// <summary>Who runs when, and which faults come.</summary>
internal sealed partial class World<TPolicy>
{
    /// <summary>Called before every access to the region by a process.</summary>
    internal void BeforeAccess(SimulatedProcess<TPolicy> process, MemoryAccess access)
    {
        ThrowIfDead(process);
        _accesses++;
        if (_target is not null && !IsTargetHit && !IsCalming && (_accesses & 3) == 0)
            Aim();
        if (access != MemoryAccess.Load && _random.Next(32) == 0)
            CheckBodies();
        if (!IsCalming && access != MemoryAccess.Load && Chance(_scenario.Crash))
            Kill(process);
        ThrowIfDead(process);
        if (_depth < DepthLimit)
        {
            if (Chance(_scenario.Preemption))
                RunSomebody();
            if (!IsCalming && Chance(_scenario.Pause))
            {
                Trace($"process {process.Number} stands still");
                // A CPU that is taken away has stored what it wanted to.
                Region.Fence(process.Number);
                process.PausedUntil = Region.Now + _random.Next(1, 4 * DeadMicroseconds);
            }
        }

        SimulatedThread<TPolicy>? thread = _running.Count > 0 ? _running.Peek() : null;
        if (thread is not null && _depth < DepthLimit && !IsCalming && Chance(_scenario.Stall))
        {
            Region.Fence(process.Number);
            thread.StalledUntil = Region.Now + _random.Next(1, 2 * DeadMicroseconds);
        }

        while (!process.IsDead && (!process.CanRun || thread?.StalledUntil > Region.Now && !IsCalming))
            Step(faults: !IsCalming);
        ThrowIfDead(process);
    }

    private void Step(bool faults)
    {
        // Sometimes nothing happens anywhere for a while, but never so long that a beat is missed by that.
        Region.Now += _random.Next(64) == 0 ? _random.Next(100, 1500) : _random.Next(1, 12);
        Region.Settle();
        foreach (SharedDisk<TPolicy> disk in _disks)
            disk.Disk.Advance(Region.Now);
        foreach (Machine machine in _machines)
        {
            if (!machine.IsUp && Region.Now >= machine.BackAt)
                machine.Boot();
        }

        foreach (ProcessSlot slot in _slots)
        {
            if (slot.Process is null && Region.Now >= slot.StartAt && _machines[slot.Machine].IsUp && !_isEnding)
                Start(slot);
        }

        if (Records is not null && !IsCalming)
            TurnOther();
        if (faults)
            Disturb();
        else if (IsCalming)
            Repair();
        _watch.Check();
        EndLives();
        if (_random.Next(64) == 0)
            CheckBodies();
        RunSomebody();
    }

    private void Repair()
    {
        if (Records is null)
            _operator.Repair();
        else if (!_isEnding)
            _recordOperator.Repair();
    }

    private void Disturb()
    {
        if (Chance(_scenario.MachineCrash))
            PowerOff(_machines[_random.Next(_machines.Length)], Region.Now + _random.Next(1000, 2 * DeadMicroseconds));
        if (Chance(_scenario.Suspend))
        {
            Machine machine = _machines[_random.Next(_machines.Length)];
            Trace($"machine {machine.Number} is suspended");
            machine.Suspend(_random.Next(1000, 5 * DeadMicroseconds));
            foreach (SimulatedProcess<TPolicy> process in Living.Where(p => p.Machine == machine))
                Region.Fence(process.Number);
        }

        if (Chance(_scenario.Operate))
        {
            if (Records is null)
                _operator.Act();
            else
                _recordOperator.Act();
        }

        if (_target is not null && !IsTargetHit)
            Aim();
    }

    private void Aim()
    {
        SimulatedProcess<TPolicy>[] victims = _watch.FindVictims(_target!);
        // In some runs as soon as it is there, in others later.
        if (victims.Length == 0 || !Chance((_seed % 3) switch { 0 => 0.05, 1 => 0.3, _ => 0.7 }))
            return;
        IsTargetHit = true;
        Kill(victims);
    }

    private void RunSomebody()
    {
        int count = 0;
        SimulatedThread<TPolicy>? chosen = null;
        foreach (ProcessSlot slot in _slots)
        {
            if (slot.Process is not { CanRun: true } process)
                continue;
            Consider(process.Main);
            foreach (SimulatedDevice<TPolicy> device in process.Devices)
            {
                foreach (SimulatedThread<TPolicy> thread in device.Threads)
                    Consider(thread);
            }
        }

        if (chosen is not null)
            Run(chosen);

        void Consider(SimulatedThread<TPolicy> thread)
        {
            if (!thread.IsRunning && _random.Next(++count) == 0)
                chosen = thread;
        }
    }

    private void Run(SimulatedThread<TPolicy> thread)
    {
        _depth++;
        thread.IsRunning = true;
        _running.Push(thread);
        try
        {
            thread.Turn();
        }
        catch (CrashException) when (thread.Process.IsDead)
        {
            // The process ended in the middle of this.
        }
        finally
        {
            thread.IsRunning = false;
            _running.Pop();
            _depth--;
        }
    }
}
