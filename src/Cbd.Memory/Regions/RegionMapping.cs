using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// A region mapped into this process. The owner disposes it after everybody else has stopped using
/// <see cref="Memory"/>: an access that runs at the same time as <see cref="Dispose"/> is a bug which the kernel
/// punishes; one that comes later throws <see cref="ArgumentOutOfRangeException"/>.
/// </summary>
public sealed unsafe class RegionMapping : IDisposable
{
    private readonly RegionSource _source;
    private readonly bool _ownsSource;
    private byte* _start;
    private ulong _wordCount;
    private ulong _lineCount;
    private long _usableBytes;
    private bool _hadName;
    private int _guard;

    private RegionMapping(RegionSource source, bool ownsSource, byte* start, long sizeBytes, bool isSynchronous)
    {
        _source = source;
        _ownsSource = ownsSource;
        _start = start;
        SizeBytes = _usableBytes = sizeBytes;
        _wordCount = (ulong)sizeBytes / sizeof(ulong);
        _lineCount = (ulong)sizeBytes / Line.SizeBytes;
        IsSynchronous = isSynchronous;
        _guard = NativeShim.GuardAdd(start, (nuint)sizeBytes);
    }

    ~RegionMapping() => Unmap();

    /// <summary>The region, with wakes where a futex can work on this kind of memory.</summary>
    public MappedMemory Memory => new(this, SupportsWake);

    /// <summary>Size, bytes: whole pages of the source.</summary>
    public long SizeBytes { get; }

    /// <summary>Unit of mappings, bytes.</summary>
    public int PageBytes => _source.PageBytes;

    public RegionKind Kind => _source.Kind;

    public string Path => _source.Path;

    /// <inheritdoc cref="RegionSource.Descriptor"/>
    public FileDescriptor Descriptor => _source.Descriptor;

    /// <inheritdoc cref="RegionSource.Device"/>
    public ulong Device => _source.Device;

    public ulong Inode => _source.Inode;

    /// <summary>Futexes work on it: they need pages that belong to an inode of this kernel.</summary>
    public bool SupportsWake => _source.IsFile;

    /// <summary>Mapped with MAP_SYNC: what is in the CPU's caches survives a power failure where those do.</summary>
    public bool IsSynchronous { get; }

    /// <summary>
    /// The memory failed under an access: the file was truncated, or the memory is broken. Everything reads as zero
    /// since, and what is stored reaches nobody; the transport has to be given up. Cheap; any thread; keeps its value
    /// until <see cref="Dispose"/>.
    /// </summary>
    public bool IsPoisoned => NativeShim.GuardPoisoned(_guard) != 0;

    /// <summary>
    /// The region's file has become shorter than what is mapped: pages are gone, though perhaps none that anybody has touched
    /// since. A system call; any thread.
    /// </summary>
    public bool IsTruncated => _source.IsFile && Descriptor.GetStatus().SizeBytes < SizeBytes;

    /// <summary>
    /// The region's file has no name any more: whoever opens the path now gets another one, or none. A system call; any thread.
    /// </summary>
    public bool IsRemoved
    {
        get
        {
            if (!_source.IsFile)
                return false;
            bool hasName = Descriptor.GetStatus().LinkCount > 0;
            _hadName |= hasName;
            // One that never had a name was given as a descriptor.
            return _hadName && !hasName;
        }
    }

    // Read by MappedMemory on every access; zero after Dispose, so that its one compare catches that too.
    internal byte* Start => _start;
    internal ulong WordCount => _wordCount;
    internal ulong LineCount => _lineCount;
    internal long UsableBytes => _usableBytes;

    /// <summary>Opens, checks and maps a region that must have at least <paramref name="minimumBytes"/>.</summary>
    public static RegionMapping Open(string path, long minimumBytes = 1)
    {
        RegionSource source = RegionSource.Open(path);
        try
        {
            return Map(source, ownsSource: true, minimumBytes);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    internal static RegionMapping Map(RegionSource source, bool ownsSource = false, long minimumBytes = 1)
    {
        long sizeBytes = source.SizeBytes & -(long)source.PageBytes;
        if (sizeBytes < Math.Max(minimumBytes, source.PageBytes))
            throw new CbdException(CbdErrorKind.Invalid, $"region '{source.Path}' has {source.SizeBytes} bytes, the minimum is {Math.Max(minimumBytes, source.PageBytes)}: {(source.IsFile ? "give a larger file, or --format with a larger --size" : "give a larger device")}") { MayPass = source.SizeBytes == 0 };
        const int protection = ProtectionRead | ProtectionWrite;
        void* failed = (void*)-1;
        void* start = failed;
        bool isSynchronous = false;
        if (source.Kind == RegionKind.FsDax)
        {
            start = LibC.MMap(null, (nuint)sizeBytes, protection, MapSharedValidate | MapSync, source.Descriptor, 0);
            isSynchronous = start != failed;
        }

        if (start == failed)
            start = LibC.MMap(null, (nuint)sizeBytes, protection, MapShared, source.Descriptor, 0);
        if (start == failed)
        {
            int error = LibC.LastErrno;
            throw new CbdException(
                error == ENOMEM ? CbdErrorKind.Exhausted : CbdErrorKind.Unsupported,
                $"region '{source.Path}' of {sizeBytes} bytes cannot be mapped: {Marshal.GetPInvokeErrorMessage(error)}: {(source.Kind == RegionKind.PciBar ? "check that this BAR is memory and the device enabled" : "check its size and the limits of this process")}");
        }

        var mapping = new RegionMapping(source, ownsSource, (byte*)start, sizeBytes, isSynchronous);
        if (mapping._guard >= 0)
            return mapping;
        mapping.Unmap();
        throw new CbdException(CbdErrorKind.Exhausted, $"region '{source.Path}' cannot be mapped: this process has mapped too many regions: unregister some");
    }

    /// <summary>
    /// Makes whole pages of this mapping read-only, or writable again, as a net under what this side must never store
    /// to. Our own store there ends the process; a system call that would store there gets EFAULT.
    /// </summary>
    public void Protect(long offset, long length, bool writable)
    {
        if (((offset | length) & (PageBytes - 1)) != 0)
            throw new ArgumentException($"[{offset}, +{length}) is not whole pages of {PageBytes} bytes", nameof(offset));
        byte* start = Memory.Bytes(offset, length);
        if (LibC.MProtect(start, (nuint)length, writable ? ProtectionRead | ProtectionWrite : ProtectionRead) < 0)
            throw SystemCallException.Last("mprotect", Path);
    }

    public void Dispose()
    {
        Unmap();
        if (_ownsSource)
            _source.Dispose();
        GC.SuppressFinalize(this);
    }

    private void Unmap()
    {
        _wordCount = 0;
        _lineCount = 0;
        _usableBytes = 0;
        byte* start = _start;
        _start = null;
        if (start == null)
            return;
        // Before the addresses can belong to somebody else.
        NativeShim.GuardRemove(_guard);
        _guard = -1;
        _ = LibC.MUnmap(start, (nuint)SizeBytes);
    }
}
