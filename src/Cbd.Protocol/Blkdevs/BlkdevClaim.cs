using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Protocol.Blkdevs;

/// <summary>
/// This host's claim of a blkdev entry. One thread at a time, except <see cref="IsMine"/>.
/// </summary>
internal sealed class BlkdevClaim<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly Lock _lock = new();
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostClaim<TMemory, TPolicy> _host;
    private readonly long _offset;
    private readonly ClaimWord? _backendWord;
    private BodyWriter<TMemory> _writer;
    private ClaimWord _word;

    /// <param name="backendWord">The claim word of the backend that has to be the same still; null for an adoption: its backend may be away.</param>
    /// <param name="session">The backend's session; the default for an adoption.</param>
    /// <param name="keptCopy">The copy of the body that is the record of an orphan; −1 if there is none.</param>
    internal BlkdevClaim(
        TMemory memory, HostClaim<TMemory, TPolicy> host, int blkdev, ClaimWord claimed, BlkdevBody body, ClaimWord? backendWord, BackendSession session, int keptCopy = -1)
    {
        _memory = memory;
        _geometry = host.Geometry;
        _host = host;
        Blkdev = blkdev;
        _offset = _geometry.BlkdevOffset(blkdev);
        _word = claimed;
        _backendWord = backendWord;
        Body = body;
        Session = session;
        _writer = new BodyWriter<TMemory>(BodyPlace.OfBlkdev(_geometry, blkdev), claimed.Epoch, keptCopy, TPolicy.KeepNewestBody);
    }

    /// <summary>Id of the blkdev.</summary>
    public int Blkdev { get; }

    /// <summary>Epoch of this claim.</summary>
    public ulong Epoch => _word.Epoch;

    /// <summary>What is published.</summary>
    public BlkdevBody Body { get; private set; }

    /// <summary>The backend's session when the blkdev was claimed; the default if it was adopted.</summary>
    public BackendSession Session { get; }

    /// <summary>Whether the entry is still this claim. If not, this host was cleared, or it has given the entry back.</summary>
    public bool IsMine() => _word.State is not (ClaimState.Free or ClaimState.Orphaned) && ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) == _word;

    /// <summary>
    /// Becomes active with these channels, which this host has claimed and not offered yet. Throws if the backend's
    /// session ended meanwhile, or this host was cleared; call <see cref="End"/> then, after freeing the channels.
    /// </summary>
    /// <param name="channels">The channel of each queue.</param>
    /// <param name="name">Node or URI under which its host uses it.</param>
    public void Activate(IReadOnlyList<int> channels, string name)
    {
        if (!BlkdevBody.IsValidName(name))
            throw new CbdException(CbdErrorKind.Invalid, $"device name of {System.Text.Encoding.UTF8.GetByteCount(name)} bytes is longer than {BlkdevBody.MaxNameBytes} or has control characters: give a shorter address");
        if (!Publish(Body with { Channels = [.. channels], Name = name }) || !Swap(_word.With(ClaimState.Active)) || (TPolicy.LookAtHostAfterClaim && !_host.IsMine()))
            throw new CbdException(CbdErrorKind.Failed, $"host {_host.Host} was cleared by another host: register again, then start the device");
        // Whoever ends the backend takes its word out of ACTIVE before looking for blkdevs; we are one since the swap.
        // One that was adopted has been one all the time.
        if (_backendWord is { } expected && TPolicy.LookAtBackendAfterActive && ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BackendOffset(Body.BackendId)) != expected)
            throw new CbdException(CbdErrorKind.Busy, $"backend {Body.BackendId} was stopped or restarted meanwhile: start the device again") { MayPass = true };
    }

    /// <summary>Publishes the body again, with every heartbeat of the host. False if the entry is not ours any more.</summary>
    public bool Beat() => Publish(Body);

    /// <summary>The device is being stopped; end its channels, then call <see cref="End"/>.</summary>
    public void BeginClose()
    {
        if (_word.State == ClaimState.Active)
            Swap(_word.With(ClaimState.Closing));
    }

    /// <summary>
    /// Gives the entry up, after all its channels are free: the writer word first, then the entry, then the backend if
    /// it was an orphan and this its last blkdev. Also ends a claim that never became active; an adoption leaves its orphan then.
    /// </summary>
    public void End()
    {
        if (_word.State == ClaimState.Adopting)
            Park();
        else
            Free();
    }

    /// <summary>
    /// Leaves the blkdev as an orphan of this host, with its writer word, after all its channels are free: another claim of this
    /// host adopts it.
    /// </summary>
    public void Park()
    {
        if (_word.State is ClaimState.Adopting or ClaimState.Active)
            Swap(_word.Orphaned());
    }

    /// <summary>An adoption that found the writer word gone: nothing is left to be adopted.</summary>
    internal void Free()
    {
        BeginClose();
        // Quarantined by others: the writer word stays with it.
        if (IsMine())
            References<TMemory, TPolicy>.FreeWriter(_memory, _geometry, Blkdev, _word.Epoch);
        Swap(_word.Freed());
        References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
    }

    /// <summary>
    /// Gives the entry up while some of its channels are quarantined: it keeps the backend's writer word, and is
    /// quarantined with them.
    /// </summary>
    public void Quarantine()
    {
        BeginClose();
        Swap(_word.With(ClaimState.Quarantined));
    }

    /// <summary>The first body, before the writer word is taken.</summary>
    internal bool PublishFirst() => Publish(Body);

    private bool Publish(BlkdevBody body)
    {
        // Against End and Quarantine of another thread: a beat that comes late would store over a successor's body.
        lock (_lock)
            return PublishLocked(body);
    }

    private bool PublishLocked(BlkdevBody body)
    {
        // Not ours: what lies there is a successor's.
        if (!IsMine())
            return false;
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        frame.Clear();
        body.Encode(frame[BodyFrame.PayloadOffset..]);
        _writer.Publish(_memory, frame, body.SizeBytes);
        Body = body;
        return IsMine();
    }

    private bool Swap(ClaimWord to)
    {
        lock (_lock)
        {
            if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _offset, _word, to))
                return false;
            _word = to;
            return true;
        }
    }
}
