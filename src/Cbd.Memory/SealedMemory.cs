using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Memory that outlives this process as long as somebody holds its descriptor: a memfd whose size is sealed, mapped shared, with every
/// page present and writable. Linux 4.17.
/// </summary>
/// <remarks>
/// <para>The kernel copies into these pages without a page fault. A page that is only locked once it is touched
/// (MCL_ONFAULT) is not enough: a process that is killed during such a fault leaves half of what the kernel had for it.</para>
/// <para>Any thread may use the bytes, and orders what it does there itself.</para>
/// </remarks>
public sealed unsafe class SealedMemory : IDisposable
{
    private const int Seals = SealSeals | SealShrink | SealGrow;

    private SealedMemory(FileDescriptor descriptor, NativeBuffer buffer, int lockError)
    {
        Descriptor = descriptor;
        Buffer = buffer;
        LockError = lockError;
    }

    /// <summary>The memfd, for who keeps it while no process has the memory mapped.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The bytes. Who holds a reference to them may use them after this object was disposed.</summary>
    public NativeBuffer Buffer { get; }

    /// <summary>
    /// 0, or why the pages are not locked: EPERM without CAP_IPC_LOCK, ENOMEM above RLIMIT_MEMLOCK. They are present all the same; the
    /// kernel may swap them out. Who serves swap or dirty pages of this machine must not go on then.
    /// </summary>
    public int LockError { get; }

    /// <summary>Makes memory of zeroes. All of it is taken at once.</summary>
    /// <param name="name">What lists of this process's descriptors show.</param>
    /// <param name="sizeBytes">Size, bytes: whole pages.</param>
    /// <exception cref="CbdException">Exhausted: there is not so much memory, or no descriptor.</exception>
    public static SealedMemory Create(string name, long sizeBytes)
    {
        CheckSize(sizeBytes);
        int number = LibC.CreateMemoryFile(name, MemoryFileCloseOnExec | MemoryFileAllowSealing);
        if (number < 0)
            throw SystemCallException.Last("memfd_create", name);
        var descriptor = FileDescriptor.Own(number, name);
        try
        {
            descriptor.Truncate(sizeBytes);
            // Where there is no memory this says so; a store into the mapping would end the process.
            descriptor.Allocate(AllocateMode.Reserve, 0, sizeBytes);
            if (LibC.FCntl(descriptor, FcntlAddSeals, Seals) < 0)
                throw SystemCallException.Last("fcntl F_ADD_SEALS", name);
            return Map(descriptor, name, sizeBytes);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Maps the memory of a descriptor that another process kept; owned from here on, unless this throws. Nothing is asked of a file that
    /// is no memfd but for its seals: that never waits.
    /// </summary>
    /// <param name="descriptor">The memfd.</param>
    /// <param name="name">What messages call it.</param>
    /// <param name="leastBytes">Smallest size that is taken, bytes.</param>
    /// <param name="mostBytes">Largest size that is taken, bytes.</param>
    /// <exception cref="CbdException">Invalid: it is no memfd, or has another size or other seals.</exception>
    public static SealedMemory Open(FileDescriptor descriptor, string name, long leastBytes, long mostBytes)
    {
        int seals = LibC.FCntl(descriptor, FcntlGetSeals, 0);
        if (seals < 0)
            throw new CbdException(CbdErrorKind.Invalid, $"the descriptor '{name}' is no sealed memory (errno {LibC.LastErrno} of F_GET_SEALS)");
        if ((seals & Seals) != Seals)
            throw new CbdException(CbdErrorKind.Invalid, $"the memory '{name}' has the seals 0x{seals:x}, and 0x{Seals:x} are needed: its size could change");
        long sizeBytes = LibC.LSeek(descriptor, 0, SeekEnd);
        if (sizeBytes < leastBytes || sizeBytes > mostBytes || sizeBytes % NativeBuffer.AlignmentBytes != 0)
            throw new CbdException(CbdErrorKind.Invalid, $"the memory '{name}' has {sizeBytes} bytes, and {leastBytes} to {mostBytes} in whole pages are expected");
        return Map(descriptor, name, sizeBytes);
    }

    /// <summary>
    /// Reads the first bytes of sealed memory without mapping it; the descriptor stays the caller's. False if it is none, or shorter.
    /// </summary>
    public static bool TryReadStart(FileDescriptor descriptor, Span<byte> bytes)
    {
        if (descriptor.IsClosed || LibC.FCntl(descriptor, FcntlGetSeals, 0) < 0)
            return false;
        // SAFETY: the kernel stores at most the length of the buffer, which does not move.
        fixed (byte* start = bytes)
            return LibC.PRead(descriptor.Number, start, (nuint)bytes.Length, 0) == bytes.Length;
    }

    /// <summary>Closes the descriptor, and unmaps the memory or lets the last reference do so.</summary>
    public void Dispose()
    {
        Descriptor.Dispose();
        Buffer.Dispose();
    }

    private static SealedMemory Map(FileDescriptor descriptor, string name, long sizeBytes)
    {
        void* start = LibC.MMap(null, (nuint)sizeBytes, ProtectionRead | ProtectionWrite, MapShared, descriptor, 0);
        if (start == (void*)-1)
            throw SystemCallException.Last("mmap", name);
        try
        {
            Populate((byte*)start, sizeBytes, name);
            int lockError = LibC.MLock(start, (nuint)sizeBytes) == 0 ? 0 : LibC.LastErrno;
            return new SealedMemory(descriptor, new NativeBuffer(start, sizeBytes), lockError);
        }
        catch
        {
            _ = LibC.MUnmap(start, (nuint)sizeBytes);
            throw;
        }
    }

    /// <summary>Makes every page present and writable in this mapping.</summary>
    private static void Populate(byte* start, long sizeBytes, string name)
    {
        // The kernel takes pages out of the mapping for a moment when it makes a huge one of them. Without huge pages this fails, and is not needed.
        _ = LibC.MAdvise(start, (nuint)sizeBytes, MemoryAdviseNoHugePage);
        int error;
        do
            error = LibC.MAdvise(start, (nuint)sizeBytes, MemoryAdvisePopulateWrite) == 0 ? 0 : LibC.LastErrno;
        while (error is EINTR or EAGAIN);
        if (error is not 0 and not EINVAL)
            throw new SystemCallException("madvise MADV_POPULATE_WRITE", error, name);
        if (error == 0)
            return;
        // Before Linux 5.14. An atomic addition of nothing stores, so that the page is writable, and changes no byte.
        for (long page = 0; page < sizeBytes; page += NativeBuffer.AlignmentBytes)
            Interlocked.Add(ref *(int*)(start + page), 0);
    }

    private static void CheckSize(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        if (sizeBytes % NativeBuffer.AlignmentBytes != 0)
            throw new ArgumentOutOfRangeException(nameof(sizeBytes), $"{sizeBytes} bytes are not whole pages");
    }
}
