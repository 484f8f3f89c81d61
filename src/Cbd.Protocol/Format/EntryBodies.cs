using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>Reads the bodies of entries: the newest valid copy of one epoch, decoded and validated.</summary>
internal static class EntryBodies<TMemory>
    where TMemory : struct, ISharedMemory
{
    /// <summary>False, with the reason, if there is no valid body of that epoch.</summary>
    public static bool TryReadHost(in TMemory memory, RegionGeometry geometry, int host, ulong epoch, out HostBody body, out string error)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (Body<TMemory>.TryRead(memory, BodyPlace.OfHost(geometry, host), epoch, frame, out _, out int length))
            return HostBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), out body, out error);
        body = null!;
        error = NoCopy(epoch);
        return false;
    }

    /// <summary>False, with the reason, if there is no valid body of that epoch.</summary>
    public static bool TryReadBackend(in TMemory memory, RegionGeometry geometry, int backend, ulong epoch, out BackendBody body, out string error)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (Body<TMemory>.TryRead(memory, BodyPlace.OfBackend(geometry, backend), epoch, frame, out _, out int length))
            return BackendBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), out body, out error);
        body = null!;
        error = NoCopy(epoch);
        return false;
    }

    /// <summary>
    /// The record of a backend whose owner is gone: its newest body of that epoch or an earlier one, and which copy it
    /// is (a claim that takes over must keep that copy whole until its own body is published).
    /// </summary>
    public static bool TryReadBackendRecord(in TMemory memory, RegionGeometry geometry, int backend, ulong newestEpoch, out BackendBody body, out BodyStamp stamp, out string error)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (Body<TMemory>.TryReadRecord(memory, BodyPlace.OfBackend(geometry, backend), newestEpoch, frame, out stamp, out int length))
            return BackendBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), out body, out error);
        body = null!;
        error = NoCopy(newestEpoch);
        return false;
    }

    /// <summary>False, with the reason, if there is no valid body of that epoch.</summary>
    public static bool TryReadBlkdev(in TMemory memory, RegionGeometry geometry, int blkdev, ulong epoch, out BlkdevBody body, out string error)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (Body<TMemory>.TryRead(memory, BodyPlace.OfBlkdev(geometry, blkdev), epoch, frame, out _, out int length))
            return BlkdevBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), geometry, out body, out error);
        body = null!;
        error = NoCopy(epoch);
        return false;
    }

    /// <summary>
    /// The record of a blkdev that is orphaned, or being adopted: its newest body of that epoch or an earlier one, and which copy it
    /// is (an adoption must keep that copy whole until its own body is published).
    /// </summary>
    public static bool TryReadBlkdevRecord(in TMemory memory, RegionGeometry geometry, int blkdev, ulong newestEpoch, out BlkdevBody body, out BodyStamp stamp, out string error)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (Body<TMemory>.TryReadRecord(memory, BodyPlace.OfBlkdev(geometry, blkdev), newestEpoch, frame, out stamp, out int length))
            return BlkdevBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), geometry, out body, out error);
        body = null!;
        error = NoCopy(newestEpoch);
        return false;
    }

    /// <summary>
    /// Whether the newest body of a blkdev's claim says that it outlives its process. Most have shorter bodies, which are
    /// not read for that.
    /// </summary>
    public static bool IsKept(in TMemory memory, RegionGeometry geometry, int blkdev, ulong epoch)
    {
        BodyPlace place = BodyPlace.OfBlkdev(geometry, blkdev);
        return (MayBeKept(memory, place, 0) || MayBeKept(memory, place, 1)) && TryReadBlkdev(memory, geometry, blkdev, epoch, out BlkdevBody body, out _) && body.IsKept;
    }

    private static bool MayBeKept(in TMemory memory, in BodyPlace place, int copy) =>
        BlkdevBody.MayBeKept((int)(memory.ReadPublished(place.CopyOffset(copy)) >> (8 * BodyFrame.LengthOffset)));

    private static string NoCopy(ulong epoch) => $"neither copy of the body is whole in epoch {epoch}";
}
