using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Host;
using HdrHistogram;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>
/// One thread with one queue: keeps a number of requests in flight on its own part of the device. Allocates nothing per
/// request.
/// </summary>
internal sealed class BenchJob : IDisposable
{
    private const long LongestNanoseconds = 600_000_000_000;
    private const int WaitMicroseconds = 1_000;

    private static readonly double s_nanosecondsPerTick = 1e9 / Stopwatch.Frequency;

    private readonly BenchOptions _options;
    private readonly IBlockQueue _queue;
    private readonly NativeBuffer _buffer;
    private readonly VerifiedBlocks? _verified;
    private readonly long _start;
    private readonly long _blocks;
    private readonly long[] _sentAt;
    private readonly long[] _blockOf;
    private readonly bool[] _isWrite;
    private readonly int[] _free;
    private readonly BlockCompletion[] _completions;
    private readonly LongHistogram _latencies = new(LongestNanoseconds, 3);
    private int _freeCount;
    private ulong _random;
    private long _next;
    private bool _recording;

    /// <param name="start">First byte of this job's part.</param>
    /// <param name="bytes">Bytes of its part, at least one block.</param>
    public BenchJob(BenchOptions options, IBlockDevice device, int number, long start, long bytes)
    {
        _options = options;
        _start = start;
        _blocks = bytes / options.BlockBytes;
        _random = 0x9E3779B97F4A7C15UL * (ulong)(number + 1);
        _buffer = new NativeBuffer(options.Depth * options.BlockBytes);
        // Pages that were never touched would be the kernel's to clear inside the measurement.
        for (int i = 0; i < options.Depth; i++)
            _buffer.GetSpan(i * options.BlockBytes, (int)options.BlockBytes).Fill((byte)(number + i + 1));
        _queue = device.OpenQueue(options.Depth, _buffer);
        if (options.Verify)
            _verified = new VerifiedBlocks(start, options.BlockBytes, _blocks);
        _sentAt = new long[options.Depth];
        _blockOf = new long[options.Depth];
        _isWrite = new bool[options.Depth];
        _free = new int[options.Depth];
        for (int i = 0; i < options.Depth; i++)
            _free[i] = options.Depth - 1 - i;
        _freeCount = options.Depth;
        _completions = new BlockCompletion[options.Depth];
        // What the library allocates once for its first value is not the requests'.
        _latencies.RecordValue(1);
        _latencies.Reset();
    }

    /// <summary>Latencies of what ended after the ramp, nanoseconds.</summary>
    public LongHistogram Latencies => _latencies;

    /// <summary>Requests that ended after the ramp. Any thread.</summary>
    public long Count => Volatile.Read(ref _count);

    public long Errors { get; private set; }

    /// <summary>The first errno or difference that was seen; empty if there was none.</summary>
    public string FirstError { get; private set; } = "";

    /// <summary>Managed memory allocated by this thread after the ramp, bytes.</summary>
    public long AllocatedBytes { get; private set; }

    /// <summary>Time between the end of the ramp and the last completion.</summary>
    public TimeSpan Measured { get; private set; }

    private long _count;

    /// <summary>The body of the job's thread.</summary>
    public void Run()
    {
        PumpThread.UseExactTimers();
        long begin = Stopwatch.GetTimestamp();
        long measureFrom = begin + Ticks(_options.RampTime);
        long end = measureFrom + Ticks(_options.RunTime);
        var idle = new IdleStrategy(_options.Mode, _queue);
        long allocated = 0;
        long now = begin;
        long last = begin;
        while (true)
        {
            if (!_recording && now >= measureFrom)
            {
                _recording = true;
                measureFrom = now;
                allocated = GC.GetAllocatedBytesForCurrentThread();
            }

            while (now < end && _freeCount > 0 && TrySend(now))
            {
            }

            int count = _queue.Poll(_completions);
            if (count == 0)
            {
                if (_freeCount == _options.Depth && now >= end)
                    break;
                if (idle.KeepsSpinning)
                    idle.Yield();
                else
                    _queue.Wait(WaitMicroseconds);
                // A queue that has no room, or a device that hangs, must not make the end wait for ever.
                if (_freeCount == _options.Depth)
                    now = Stopwatch.GetTimestamp();
                continue;
            }

            last = now = Stopwatch.GetTimestamp();
            idle.Progressed();
            for (int i = 0; i < count; i++)
                Take(_completions[i], now);
            if (_recording)
                Volatile.Write(ref _count, _count + count);
            if (_options.ThinkMicroseconds > 0)
            {
                Think();
                now = Stopwatch.GetTimestamp();
            }
        }

        AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - allocated;
        Measured = Stopwatch.GetElapsedTime(measureFrom, last);
        if (_verified is not null && FirstError.Length == 0)
            CheckAll();
    }

    public void Dispose()
    {
        _queue.Dispose();
        _buffer.Dispose();
    }

    private static long Ticks(TimeSpan time) => (long)(time.TotalSeconds * Stopwatch.Frequency);

    private void Think()
    {
        // The queue is driven at least once a second, as it must be.
        long until = Stopwatch.GetTimestamp() + _options.ThinkMicroseconds * (Stopwatch.Frequency / 1_000_000);
        while (Stopwatch.GetTimestamp() < until)
        {
            long left = (until - Stopwatch.GetTimestamp()) / (Stopwatch.Frequency / 1_000_000);
            Thread.Sleep((int)Math.Clamp(left / 1000, 0, 500));
            _queue.Poll(_completions);
        }
    }

    private bool TrySend(long now)
    {
        bool write = _options.Writes && (!_options.Reads || (NextRandom() & 1) != 0);
        long block = NextBlock();
        if (block < 0)
            return false;
        int tag = _free[_freeCount - 1];
        var data = new BufferSlice(_buffer, tag * _options.BlockBytes, (int)_options.BlockBytes);
        if (write)
            _verified?.Fill(block, data.Span);
        var request = new BlockRequest(
            (ulong)tag, write ? BlockOperation.Write : BlockOperation.Read, BlockFlags.None,
            _start + block * _options.BlockBytes, _options.BlockBytes, data);
        if (!_queue.TrySubmit(request))
            return false;
        _verified?.Begin(block);
        _freeCount--;
        _sentAt[tag] = now;
        _blockOf[tag] = block;
        _isWrite[tag] = write;
        return true;
    }

    private void Take(in BlockCompletion completion, long now)
    {
        int tag = (int)completion.Cookie;
        if (completion.Error != 0)
            Fail($"errno {completion.Error} at offset {_start + _blockOf[tag] * _options.BlockBytes}");
        if (_verified is not null)
        {
            _verified.End(_blockOf[tag], _isWrite[tag] && completion.Error == 0);
            if (!_isWrite[tag] && completion.Error == 0 && !_verified.Holds(_blockOf[tag], Data(tag)))
                Fail($"the block at offset {_start + _blockOf[tag] * _options.BlockBytes} is not what was written");
        }

        if (_recording)
            _latencies.RecordValue((long)((now - _sentAt[tag]) * s_nanosecondsPerTick));
        _free[_freeCount++] = tag;
    }

    private Span<byte> Data(int tag) => _buffer.GetSpan(tag * _options.BlockBytes, (int)_options.BlockBytes);

    private void Fail(string what)
    {
        Errors++;
        if (FirstError.Length == 0)
            FirstError = what;
    }

    /// <summary>The next block, or −1 if all that may be touched are in flight.</summary>
    private long NextBlock()
    {
        // With verification a block is in flight once at most: of two writes either may be the last.
        for (int attempt = 0; attempt < 16; attempt++)
        {
            long block = _options.IsRandom ? (long)(NextRandom() % (ulong)_blocks) : _next++ % _blocks;
            if (_verified is null || !_verified.IsBusy(block))
                return block;
        }

        return -1;
    }

    /// <summary>xorshift64*.</summary>
    private ulong NextRandom()
    {
        _random ^= _random >> 12;
        _random ^= _random << 25;
        _random ^= _random >> 27;
        return _random * 2685821657736338717UL >> 16;
    }

    /// <summary>Reads every block that was written back, and compares.</summary>
    private void CheckAll()
    {
        for (long block = 0; block < _blocks; block++)
        {
            if (!_verified!.IsWritten(block))
                continue;
            var request = new BlockRequest(
                0, BlockOperation.Read, BlockFlags.None, _start + block * _options.BlockBytes, _options.BlockBytes,
                new BufferSlice(_buffer, 0, (int)_options.BlockBytes));
            if (!_queue.TrySubmit(request))
                throw new InvalidOperationException("an idle queue refused a request");
            while (_queue.Poll(_completions) == 0)
                _queue.Wait(WaitMicroseconds);
            if (_completions[0].Error != 0)
                Fail($"errno {_completions[0].Error} reading back offset {_start + block * _options.BlockBytes}");
            else if (!_verified.Holds(block, Data(0)))
                Fail($"the block at offset {_start + block * _options.BlockBytes} is not what was written last");
        }
    }
}
