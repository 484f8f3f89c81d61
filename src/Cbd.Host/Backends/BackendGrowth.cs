using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Format;

namespace Cbd.Host.Backends;

/// <summary>A disk as growth needs it: see <see cref="Disks.Disk"/>, whose members these are.</summary>
internal interface IGrowingDisk
{
    long MeasureBytes();

    void Grow(long sizeBytes);

    int Sync();

    void Serve(long sizeBytes);

    string PathAt(long sizeBytes);
}

/// <summary>Makes a served backend larger.</summary>
internal static class BackendGrowth
{
    /// <summary>
    /// Makes the backend larger, and returns its size then. The disk has it, on its medium, before handlers accept it, and
    /// they do before a blkdev learns of it: a kill in between leaves a disk that is larger than what is served.
    /// </summary>
    /// <param name="life">A backend that serves.</param>
    /// <param name="disk">Its disk.</param>
    /// <param name="sizeBytes">The size that is wanted; null: what the disk has.</param>
    /// <exception cref="CbdException">It cannot be; what is served is as it was.</exception>
    public static long Grow<TMemory, TPolicy>(BackendLife<TMemory, TPolicy> life, IGrowingDisk disk, long? sizeBytes)
        where TMemory : struct, ISharedMemory
        where TPolicy : struct, IProtocolPolicy
    {
        BackendClaim<TMemory, TPolicy> claim = life.Claim!;
        BackendBody body = claim.Body;
        int backend = life.Backend;
        long wanted = Check(body, backend, disk.MeasureBytes(), sizeBytes);
        if (!TPolicy.GrowDiskFirst)
            Tell(claim, disk, backend, wanted);
        disk.Grow(wanted);
        int error = disk.Sync();
        if (error != 0)
        {
            life.Served!.LatchFlushError(error);
            throw new CbdException(CbdErrorKind.Failed, $"backend {backend}: the disk could not be flushed after it grew (errno {error}), which counts as a failed flush: see backend-list and backend-clear");
        }

        if (disk.MeasureBytes() is var now && now < wanted)
            throw new CbdException(CbdErrorKind.Failed, $"'{body.Path}' has {now} bytes after it was to grow to {wanted}: something else made it smaller; try again");
        Tell(claim, disk, backend, wanted);
        return wanted;
    }

    private static long Check(BackendBody body, int backend, long presentBytes, long? sizeBytes)
    {
        if (presentBytes < body.SizeBytes)
            throw new CbdException(CbdErrorKind.Corrupt, $"'{body.Path}' has {presentBytes} bytes, fewer than the {body.SizeBytes} that backend {backend} serves: it was made smaller outside; restore its size");
        long wanted = sizeBytes ?? presentBytes;
        if (wanted % body.LogicalBlockBytes != 0)
            throw new CbdException(CbdErrorKind.Invalid, $"backend {backend}: {wanted} bytes is not a multiple of its block size {body.LogicalBlockBytes}: {(sizeBytes is null ? $"make '{body.Path}' one, or give a size of at least {body.SizeBytes}" : "round the size")}");
        if (wanted < body.SizeBytes)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} has {body.SizeBytes} bytes and cannot shrink to {wanted} while it is served: stop its devices (dev-stop) and it (backend-stop), make the disk smaller, and start it again");
        return wanted;
    }

    private static void Tell<TMemory, TPolicy>(BackendClaim<TMemory, TPolicy> claim, IGrowingDisk disk, int backend, long sizeBytes)
        where TMemory : struct, ISharedMemory
        where TPolicy : struct, IProtocolPolicy
    {
        disk.Serve(sizeBytes);
        if (!claim.Update(next => next with { SizeBytes = sizeBytes, Path = sizeBytes == next.SizeBytes ? next.Path : disk.PathAt(sizeBytes) }))
            throw new CbdException(CbdErrorKind.Failed, $"backend {backend}: this host was cleared by another: register again, then start the backend");
    }
}
