using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Simulation.Region;

/// <summary>
/// What operators were answered, daemon by daemon, whatever the records say; and the rules of what daemons may make of it. Also where the
/// paths of disks lead.
/// </summary>
internal sealed class RecordWatch<TPolicy>(World<TPolicy> world)
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>Where <c>/disks/N</c> leads on each machine; −1: nothing is there.</summary>
    private readonly int[][] _paths = [[0, 1, 2], [0, 1, 2], [0, 1, 2]];
    private readonly Dictionary<(int Slot, string Name), Wish> _wishes = [];
    private readonly Dictionary<int, (Guid Region, Guid Boot)> _regions = [];

    /// <summary>One thing that an operator asked a daemon for.</summary>
    private sealed class Wish(int disk)
    {
        public int Disk => disk;

        /// <summary>A start that nobody was answered: if its daemon dies, it is wanted no more.</summary>
        public bool IsAsked { get; set; } = true;

        /// <summary>The daemon has it, or a stop of it, on its medium perhaps, and nobody was answered: both are right.</summary>
        public bool IsOpen { get; set; }

        public bool HasFailed { get; set; }

        /// <summary>The present life of its daemon was told not to start it.</summary>
        public bool IsHeld { get; set; }

        /// <summary>Identity of the disk in memory on which it was first served; null before that, and on other disks.</summary>
        public string? Life { get; set; }
    }

    /// <summary>Sessions of backends whose forced stop has begun, which the daemon may not live to finish.</summary>
    private readonly Dictionary<(int Slot, string Name), (Guid Region, int Backend, ulong Session)> _forced = [];

    /// <summary>Things whose start kills their daemon.</summary>
    private readonly HashSet<(int Slot, string Name)> _deadly = [];

    /// <summary>Whether the present life of a daemon leaves a thing alone.</summary>
    public void Hold(int slot, string name, bool isHeld)
    {
        if (_wishes.TryGetValue((slot, name), out Wish? wish))
            wish.IsHeld = isHeld;
    }

    public bool IsDeadly(int slot, string name) => _deadly.Contains((slot, name));

    /// <summary>The start of some thing kills its daemon from now on; or no more.</summary>
    public void ChangeDeadly()
    {
        if (_deadly.Count > 0)
            _deadly.Clear();
        else if (_wishes.Count > 0)
            _deadly.Add(_wishes.Keys.Order().ElementAt(world.Random.Next(_wishes.Count)));
    }

    public void Asked(int slot, string name, int disk)
    {
        world.TraceIo($"daemon {slot}: {name} on disk {disk} is asked for");
        _wishes[(slot, name)] = new Wish(disk);
    }

    /// <summary>It is being written down that it was started, or is wanted no more.</summary>
    public void Open(int slot, string name)
    {
        if (_wishes.TryGetValue((slot, name), out Wish? wish))
            (wish.IsAsked, wish.IsOpen) = (false, true);
    }

    public void Answered(int slot, string name)
    {
        if (_wishes.TryGetValue((slot, name), out Wish? wish))
            (wish.IsAsked, wish.IsOpen) = (false, false);
        world.TraceIo($"daemon {slot}: {name} is wanted");
    }

    /// <summary>A start was refused, or a stop is on its way: it is wanted no more.</summary>
    public void Remove(int slot, string name)
    {
        world.TraceIo($"daemon {slot}: {name} is wanted no more");
        _wishes.Remove((slot, name));
    }

    public void Failed(int slot, string name)
    {
        if (_wishes.TryGetValue((slot, name), out Wish? wish))
            wish.HasFailed = true;
        world.TraceIo($"daemon {slot}: {name} has failed");
    }

    public void Died(int slot)
    {
        foreach (((int Slot, string) key, Wish wish) in _wishes.ToArray())
        {
            if (key.Slot == slot && wish.IsAsked)
                _wishes.Remove(key);
            else if (key.Slot == slot)
                wish.IsHeld = false;
        }
    }

    /// <summary>The state directory of a daemon is another one now.</summary>
    /// <param name="slot">The daemon.</param>
    /// <param name="from">Whose it has a copy of; −1: an empty one.</param>
    public void Replaced(int slot, int from)
    {
        foreach ((int Slot, string Name) key in _wishes.Keys.Where(k => k.Slot == slot).ToArray())
            _wishes.Remove(key);
        _regions.Remove(slot);
        if (from < 0)
            return;
        foreach (((int Slot, string Name) key, Wish wish) in _wishes.ToArray())
        {
            if (key.Slot == from && !wish.IsAsked)
                _wishes[(slot, key.Name)] = new Wish(wish.Disk) { IsAsked = false, IsOpen = wish.IsOpen, HasFailed = wish.HasFailed, Life = wish.Life };
        }

        if (_regions.TryGetValue(from, out (Guid, Guid) region))
            _regions[slot] = region;
    }

    /// <summary>A backend is being stopped by force.</summary>
    public void StopsByForce(SimulatedProcess<TPolicy> process, string name, SimulatedSession<TPolicy> session) =>
        _forced[(process.Slot, name)] = (process.Geometry.RegionId, session.Backend, session.Epoch);

    /// <summary>A daemon takes a forced stop of its earlier life for done.</summary>
    public void StopIsOver(SimulatedProcess<TPolicy> process, string name)
    {
        if (!_forced.Remove((process.Slot, name), out (Guid Region, int Backend, ulong Session) stop) || stop.Region != world.Geometry.RegionId)
            return;
        ClaimWord word = world.Word(world.Geometry.BackendOffset(stop.Backend));
        if (word.State == ClaimState.Orphaned &&
            EntryBodies<SimulatedMemory>.TryReadBackendRecord(world.Inspection, world.Geometry, stop.Backend, word.Epoch, out BackendBody record, out BodyStamp stamp, out _) &&
            stamp.Epoch == stop.Session && !record.IsStopped && References<SimulatedMemory, TPolicy>.IsUsed(world.Inspection, world.Geometry, stop.Backend))
            throw new SimulationException($"process {process.Number} drops the forced stop of '{name}', and blkdevs wait for backend {stop.Backend}");
    }

    /// <summary>A daemon serves something under a name.</summary>
    public void Served(SimulatedProcess<TPolicy> process, string name, SharedDisk<TPolicy> disk, string? identity)
    {
        if (!_wishes.TryGetValue((process.Slot, name), out Wish? wish))
            throw new SimulationException($"process {process.Number} serves '{name}', which is not wanted");
        if (wish.HasFailed)
            throw new SimulationException($"process {process.Number} serves '{name}', which has failed for good");
        if (wish.IsHeld)
            throw new SimulationException($"process {process.Number} serves '{name}', which is held");
        if (wish.Disk != disk.Number)
            throw new SimulationException($"'{name}' of process {process.Number} leads to disk {disk.Number}, and was disk {wish.Disk}");
        if (!disk.IsInMemory || identity is null)
            return;
        if (wish.Life is { } before && before != identity)
            throw new SimulationException($"'{name}' of process {process.Number} leads to {identity}, and was on {before}, which is gone");
        wish.Life = identity;
    }

    /// <summary>A daemon has registered on a region, with what its record says of it.</summary>
    public void Registered(SimulatedProcess<TPolicy> process, RecordMedium medium, Guid region, bool isConfirmed)
    {
        if (medium.OwnerMachine >= 0 && medium.OwnerMachine != process.Machine.Number)
            throw new SimulationException($"process {process.Number} on machine {process.Machine.Number} goes on with the record of machine {medium.OwnerMachine}");
        if (!isConfirmed && _regions.TryGetValue(process.Slot, out (Guid Region, Guid Boot) before) && before.Boot == process.Machine.BootId && before.Region != region)
            throw new SimulationException($"process {process.Number} goes on in region {region}, and its record is of {before.Region}");
        // Until it is written down, both are right.
        _regions.Remove(process.Slot);
        foreach (SimulatedProcess<TPolicy> other in world.Living)
        {
            if (other.Machine != process.Machine && other.MayStore && other.HostUuid == process.HostUuid && world.Word(world.Geometry.HostOffset(other.Host!.Host)) is { State: Protocol.Format.ClaimState.Active } word && word.Epoch == other.Host.Epoch)
                throw new SimulationException($"processes {other.Number} and {process.Number} are hosts with the uuid {process.HostUuid} on two machines");
        }
    }

    /// <summary>The record of a daemon has its region.</summary>
    public void RecordedRegion(SimulatedProcess<TPolicy> process, Guid region) => _regions[process.Slot] = (region, process.Machine.BootId);

    /// <summary>What a path leads to for processes of a machine. Throws NotFound if that is nothing.</summary>
    public SharedDisk<TPolicy> OpenPath(Machine machine, string path) =>
        DiskAt(machine, path) is >= 0 and var disk ? world.Disks[disk] : throw new CbdException(CbdErrorKind.NotFound, $"'{path}' is missing");

    /// <summary>Number of the disk that a path leads to; −1: none.</summary>
    public int DiskAt(Machine machine, string path)
    {
        int number = path[^1] - '0';
        if (path.StartsWith("memory:", StringComparison.Ordinal))
            return world.Disks[number].Machines.Contains(machine.Number) ? number : -1;
        // A link follows its disk.
        int disk = path.StartsWith("/links/", StringComparison.Ordinal) ? (_paths[machine.Number].Contains(number) ? number : -1) : _paths[machine.Number][number];
        return disk >= 0 && world.Disks[disk].Machines.Contains(machine.Number) ? disk : -1;
    }

    /// <summary>A path of a disk on a machine; null if it is away.</summary>
    public string? PathOf(Machine machine, SharedDisk<TPolicy> disk) => disk.IsInMemory ? $"memory:{disk.Number}" : (world.Random.Next(4), Array.IndexOf(_paths[machine.Number], disk.Number)) switch
    {
        (_, < 0) => null,
        (0, _) => $"/links/{disk.Number}",
        (_, int path) => $"/disks/{path}",
    };

    /// <summary>A disk is taken away, or comes back; or two disks have each other's path.</summary>
    public void MoveDisks()
    {
        int[] paths = _paths[world.Random.Next(_paths.Length)];
        if (world.Random.Next(2) == 0)
        {
            (paths[1], paths[2]) = (paths[2], paths[1]);
            return;
        }

        int lost = Array.IndexOf(paths, -1);
        if (lost < 0)
            paths[world.Random.Next(3)] = -1;
        else
            paths[lost] = Enumerable.Range(0, 3).First(disk => !paths.Contains(disk));
    }

    /// <summary>Every disk is where it was at first.</summary>
    public void ReturnDisks()
    {
        foreach (int[] paths in _paths)
            (paths[0], paths[1], paths[2]) = (0, 1, 2);
    }

    /// <summary>What is wanted for certain and not there, in words.</summary>
    /// <param name="isThere">Whether a daemon has a thing.</param>
    public IReadOnlyList<(int Slot, string Name)> Missing(Func<int, string, bool> isThere) =>
        [.. _wishes.Where(w => w.Value is { IsOpen: false, HasFailed: false, IsAsked: false, IsHeld: false } && !isThere(w.Key.Slot, w.Key.Name)).Select(w => w.Key)];
}
