using System.Runtime.InteropServices;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Protocol.Transports;

/// <summary>
/// Formats a region: a state machine that is stepped until it is done. Refused are data that nobody allowed to be
/// overwritten, and a region with a host that is not proven dead, whatever was allowed and of whichever version it is. A crash anywhere after the
/// first store leaves a region that is 'not formatted'. One thread at a time.
/// </summary>
/// <remarks>
/// The magic is swapped to a FORMATTING word first, then the hosts are looked at again (a registering host re-reads the
/// magic after its claim, so one of the two sees the other); the word moves with every part that is zeroed, so that
/// another formatter sees life in it; the real magic comes last. A FORMATTING word that stands still for one dead-time
/// is what an interrupted formatter left, and is taken over.
/// </remarks>
internal sealed class Formatter<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private const int ZeroPartBytes = 1 << 20;

    private readonly TMemory _memory;
    private readonly TransportInfo _info;
    private readonly HostIdentity _self;
    private readonly IHostLocks _locks;
    private readonly bool _force;
    private readonly uint _nonce;
    private TransportInfo? _old;
    private ForeignHosts<TMemory, TPolicy>? _foreign;
    private LivenessTracker<TMemory, TPolicy>? _tracker;
    private ulong _seenFormatting;
    private long _stillMs;
    private long _lookedMs;

    /// <param name="memory">The region.</param>
    /// <param name="info">What to format it as; its region id must be a new random one.</param>
    /// <param name="self">This host, for judging the hosts of a transport that is there.</param>
    /// <param name="locks">Likewise.</param>
    /// <param name="force">Format over anything but a transport with hosts that may live.</param>
    public Formatter(TMemory memory, TransportInfo info, HostIdentity self, IHostLocks locks, bool force)
    {
        info.Geometry.Validate(memory.SizeBytes);
        _memory = memory;
        _info = info;
        _self = self;
        _locks = locks;
        _force = force;
        // Any start will do; one from the random region id keeps two formatters from making equal words.
        _nonce = Crc32C.Compute(info.Geometry.RegionId.ToByteArray());
    }

    /// <summary>
    /// One step. Throws <see cref="CbdException"/> when it is refused; nothing has changed then. While it answers
    /// <see cref="StepResult.Again"/>, call it again after a beat; that ends after a dead-time or two.
    /// </summary>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public StepResult Step(long nowMs)
    {
        ulong magic = _memory.ReadAcquire(TransportInfo.MagicOffset);
        if (!HasRested(magic, nowMs))
            return StepResult.Again;
        // What an interrupted formatter left was already given up by its operator.
        if (!TransportInfo.IsFormatting(magic))
            CheckContents();
        if (!AreHostsGone(nowMs, out ClaimWord[] gone))
            return StepResult.Again;
        return TryFormat(magic, gone) ? StepResult.Done : StepResult.Again;
    }

    /// <summary>Whether the word is not that of a formatter at work.</summary>
    private bool HasRested(ulong magic, long nowMs)
    {
        if (!TransportInfo.IsFormatting(magic))
        {
            _seenFormatting = 0;
            return true;
        }

        if (magic != _seenFormatting)
            (_seenFormatting, _stillMs) = (magic, 0);
        else if (nowMs - _lookedMs is >= 0 and var gapMs && gapMs <= 2L * _self.BeatMs)
            _stillMs += gapMs;
        _lookedMs = nowMs;
        return _stillMs >= _self.DeadMs;
    }

    private void CheckContents()
    {
        if (_force)
            return;
        RegionContents contents = RegionContents.Describe(_memory);
        if (!contents.IsZero)
            throw new CbdException(CbdErrorKind.Busy, $"region is not empty: {contents.Found} is there: check the path, or format over it with --force");
    }

    /// <summary>Whether every host of the transport that is there is gone; throws if one is not.</summary>
    private bool AreHostsGone(long nowMs, out ClaimWord[] gone)
    {
        gone = [];
        Span<byte> header = stackalloc byte[TransportInfo.SizeBytes];
        TransportInfo? old = ReadOld(header, out bool isForeign);
        if (old is null)
        {
            (_old, _tracker) = (null, null);
            return isForeign ? AreForeignHostsGone(header, nowMs) : IsUnlocked();
        }

        _foreign = null;

        if (_tracker is null || _old is null || _old.Geometry.RegionId != old.Geometry.RegionId)
            (_old, _tracker) = (old, new LivenessTracker<TMemory, TPolicy>(_memory, old.Geometry, _self, _locks));
        _tracker.Sample(nowMs);
        bool settled = true;
        gone = new ClaimWord[_old.Geometry.HostCount];
        for (int host = 0; host < gone.Length; host++)
        {
            HostSighting sighting = _tracker.Get(host);
            gone[host] = sighting.Word;
            if (sighting.Liveness == Liveness.Dead)
                continue;
            if (sighting.Settled)
                throw Refused(sighting);
            settled = false;
        }

        return settled;
    }

    private bool AreForeignHostsGone(ReadOnlySpan<byte> header, long nowMs)
    {
        if (_foreign is null || !header.SequenceEqual(_foreign.Header))
            _foreign = new ForeignHosts<TMemory, TPolicy>(_memory, header, _self, _locks);
        return _foreign.AreGone(nowMs);
    }

    /// <summary>No transport is there, as far as can be seen: then nobody may have locked a part of the file.</summary>
    private bool IsUnlocked()
    {
        _foreign = null;
        if (_locks.IsAnyHeld(_self.Device, _self.Inode))
            throw new CbdException(CbdErrorKind.Busy, "region is in use: a process of this machine has locked a part of it: end that process (lslocks shows it), then format");
        return true;
    }

    private static CbdException Refused(HostSighting host) => new(
        CbdErrorKind.Busy,
        host.Liveness == Liveness.Alive
            ? $"region is in use: host {host.Host} ('{host.Name}') is alive: unregister it there (tp-unreg), then format"
            : $"region may be in use: nothing proves that host {host.Host} ('{host.Name}') is dead: clear it with host-clear (--fenced if its machine is off or cut off), then format");

    /// <param name="header">Filled with the transport info if one is there.</param>
    /// <param name="isForeign">One is there that this program cannot use.</param>
    private TransportInfo? ReadOld(Span<byte> header, out bool isForeign)
    {
        isForeign = false;
        ulong magic = _memory.ReadAcquire(TransportInfo.MagicOffset);
        if (magic != TransportInfo.Magic && !TransportInfo.IsFormatting(magic))
            return null;
        _memory.Read(0, header);
        try
        {
            return TransportInfo.Decode(header, _memory.SizeBytes);
        }
        catch (CbdException)
        {
            // Damaged, or of another version.
            isForeign = true;
            return null;
        }
    }

    private bool TryFormat(ulong seen, ClaimWord[] gone)
    {
        ulong word = Formatting(_nonce);
        // Whoever registers from here on finds the word, or was there before and is found below. A full fence.
        if (!TrySwap(seen, word))
            return false;
        if (!SameHosts(gone))
        {
            // Somebody registers right now. Putting the magic back is right: nothing but it was touched.
            TrySwap(word, seen);
            return false;
        }

        RegionGeometry geometry = _info.Geometry;
        Zero(TransportInfo.SizeBytes, geometry.ChannelAreaOffset - TransportInfo.SizeBytes, ref word);
        for (int channel = 0; channel < geometry.ChannelCount; channel++)
            Zero(geometry.ChannelOffset(channel), ChannelLayout.MetaBytes(geometry.RingSlots, geometry.PageBytes), ref word);
        Move(ref word);
        StoreHeader(word);
        // Publishes the header and the zeroed areas; pairs with the acquire load of the magic in TransportInfo.Read.
        if (!TrySwap(word, TransportInfo.Magic))
            throw Overtaken();
        return true;
    }

    private bool SameHosts(ClaimWord[] gone)
    {
        if (_old is null)
            return _foreign?.IsUnchanged() ?? !_locks.IsAnyHeld(_self.Device, _self.Inode);
        for (int host = 0; host < gone.Length; host++)
        {
            if (ClaimOperations<TMemory, TPolicy>.Read(_memory, _old.Geometry.HostOffset(host)) != gone[host])
                return false;
        }

        return true;
    }

    /// <summary>
    /// Word by word, from what was there while the region was seen to be ours: a formatter that stood still, and was taken
    /// over meanwhile, must not zero what hosts have stored since.
    /// </summary>
    private void Zero(long offset, long bytes, ref ulong word)
    {
        byte[] part = new byte[(int)Math.Min(ZeroPartBytes, bytes)];
        for (long done = 0; done < bytes; done += part.Length)
        {
            Move(ref word);
            Span<byte> there = part.AsSpan(0, (int)Math.Min(part.Length, bytes - done));
            _memory.Read(offset + done, there);
            // Most of it is zero, and found so faster than word by word.
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(there);
            for (int i = words.IndexOfAnyExcept(0UL); i >= 0 && i < words.Length; i++)
            {
                if (words[i] != 0)
                    Store(offset + done + i * sizeof(ulong), 0, word);
            }
        }
    }

    /// <summary>What lies behind the magic.</summary>
    private void StoreHeader(ulong word)
    {
        byte[] header = new byte[TransportInfo.SizeBytes], there = new byte[TransportInfo.SizeBytes];
        _info.Encode(header);
        _memory.Read(0, there);
        ReadOnlySpan<ulong> wanted = MemoryMarshal.Cast<byte, ulong>(header), found = MemoryMarshal.Cast<byte, ulong>(there);
        for (int i = 1; i < wanted.Length; i++)
        {
            if (found[i] != wanted[i])
                Store(TransportInfo.MagicOffset + i * sizeof(ulong), wanted[i], word);
        }
    }

    /// <summary>
    /// Swaps one word, from what was there while the region was seen to be ours. One word alone can still be a successor's: where it has come
    /// to be again what it was before, as the words of a first claim do.
    /// </summary>
    private void Store(long at, ulong value, ulong word)
    {
        while (true)
        {
            ulong old = _memory.ReadAcquire(at);
            if (_memory.ReadAcquire(TransportInfo.MagicOffset) != word)
                throw Overtaken();
            if (_memory.CompareExchange(at, value, old) == old)
                return;
        }
    }

    /// <summary>Shows life, and sees that nobody took over.</summary>
    private void Move(ref ulong word)
    {
        ulong next = Formatting((uint)word + 1);
        if (!TrySwap(word, next))
            throw Overtaken();
        word = next;
    }

    private static CbdException Overtaken() =>
        new(CbdErrorKind.Busy, "region is being formatted by another host too, which took over: wait until it is done, then register without --format");

    private static ulong Formatting(uint low) => ((ulong)TransportInfo.FormattingMark << 32) | low;

    private bool TrySwap(ulong from, ulong to) =>
        ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, TransportInfo.MagicOffset, new ClaimWord(from), new ClaimWord(to));
}
