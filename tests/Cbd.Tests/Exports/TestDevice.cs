using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Tests.Exports;

/// <summary>
/// A small memory device whose completions a test can hold back, fail, cut short, and have reversed, and whose queues
/// count what they were given.
/// </summary>
internal sealed class TestDevice(BlockDeviceInfo info) : IBlockDevice
{
    private readonly byte[] _bytes = new byte[info.SizeBytes];
    private volatile bool _held;
    private volatile int _errno;
    private volatile bool _short;
    private volatile bool _broken;
    private int _submitted;
    private int _openQueues;

    internal static TestDevice OfSize(long sizeBytes) =>
        new(new BlockDeviceInfo { SizeBytes = sizeBytes, CanDiscard = true, CanZeroFast = true });

    public BlockDeviceInfo Info { get; set; } = info;

    public int MaxQueues => int.MaxValue;

    /// <summary>Requests taken by all queues so far.</summary>
    internal int Submitted => Volatile.Read(ref _submitted);

    internal int OpenQueues => Volatile.Read(ref _openQueues);

    /// <summary>Room of each queue that is opened from now on.</summary>
    internal int Depth { get; set; } = int.MaxValue;

    /// <summary>The operations and flags that were done, oldest first.</summary>
    internal List<(BlockOperation Operation, BlockFlags Flags, long Offset, long Length)> Done { get; } = [];

    internal Span<byte> Bytes => _bytes;

    /// <summary>Completions stay at the device until it is false again.</summary>
    internal bool Held { set => _held = value; }

    /// <summary>0, or what every request fails with.</summary>
    internal int Fails { set => _errno = value; }

    /// <summary>Reads store half of what was asked for, and call it success.</summary>
    internal bool CutsReadsShort { set => _short = value; }

    /// <summary>Every queue fails as a whole.</summary>
    internal bool Broken { set => _broken = value; }

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => new Queue(this, Math.Min(depth, Depth));

    public void Dispose()
    {
    }

    private BlockCompletion Execute(in BlockRequest request)
    {
        int stored = 0;
        if (_errno != 0)
            return new BlockCompletion(request.Cookie, _errno, 0);
        Span<byte> range = _bytes.AsSpan((int)request.Offset, (int)request.Length);
        switch (request.Operation)
        {
            case BlockOperation.Read:
                stored = _short ? range.Length / 2 : range.Length;
                range[..stored].CopyTo(request.Data.Span);
                break;
            case BlockOperation.Write:
                request.Data.Span.CopyTo(range);
                break;
            case BlockOperation.WriteZeroes or BlockOperation.Discard:
                range.Clear();
                break;
            case BlockOperation.BlockStatus:
                stored = Describe(range, request.Data.Span);
                break;
        }

        return new BlockCompletion(request.Cookie, 0, stored);
    }

    /// <summary>One extent for each block of 4 KiB, as neighbours that a reply may merge.</summary>
    private static int Describe(ReadOnlySpan<byte> range, Span<byte> extents)
    {
        int stored = 0;
        for (int at = 0; at < range.Length && extents.Length - stored >= BlockExtent.EncodedSizeBytes; at += 4096)
        {
            ReadOnlySpan<byte> block = range[at..Math.Min(at + 4096, range.Length)];
            bool isHole = !block.ContainsAnyExcept((byte)0);
            new BlockExtent(block.Length, isHole ? BlockExtentState.Hole | BlockExtentState.Zero : BlockExtentState.Data).Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
        }

        return stored;
    }

    private sealed class Queue : IBlockQueue
    {
        private readonly TestDevice _device;
        private readonly int _depth;
        private readonly List<BlockRequest> _requests = new(1024);

        internal Queue(TestDevice device, int depth)
        {
            _device = device;
            _depth = depth;
            Interlocked.Increment(ref device._openQueues);
        }

        public int Outstanding => _requests.Count;

        public bool TrySubmit(in BlockRequest request)
        {
            if (_requests.Count >= _depth)
                return false;
            _requests.Add(request);
            lock (_device.Done)
                _device.Done.Add((request.Operation, request.Flags, request.Offset, request.Length));
            Interlocked.Increment(ref _device._submitted);
            return true;
        }

        public int Poll(Span<BlockCompletion> completions)
        {
            if (_device._broken)
                throw new CbdException(CbdErrorKind.Failed, "the test broke the device");
            int count = 0;
            while (!_device._held && _requests.Count != 0 && count < completions.Length)
            {
                // The youngest first: a client must not rely on any order.
                completions[count++] = _device.Execute(_requests[^1]);
                _requests.RemoveAt(_requests.Count - 1);
            }

            return count;
        }

        public void Wait(int timeoutMicroseconds)
        {
        }

        public void Interrupt()
        {
        }

        public void Dispose() => Interlocked.Decrement(ref _device._openQueues);
    }
}
