using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>
/// A blkdev as a block device: what exports and in-process users drive. Its queues are attached channels; each is given
/// out once, and comes back when it is disposed.
/// </summary>
internal sealed class BlkdevDevice(BlkdevState state, MappedMemory memory, Queue<MappedMemory, SafePolicy>[] queues, BeatCondition condition) : IBlockDevice
{
    private readonly Lock _lock = new();
    private readonly bool[] _given = new bool[queues.Length];

    public BlockDeviceInfo Info => state.Info;

    public int MaxQueues => queues.Length;

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        lock (_lock)
        {
            int index = Array.IndexOf(_given, false);
            if (index < 0)
                throw new CbdException(CbdErrorKind.Exhausted, $"all {queues.Length} queues of device {state.Blkdev} are in use: start it with more --queues");
            _given[index] = true;
            return new OpenQueueHandle(this, index, memory, queues[index], condition);
        }
    }

    public void Dispose()
    {
    }

    private void TakeBack(int index)
    {
        lock (_lock)
            _given[index] = false;
    }

    /// <summary>One queue with a clock and a place to sleep.</summary>
    private sealed class OpenQueueHandle(
        BlkdevDevice owner, int index, MappedMemory memory, Queue<MappedMemory, SafePolicy> queue, BeatCondition condition) : IBlockQueue, IDescriptorWait, IRingWait, IWakeCount
    {
        private readonly DoorbellSleeper _sleeper = new();
        private DoorbellPoll? _poll;
        private bool _cannotPoll;
        private bool _disposed;

        public int Outstanding => queue.Outstanding;

        public int WakeCount => queue.WakeCount;

        public bool CanBeWoken => condition.CanBeWoken(memory);

        public bool TrySubmit(in BlockRequest request) => queue.TrySubmit(request);

        public int Poll(Span<BlockCompletion> completions)
        {
            long now = MonotonicClock.CoarseMicroseconds;
            if (condition.IsFenced)
                queue.Fence();
            else if (condition.IsOverdueAt(now / 1000))
                return 0;
            return queue.Poll(now, completions);
        }

        public void Wait(int timeoutMicroseconds)
        {
            if (condition.IsOverdue)
            {
                // Housekeeping looks whether the entry is still ours.
                Thread.Sleep(1);
                return;
            }

            if (!queue.TryAnnounceSleep())
                return;
            _sleeper.Wait(memory, [queue.DoorbellOffset], timeoutMicroseconds);
            if (!condition.IsOverdueAfterSleep)
                queue.RetractSleep();
        }

        public bool TryWait(int descriptor, int timeoutMicroseconds)
        {
            // A handler on another kernel cannot wake us.
            if (_cannotPoll || condition.HasRemoteHosts || condition.IsOverdue)
                return false;
            _poll ??= memory.Wakes ? DoorbellPoll.TryCreate() : null;
            if (_poll is null || _poll.IsUnsupported)
            {
                _cannotPoll = true;
                return false;
            }

            if (!queue.TryAnnounceSleep())
                return true;
            _poll.Wait(memory, queue.DoorbellOffset, descriptor, timeoutMicroseconds);
            if (!condition.IsOverdueAfterSleep)
                queue.RetractSleep();
            return true;
        }

        public bool TryWait(RingDoorbell doorbell, int timeoutMicroseconds)
        {
            if (doorbell.IsUnsupported || !CanBeWoken || condition.IsOverdue)
                return false;
            // Not asleep: the caller's ring is still entered, for what it prepared.
            bool isAnnounced = queue.TryAnnounceSleep();
            doorbell.Wait(memory, queue.DoorbellOffset, isAnnounced ? timeoutMicroseconds : 0);
            if (isAnnounced && !condition.IsOverdueAfterSleep)
                queue.RetractSleep();
            return true;
        }

        public void Interrupt() => _sleeper.Interrupt();

        public void Dispose()
        {
            if (_disposed)
                return;
            _disposed = true;
            _poll?.Dispose();
            _sleeper.Dispose();
            owner.TakeBack(index);
        }
    }
}
