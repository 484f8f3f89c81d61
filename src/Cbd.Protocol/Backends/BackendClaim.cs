using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Protocol.Backends;

/// <summary>
/// This host's claim of a backend entry; its epoch is the session. Thread-safe: housekeeping beats it while handler
/// threads latch a failed flush.
/// </summary>
internal sealed class BackendClaim<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly Lock _lock = new();
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly long _offset;
    private BodyWriter<TMemory> _writer;
    private BackendBody _body;
    private ClaimWord _word;

    internal BackendClaim(TMemory memory, RegionGeometry geometry, int backend, ClaimWord claimed, BackendBody body, int keptCopy)
    {
        _memory = memory;
        _geometry = geometry;
        Backend = backend;
        _offset = geometry.BackendOffset(backend);
        _word = claimed;
        _body = body;
        _writer = new BodyWriter<TMemory>(BodyPlace.OfBackend(geometry, backend), claimed.Epoch, keptCopy, TPolicy.KeepNewestBody);
    }

    /// <summary>Id of the backend.</summary>
    public int Backend { get; }

    /// <summary>The session: epoch of this claim.</summary>
    public ulong Session => _word.Epoch;

    /// <summary>What is published.</summary>
    public BackendBody Body
    {
        get
        {
            lock (_lock)
                return _body;
        }
    }

    /// <summary>Ids of the blkdevs that use it now.</summary>
    public IReadOnlyList<int> Blkdevs => References<TMemory, TPolicy>.BlkdevsOf(_memory, _geometry, Backend);

    /// <summary>Whether blkdevs use it, or may: see <see cref="References{TMemory, TPolicy}.IsUsed"/>.</summary>
    public bool IsUsed => References<TMemory, TPolicy>.IsUsed(_memory, _geometry, Backend);

    /// <summary>The operator had stopped the session before this one.</summary>
    public bool WasStopped { get; init; }

    /// <summary>Whether the entry is still this claim. If not, this host was cleared: serve nothing any more.</summary>
    public bool IsMine()
    {
        lock (_lock)
            return ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) == _word;
    }

    /// <summary>Publishes the body again, with every heartbeat of the host. False if the entry is not ours any more.</summary>
    public bool Beat() => Publish(body => body, announce: false);

    /// <summary>
    /// Latches the errno of a failed flush, or forgets it (0). When it returns true, the value is stored: a later session
    /// and every blkdev see it.
    /// </summary>
    public bool StoreFlushError(int error) => Publish(body => body with { FlushError = error }, announce: true);

    /// <summary>Publishes a new size (bytes), or other changed properties, within the session.</summary>
    public bool Update(Func<BackendBody, BackendBody> change) => Publish(change, announce: true);

    /// <summary>
    /// Ends the session: no blkdev can start on it any more. Throws, and changes nothing, if blkdevs use it and it is
    /// not forced. Then drain and detach all channels, release the disk, and call <see cref="EndClose"/>.
    /// </summary>
    public void BeginClose(bool force)
    {
        lock (_lock)
        {
            ThrowIfUsed(force);
            if (!Swap(_word.With(ClaimState.Closing)))
                return;
            try
            {
                // A blkdev that became active before the swap is seen here; a later one sees the swap.
                ThrowIfUsed(force);
            }
            catch (CbdException)
            {
                Swap(_word.With(ClaimState.Active));
                throw;
            }
        }
    }

    /// <summary>
    /// Says in the record that the operator stopped it, so that blkdevs that use it do not wait for the next session. After
    /// <see cref="BeginClose"/>: a session that serves is not stopped. False if the entry is not ours any more.
    /// </summary>
    public bool MarkStopped() => Publish(body => body with { Flags = body.Flags | BackendFlags.Stopped }, announce: true);

    /// <summary>
    /// It ends before it served anything: no blkdev can start on it any more, and the record says again that the operator stopped it, if that
    /// was so. True if it says so.
    /// </summary>
    public bool GiveUp()
    {
        BeginClose(force: true);
        return WasStopped && MarkStopped();
    }

    /// <summary>
    /// Gives the entry up, after nothing of the session can reach the disk or a channel any more: it is free, or stays
    /// as the record for the blkdevs that use it.
    /// </summary>
    public void EndClose()
    {
        lock (_lock)
        {
            if (_word.State == ClaimState.Active)
                Swap(_word.With(ClaimState.Closing));
            Swap(BackendEnds<TMemory, TPolicy>.EndOf(_memory, _geometry, Backend, _word));
            // The last blkdev may have left while we looked.
            References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
        }
    }

    /// <summary>Publishes the first body; false if the claim was taken for stale meanwhile. What is read afterwards is read after it.</summary>
    internal bool Publish() => Publish(body => body, announce: false);

    /// <summary>Becomes active; false if the claim was taken for stale meanwhile.</summary>
    internal bool Activate()
    {
        lock (_lock)
            return Swap(_word.With(ClaimState.Active));
    }

    private bool Publish(Func<BackendBody, BackendBody> change, bool announce)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        lock (_lock)
        {
            // Not ours: what lies there is a successor's.
            if (ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) != _word)
                return false;
            BackendBody next = change(_body);
            if (next.FindError() is { Length: > 0 } error)
                throw new InvalidOperationException($"backend {Backend}: {error}");
            frame.Clear();
            next.Encode(frame[BodyFrame.PayloadOffset..]);
            _writer.Publish(_memory, frame, BackendBody.EncodedSizeBytes);
            _body = next;
            if (announce)
            {
                // Publishes the body; pairs with the acquire load of the counter by the blkdevs.
                long counter = _offset + BackendEntry.ChangeCounterOffset;
                _memory.WriteRelease(counter, _memory.ReadAcquire(counter) + 1);
            }

            return ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) == _word;
        }
    }

    private void ThrowIfUsed(bool force)
    {
        if (force)
            return;
        IReadOnlyList<int> users = Blkdevs;
        if (users.Count != 0)
            throw new CbdException(CbdErrorKind.Busy, $"backend {Backend} is in use by blkdev {string.Join(", ", users)}: stop what uses it with dev-stop, or stop it with --force, which gives them EIO");
    }

    private bool Swap(ClaimWord to)
    {
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _offset, _word, to))
            return false;
        _word = to;
        return true;
    }
}
