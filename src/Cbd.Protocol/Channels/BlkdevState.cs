using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Protocol.Records;

namespace Cbd.Protocol.Channels;

/// <summary>What a blkdev knows of the session of its backend.</summary>
/// <param name="Epoch">Epoch of the backend's claim.</param>
/// <param name="DurabilityId">Changes when acknowledged, unflushed writes may have been lost.</param>
/// <param name="Info">Size and abilities.</param>
/// <param name="IsBuffered">Writes go through the page cache of the backend's host.</param>
internal readonly record struct BackendSession(ulong Epoch, Guid DurabilityId, BlockDeviceInfo Info, bool IsBuffered = false);

/// <summary>
/// What the queues of one blkdev share: the session that they use, the holds on new I/O, the writes that no flush has
/// covered yet, and failure. Thread-safe; queues only read it on the hot path, and each counts on a line of its own. Counts and failure
/// are in the device's record, if it has one, and so is the durability id: a successor of this process goes on with them.
/// </summary>
internal sealed class BlkdevState
{
    private readonly Lock _adoptLock = new();
    private readonly DeviceRecord? _record;

    /// <summary>Three words of each queue (<see cref="DeviceRecord.CountsLayout"/>): in the record, or in memory of its own.</summary>
    private readonly BufferWords _counts;
    private readonly bool _wasBuffered;
    private int _enteredGeneration;
    private BackendSession _session;
    private BlockDeviceInfo _info;
    private ulong _sessionEpoch;
    private int _durabilityGeneration;
    private int _holds;
    private bool _backendLost;
    private bool _backendOver;
    private bool _failing;
    private string? _failure;

    private const int WordsPerQueue = DeviceRecord.CountsBytes / sizeof(long);

    /// <param name="blkdev">Id of the blkdev.</param>
    /// <param name="blkdevEpoch">Epoch of its claim.</param>
    /// <param name="backend">Id of its backend.</param>
    /// <param name="session">The session at the start.</param>
    /// <param name="queues">Number of queues.</param>
    /// <param name="record">What survives this process; null: nothing does. Its counts go on.</param>
    /// <param name="isAdopted">The record is of an earlier process, and the session is the one that it had.</param>
    public BlkdevState(int blkdev, ulong blkdevEpoch, int backend, BackendSession session, int queues, DeviceRecord? record = null, bool isAdopted = false)
    {
        Blkdev = blkdev;
        BlkdevEpoch = blkdevEpoch;
        Backend = backend;
        _session = session;
        _info = session.Info;
        _sessionEpoch = session.Epoch;
        QueueCount = queues;
        _record = record;
        _counts = record?.Counts ?? new BufferWords(new NativeBuffer(queues * (long)DeviceRecord.CountsBytes), 0, queues * WordsPerQueue);
        if (!isAdopted)
            return;
        DeviceRecordBody body = record!.Body;
        _wasBuffered = body.WasBuffered;
        _failure = body.Failure.Length > 0 ? body.Failure : null;
        // What no flush has covered was acknowledged under the durability id of the record, in whichever generation of that process.
        for (int queue = 0; queue < queues; queue++)
            Volatile.Write(ref Generation(queue), 0);
    }

    /// <summary>Writes of a queue that were acknowledged to the user; the queue alone counts it up.</summary>
    private ref long Acknowledged(int queue) => ref _counts[queue * WordsPerQueue];

    /// <summary>The durability generation, of this process, in which they were.</summary>
    private ref long Generation(int queue) => ref _counts[queue * WordsPerQueue + 1];

    /// <summary>How many of them a flush has covered; raised by whichever queue's flush succeeded.</summary>
    private ref long Covered(int queue) => ref _counts[queue * WordsPerQueue + 2];

    public int Blkdev { get; }

    public ulong BlkdevEpoch { get; }

    public int Backend { get; }

    public int QueueCount { get; }

    /// <summary>A new durability id is recorded only when the old one was judged; the mutation gate of the tests alone says otherwise.</summary>
    public bool JudgesBeforeStore { get; init; } = true;

    /// <summary>What survives this process; null: nothing does.</summary>
    public DeviceRecord? Record => _record;

    /// <summary>Epoch of the session that the queues are to use.</summary>
    public ulong SessionEpoch => Volatile.Read(ref _sessionEpoch);

    /// <summary>Counts the changes of the durability id.</summary>
    public int DurabilityGeneration => Volatile.Read(ref _durabilityGeneration);

    /// <summary>The owner of the backend is gone: there is nobody to repeat commands to.</summary>
    public bool IsBackendLost
    {
        get => Volatile.Read(ref _backendLost);
        set => Volatile.Write(ref _backendLost, value);
    }

    /// <summary>
    /// It is proven that nothing of the session is left: no handler of it stores into a channel any more. Implies
    /// <see cref="IsBackendLost"/>.
    /// </summary>
    public bool IsBackendOver
    {
        get => Volatile.Read(ref _backendOver);
        set => Volatile.Write(ref _backendOver, value);
    }

    /// <summary>
    /// The backend is away, and requests are not to wait for it: those that wait, and new ones, are answered with EIO
    /// until it is back.
    /// </summary>
    public bool IsFailing
    {
        get => Volatile.Read(ref _failing);
        set => Volatile.Write(ref _failing, value);
    }

    /// <summary>The session that the queues are to use goes through its host's page cache.</summary>
    public bool IsBackendBuffered
    {
        get
        {
            lock (_adoptLock)
                return _session.IsBuffered;
        }
    }

    /// <summary>New I/O waits while a queue repeats what was in flight.</summary>
    public bool IsHeld => Volatile.Read(ref _holds) != 0;

    /// <summary>
    /// Called, on any thread of the device, when what queues may wait for has come, or the device has failed: wake those that
    /// sleep. Set it before there are queues.
    /// </summary>
    public Action? QueuesMayGoOn { get; set; }

    /// <summary>Why every request is answered with EIO; null while the device works.</summary>
    public string? Failure => Volatile.Read(ref _failure);

    /// <summary>Size and abilities as the current session states them.</summary>
    public BlockDeviceInfo Info => Volatile.Read(ref _info);

    /// <summary>Some acknowledged write is not covered by a later flush.</summary>
    public bool HasUncoveredWrites
    {
        get
        {
            for (int queue = 0; queue < QueueCount; queue++)
            {
                if (HasUncovered(queue))
                    return true;
            }

            return false;
        }
    }

    /// <summary>
    /// Takes over a new session of the backend, or a change of its size. Queues reset their channels to it by
    /// themselves. If acknowledged writes may have been lost with the old one, the device fails instead.
    /// </summary>
    public void Adopt(BackendSession session)
    {
        lock (_adoptLock)
        {
            if (session.DurabilityId != _session.DurabilityId)
            {
                if (!JudgesBeforeStore)
                    _record?.Change(body => body with { DurabilityId = session.DurabilityId });
                if (HasUncoveredWrites)
                    FailForLostWrites();
                Volatile.Write(ref _durabilityGeneration, _durabilityGeneration + 1);
            }

            _session = session;
            // Without the durability id: queues may still acknowledge writes of the session before.
            _record?.Change(body => body with { Session = session.Epoch, Info = session.Info, WasBuffered = body.WasBuffered || session.IsBuffered });
            Volatile.Write(ref _info, session.Info);
            Volatile.Write(ref _sessionEpoch, session.Epoch);
            IsBackendLost = false;
            IsBackendOver = false;
        }
    }

    /// <summary>From now on every request is answered with EIO. The first reason stays.</summary>
    public void Fail(string reason)
    {
        if (TryFail(reason))
            QueuesMayGoOn?.Invoke();
    }

    /// <summary>
    /// <see cref="Fail"/> because a channel was lost. The others may be lost too, and their doorbells somebody else's: their
    /// queues are not woken, and find out when they look.
    /// </summary>
    internal void FailAfterLoss(string reason) => TryFail(reason);

    private bool TryFail(string reason)
    {
        // Before anybody is told.
        if (Failure is null)
            _record?.StoreFailure(reason);
        return Interlocked.CompareExchange(ref _failure, reason, null) is null;
    }

    /// <summary>
    /// Whether a flush, or a write to the medium, that an earlier process had handed on must fail: its session went through a page cache and
    /// is over, and the kernel may have told its failure to the process that served it. Never tried again in the hope that it passes.
    /// </summary>
    /// <param name="handedOn">The session to which it was handed on.</param>
    /// <param name="session">The one that would get it now.</param>
    internal bool IsLostFlush(ulong handedOn, ulong session) => _wasBuffered && handedOn != session;


    internal void AddHold() => Interlocked.Increment(ref _holds);

    /// <param name="wakes">False for a queue that lost its channel: see <see cref="FailAfterLoss"/>.</param>
    internal void ReleaseHold(bool wakes)
    {
        int left = Interlocked.Decrement(ref _holds);
        if (left < 0)
            throw new InvalidOperationException("a hold was released twice");
        if (left == 0 && wakes)
            QueuesMayGoOn?.Invoke();
    }

    /// <summary>A queue leaves one session for another: what it acknowledged there must be covered, or have survived.</summary>
    internal void EnterGeneration(int queue, int generation)
    {
        if (Volatile.Read(ref Generation(queue)) == generation)
            return;
        if (HasUncovered(queue))
            FailForLostWrites();
        Volatile.Write(ref Covered(queue), Acknowledged(queue));
        Volatile.Write(ref Generation(queue), generation);
        // Every queue looks whether it was the last, so that the last one does for sure.
        Interlocked.MemoryBarrier();
        if (HaveEntered(generation) && TryRecord(generation))
            QueuesMayGoOn?.Invoke();
    }

    /// <summary>
    /// Nothing that was acknowledged under the old durability id is uncovered any more, and nothing is acknowledged under the new one before
    /// this returns. False if there is a newer one, which the queues enter next.
    /// </summary>
    private bool TryRecord(int generation)
    {
        lock (_adoptLock)
        {
            if (generation != _durabilityGeneration)
                return false;
            _record?.Change(body => body with { DurabilityId = _session.DurabilityId });
            Volatile.Write(ref _enteredGeneration, generation);
            return true;
        }
    }

    /// <summary>
    /// Every queue has left the sessions before <paramref name="generation"/>, so that what they acknowledged there is
    /// known to be safe, or the device has failed. Until then nothing of the new session may be shown to users.
    /// </summary>
    internal bool AllEntered(int generation) => Volatile.Read(ref _enteredGeneration) >= generation;

    private bool HaveEntered(int generation)
    {
        for (int queue = 0; queue < QueueCount; queue++)
        {
            if (Volatile.Read(ref Generation(queue)) < generation)
                return false;
        }

        return true;
    }

    /// <summary>A write was done; call before its user learns of it. Only the queue's own thread.</summary>
    internal void CountWrite(int queue)
    {
        ref long acknowledged = ref Acknowledged(queue);
        Volatile.Write(ref acknowledged, acknowledged + 1);
    }

    /// <summary>What a flush that is about to be sent in <paramref name="generation"/> will cover.</summary>
    internal void SnapshotForFlush(int generation, Span<long> acknowledged)
    {
        for (int queue = 0; queue < QueueCount; queue++)
            acknowledged[queue] = Volatile.Read(ref Generation(queue)) == generation ? Volatile.Read(ref Acknowledged(queue)) : 0;
    }

    /// <summary>That flush has succeeded.</summary>
    internal void Cover(int generation, ReadOnlySpan<long> acknowledged)
    {
        for (int queue = 0; queue < QueueCount; queue++)
        {
            if (Volatile.Read(ref Generation(queue)) != generation)
                continue;
            ref long covered = ref Covered(queue);
            long seen = Volatile.Read(ref covered);
            while (acknowledged[queue] > seen)
            {
                long before = Interlocked.CompareExchange(ref covered, acknowledged[queue], seen);
                if (before == seen)
                    break;
                seen = before;
            }
        }
    }

    private bool HasUncovered(int queue) => Volatile.Read(ref Acknowledged(queue)) > Volatile.Read(ref Covered(queue));

    private void FailForLostWrites() =>
        Fail("the backend came back without what its last life had not flushed: acknowledged writes may be lost; stop the device, check the data, start it again");
}
