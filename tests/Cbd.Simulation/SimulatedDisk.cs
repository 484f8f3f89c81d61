using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Simulation;

/// <summary>
/// A disk with a volatile cache: operations take effect at a random time between submission and completion, in any
/// order; a flush makes durable what had completed before it; a machine crash loses a random part of the rest. It may
/// fail operations, and is locked like a disk of a kernel: by one process of a machine, until the last operation of it
/// has ended.
/// </summary>
internal sealed class SimulatedDisk
{
    public const int BlockBytes = 512;

    private readonly byte[] _durable;
    private readonly byte[] _cached;
    private readonly HashSet<int> _dirty = [];
    private readonly List<Operation> _operations = [];
    private readonly Random _random;
    private bool _hasUntoldFailure;

    internal sealed class Operation
    {
        public required BlockRequest Request { get; init; }
        public required SimulatedDiskQueue? Queue { get; set; }
        public SimulatedDiskQueue? Owner { get; init; }
        public required long EffectAt { get; init; }
        public required long DoneAt { get; init; }
        public byte[]? OwnData { get; set; }
        public bool Effective { get; set; }
        public bool Done { get; set; }
        public int Error { get; set; }
    }

    public SimulatedDisk(int blocks, Random random)
    {
        _durable = new byte[blocks * BlockBytes];
        _cached = new byte[blocks * BlockBytes];
        _random = random;
        BlockCount = blocks;
        SizeBlocks = DurableBlocks = blocks;
    }

    /// <summary>Blocks that it can ever have.</summary>
    public int BlockCount { get; }

    /// <summary>Blocks that it has.</summary>
    public int SizeBlocks { get; set; }

    /// <summary>Blocks that it has after a loss of power.</summary>
    public int DurableBlocks { get; set; }

    /// <summary>Gets every operation that takes effect.</summary>
    public Action<string>? Log { get; set; }

    /// <summary>Errno of a flush, or a write to the medium, that failed; no other failure has it.</summary>
    public const int FlushErrno = 28;

    /// <summary>Share of reads and writes that fail with EIO.</summary>
    public double FailShare { get; set; }

    /// <summary>Share of flushes, and of writes to the medium, that fail with <see cref="FlushErrno"/>.</summary>
    public double FlushFailShare { get; set; }

    /// <summary>
    /// There is a page cache in between: a flush that fails drops some of what it should have written, and says so once.
    /// </summary>
    public bool IsBuffered { get; set; }

    /// <summary>A block that a flush should have written was dropped; with the number of the write that is there now.</summary>
    public event Action<int, long>? Dropped;

    /// <summary>Flushes at the disk for this queue, with nobody told of their end yet.</summary>
    internal int FlushesOf(SimulatedDiskQueue queue) =>
        _operations.Count(o => o.Queue == queue && o.Request.Operation == BlockOperation.Flush);

    /// <summary>Blocks that are in the cache alone, each with the number of the write that is there.</summary>
    internal IEnumerable<(int Block, long Id)> Dirty =>
        _dirty.Select(b => (b, System.Buffers.Binary.BinaryPrimitives.ReadInt64LittleEndian(_cached.AsSpan(b * BlockBytes))));

    internal bool HasLeftoversOf(Predicate<SimulatedDiskQueue> of) => _operations.Exists(o => o.Queue is null && o.Owner is not null && of(o.Owner));

    /// <summary>Some operation of a process that is gone can still land.</summary>
    internal bool HasOperationsOf(SimulatedDiskQueue queue) => _operations.Exists(o => o.Owner == queue);

    public int MaxDelay { get; set; } = 50;

    /// <summary>Share of the operations that take up to <see cref="MaxDelay"/>; the others take up to 50 µs.</summary>
    public double SlowShare { get; set; } = 1;

    /// <summary>Some operation of a process that is gone can still land: the disk's lock is not free.</summary>
    public bool HasLeftovers => _operations.Exists(o => o.Queue is null);

    public void Advance(long now)
    {
        foreach (Operation operation in _operations.ToArray())
        {
            if (!operation.Effective && operation.EffectAt <= now)
            {
                operation.Effective = true;
                Perform(operation);
                Log?.Invoke($"{operation.Request.Operation} {operation.Request.Offset / BlockBytes}+{operation.Request.Length / BlockBytes}{(operation.Queue is null ? " of nobody" : "")} takes effect, error {operation.Error}");
            }

            if (!operation.Effective || operation.DoneAt > now)
                continue;
            _operations.Remove(operation);
            operation.Done = true;
            if (_hasUntoldFailure && ReachesMedium(operation.Request))
            {
                // Whichever ends first is told, and no other.
                _hasUntoldFailure = false;
                operation.Error = FlushErrno;
            }

            operation.Queue?.Finished.Enqueue(new BlockCompletion(
                operation.Request.Cookie, operation.Error, operation.Error == 0 && operation.Request.Operation == BlockOperation.Read ? (int)operation.Request.Length : 0));
        }
    }

    /// <summary>The process that owns the queue died: what the kernel has goes on, without it.</summary>
    /// <param name="cancel">Some of what it sent never reaches the device.</param>
    public void Abandon(SimulatedDiskQueue queue, bool cancel = true)
    {
        foreach (Operation operation in _operations.ToArray())
        {
            if (operation.Queue != queue)
                continue;
            operation.Queue = null;
            // Half of the reads and writes never reached the device.
            if (operation.Request.Operation == BlockOperation.Read || (cancel && _random.Next(2) == 0))
                _operations.Remove(operation);
            else
                operation.OwnData = operation.Request.Data.Span.ToArray();
        }
    }

    /// <summary>The machine died: of what was not flushed, any part may be gone.</summary>
    public void LoseCache()
    {
        _operations.Clear();
        _hasUntoldFailure = false;
        SizeBlocks = DurableBlocks;
        foreach (int block in _dirty)
        {
            Span<byte> cached = _cached.AsSpan(block * BlockBytes, BlockBytes);
            Span<byte> durable = _durable.AsSpan(block * BlockBytes, BlockBytes);
            if (_random.Next(2) == 0)
                durable.CopyTo(cached);
            else
                cached.CopyTo(durable);
        }

        _dirty.Clear();
    }

    internal void Start(Operation operation) => _operations.Add(operation);

    internal (long EffectAt, long DoneAt) Schedule(long now)
    {
        int limit = _random.NextDouble() < SlowShare ? MaxDelay : 50;
        long effect = now + _random.Next(0, limit + 1);
        return (effect, effect + _random.Next(0, limit + 1));
    }

    private void Perform(Operation operation)
    {
        BlockRequest request = operation.Request;
        int offset = (int)request.Offset;
        int length = (int)request.Length;
        if (Fails(operation))
            return;
        switch (request.Operation)
        {
            case BlockOperation.Read:
                _cached.AsSpan(offset, length).CopyTo(request.Data.Span);
                break;
            case BlockOperation.Write:
                ReadOnlySpan<byte> data = operation.OwnData ?? request.Data.Span;
                data.CopyTo(_cached.AsSpan(offset, length));
                for (int block = offset / BlockBytes; block < (offset + length) / BlockBytes; block++)
                {
                    if ((request.Flags & BlockFlags.ForceUnitAccess) != 0)
                    {
                        _dirty.Remove(block);
                        data.Slice(block * BlockBytes - offset, BlockBytes).CopyTo(_durable.AsSpan(block * BlockBytes));
                    }
                    else
                    {
                        _dirty.Add(block);
                    }
                }

                break;
            case BlockOperation.Flush:
                foreach (int block in _dirty)
                    _cached.AsSpan(block * BlockBytes, BlockBytes).CopyTo(_durable.AsSpan(block * BlockBytes));
                _dirty.Clear();
                break;
            default:
                throw new InvalidOperationException($"the workload has no {request.Operation}");
        }
    }

    private bool Fails(Operation operation)
    {
        BlockRequest request = operation.Request;
        bool reachesMedium = ReachesMedium(request);
        if (reachesMedium && FlushFailShare > 0 && _random.NextDouble() < FlushFailShare)
        {
            if (IsBuffered)
            {
                DropCache();
                _hasUntoldFailure = true;
            }
            else
            {
                operation.Error = FlushErrno;
            }

            return true;
        }

        if (reachesMedium || FailShare == 0 || _random.NextDouble() >= FailShare)
            return false;
        operation.Error = Errno.EIO;
        // A write that fails may have been done.
        return request.Operation != BlockOperation.Write || _random.Next(2) == 0;
    }

    private static bool ReachesMedium(in BlockRequest request) =>
        request.Operation == BlockOperation.Flush ||
        (request.Operation == BlockOperation.Write && (request.Flags & BlockFlags.ForceUnitAccess) != 0);

    private void DropCache()
    {
        foreach (int block in _dirty.ToArray())
        {
            if (_random.Next(2) == 0)
                continue;
            _dirty.Remove(block);
            _durable.AsSpan(block * BlockBytes, BlockBytes).CopyTo(_cached.AsSpan(block * BlockBytes, BlockBytes));
            Dropped?.Invoke(block, System.Buffers.Binary.BinaryPrimitives.ReadInt64LittleEndian(_durable.AsSpan(block * BlockBytes)));
        }
    }
}

/// <summary>One process's view of a <see cref="SimulatedDisk"/>, and its one queue.</summary>
internal sealed class SimulatedDiskQueue(SimulatedDisk disk, SimulatedRegion clock, Guid durabilityId) : IBlockDevice, IBlockQueue
{
    /// <summary>Called before a request is taken, to see that this process may have the disk at all.</summary>
    public Action? Check { get; init; }

    /// <summary>Number of the machine whose kernel does it.</summary>
    public int Machine { get; init; }

    /// <summary>Flushes taken so far.</summary>
    public int Flushes { get; private set; }

    internal Queue<BlockCompletion> Finished { get; } = new();

    public BlockDeviceInfo Info { get; private set; } = new()
    {
        SizeBytes = (long)disk.SizeBlocks * SimulatedDisk.BlockBytes,
        DurabilityId = durabilityId,
    };

    /// <summary>Takes requests for so much of the disk, as a real one does after it has grown.</summary>
    internal void Serve(long sizeBytes) => Info = Info with { SizeBytes = sizeBytes };

    public int MaxQueues => 1;

    public int Outstanding { get; private set; }

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => this;

    public bool TrySubmit(in BlockRequest request)
    {
        bool inside = request.Operation == BlockOperation.Flush ||
            (request.Offset >= 0 && request.Length > 0 && request.Offset <= Info.SizeBytes - request.Length &&
            request.Offset % SimulatedDisk.BlockBytes == 0 && request.Length % SimulatedDisk.BlockBytes == 0 &&
            request.Data.Length == request.Length);
        Check?.Invoke();
        Outstanding++;
        if (request.Operation == BlockOperation.Flush)
            Flushes++;
        if (!inside)
        {
            Finished.Enqueue(new BlockCompletion(request.Cookie, Errno.EINVAL, 0));
            return true;
        }

        (long effectAt, long doneAt) = disk.Schedule(clock.Now);
        disk.Start(new SimulatedDisk.Operation { Request = request, Queue = this, Owner = this, EffectAt = effectAt, DoneAt = doneAt });
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        int count = 0;
        while (count < completions.Length && Finished.TryDequeue(out BlockCompletion done))
            completions[count++] = done;
        Outstanding -= count;
        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
    }

    public void Interrupt()
    {
    }

    public void Dispose()
    {
    }
}
