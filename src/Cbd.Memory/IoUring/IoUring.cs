using static Cbd.Memory.Errno;
using static Cbd.Memory.IoUringCalls;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// One io_uring over one file. Entries are prepared, then submitted together; completions are reaped
/// from shared memory. One thread uses it at a time, but not always the same: the ring is not bound to a thread, since
/// a queue may be drained by another one than drove it. The memory of a request belongs to the kernel until its
/// completion was reaped: reap all of them before <see cref="Dispose"/>.
/// </summary>
public sealed unsafe partial class IoUring : IDisposable
{
    private const uint NeededFeatures = FeatureSingleMap | FeatureNoDrop | FeatureExtendedArgument;
    private const long MaxRegisteredBytes = 1L << 30;

    private readonly FileDescriptor _ring;
    private readonly uint* _submissionHead;
    private readonly uint* _submissionTail;
    private readonly uint* _submissionFlags;
    private readonly uint* _completionHead;
    private readonly uint* _completionTail;
    private readonly uint _submissionMask;
    private readonly uint _submissionCount;
    private readonly uint _completionMask;
    private readonly byte* _submissions;
    private readonly int _entryShift;
    private readonly CompletionEntry* _completions;
    private readonly nuint _ringBytes;
    private readonly nuint _entryBytes;
    private byte* _rings;
    private uint _preparedTail;
    private uint _reapedHead;
    private NativeBuffer? _registered;

    private IoUring(FileDescriptor ring, in Parameters parameters, byte* rings, nuint ringBytes, byte* entries, nuint entryBytes, int entryShift)
    {
        // SAFETY: the offsets were stored by the kernel for these two mappings, which live until Dispose.
        _ring = ring;
        _rings = rings;
        _ringBytes = ringBytes;
        _entryBytes = entryBytes;
        _submissionHead = (uint*)(rings + parameters.Submission.Head);
        _submissionTail = (uint*)(rings + parameters.Submission.Tail);
        _submissionFlags = (uint*)(rings + parameters.Submission.Flags);
        _completionHead = (uint*)(rings + parameters.Completion.Head);
        _completionTail = (uint*)(rings + parameters.Completion.Tail);
        _submissionMask = *(uint*)(rings + parameters.Submission.RingMask);
        _submissionCount = *(uint*)(rings + parameters.Submission.RingEntries);
        _completionMask = *(uint*)(rings + parameters.Completion.RingMask);
        _submissions = entries;
        _entryShift = entryShift;
        _completions = (CompletionEntry*)(rings + parameters.Completion.Entries);
        // Slot i of the indirection array is always entry i, so that it is never touched again.
        uint* array = (uint*)(rings + parameters.Submission.Array);
        for (uint i = 0; i < _submissionCount; i++)
            array[i] = i;
        _preparedTail = *_submissionTail;
        _reapedHead = *_completionHead;
    }

    ~IoUring() => Free();

    /// <summary>Entries that were prepared and not submitted.</summary>
    public int PreparedCount => (int)(_preparedTail - Volatile.Read(ref *_submissionHead));

    /// <summary>A completion can be reaped now.</summary>
    public bool HasCompletion => Volatile.Read(ref *_completionTail) != _reapedHead;

    /// <summary>The kernel has completions that it stores in the ring when it is entered.</summary>
    public bool NeedsEnter => (Volatile.Read(ref *_submissionFlags) & (SubmissionTaskRun | SubmissionOverflow)) != 0;

    /// <summary>
    /// Sets up a ring with room for <paramref name="entries"/> prepared and twice as many completed requests. Returns 0
    /// or a negative errno: EPERM or ENOSYS where io_uring is forbidden or missing, EOPNOTSUPP where the kernel's is older than 5.11.
    /// </summary>
    public static int TryCreate(int entries, out IoUring? ring) => TryCreate(entries, wide: false, out ring);

    private static int TryCreate(int entries, bool wide, out IoUring? ring)
    {
        ring = null;
        uint always = SetupClamp | (wide ? SetupWideEntries : 0);
        // Cooperative task running (5.19) spares an interrupt per completion, and its flag tells when to enter.
        // Older kernels refuse what they do not know with EINVAL.
        Parameters parameters = new() { Flags = always | SetupSubmitAll | SetupCooperativeTaskRun | SetupTaskRunFlag };
        int descriptor = IoUringCalls.Setup((uint)entries, &parameters);
        if (descriptor < 0 && LibC.LastErrno == EINVAL)
        {
            parameters = new() { Flags = always };
            descriptor = IoUringCalls.Setup((uint)entries, &parameters);
        }
        if (descriptor < 0)
            return -LibC.LastErrno;
        var handle = FileDescriptor.Own(descriptor, "io_uring");
        if ((parameters.Features & NeededFeatures) != NeededFeatures)
        {
            handle.Dispose();
            return -EOPNOTSUPP;
        }
        nuint ringBytes = Math.Max(
            parameters.Submission.Array + parameters.SubmissionCount * sizeof(uint),
            parameters.Completion.Entries + parameters.CompletionCount * (uint)sizeof(CompletionEntry));
        int entryShift = wide ? WideEntryShift : EntryShift;
        nuint entryBytes = (nuint)parameters.SubmissionCount << entryShift;
        byte* failed = (byte*)-1;
        byte* rings = Map(handle, ringBytes, MapRings);
        byte* submissions = rings == failed ? failed : Map(handle, entryBytes, MapEntries);
        if (submissions == failed)
        {
            int error = LibC.LastErrno;
            if (rings != failed)
                _ = LibC.MUnmap(rings, ringBytes);
            handle.Dispose();
            return -error;
        }
        ring = new IoUring(handle, parameters, rings, ringBytes, submissions, entryBytes, entryShift);
        return 0;
    }

    /// <summary>Registers the file that all requests go to; once, before the first. Returns 0 or a negative errno.</summary>
    public int RegisterFile(DiskFile file) => RegisterFile(file.Descriptor);

    /// <inheritdoc cref="RegisterFile(DiskFile)"/>
    public int RegisterFile(FileDescriptor file)
    {
        // SAFETY: the kernel reads one int and takes its own reference to the file.
        int descriptor = file.Number;
        return Check(IoUringCalls.Register(Descriptor, RegisterFiles, &descriptor, 1));
    }

    /// <summary>
    /// Registers the memory that payloads lie in, which spares the kernel pinning its pages for each request. Returns 0
    /// or a negative errno (ENOMEM: over the limit of locked memory); then, and for other memory, requests still work.
    /// </summary>
    public int RegisterBuffer(NativeBuffer buffer)
    {
        if (buffer.SizeBytes > MaxRegisteredBytes)
            return -EOVERFLOW;
        // SAFETY: the kernel pins the pages itself; the vector is read during the call.
        var vector = new LibC.IoVector { Start = (void*)buffer.Address, Length = (nuint)buffer.SizeBytes };
        buffer.Pin();
        int error = Check(IoUringCalls.Register(Descriptor, RegisterBuffers, &vector, 1));
        if (error == 0)
            _registered = buffer;
        return error;
    }

    /// <summary>Prepares a read of the slice; false if the ring is full.</summary>
    public bool PrepareRead(BufferSlice data, long offset, ulong userData)
    {
        bool registered = _registered is not null && ReferenceEquals(data.Buffer, _registered);
        return Prepare(
            registered ? OperationReadFixed : OperationRead, offset, (ulong)data.Address, (uint)data.Length, 0, userData);
    }

    /// <summary>Prepares a write of the slice, onto the medium if <paramref name="durable"/>.</summary>
    public bool PrepareWrite(BufferSlice data, long offset, bool durable, ulong userData)
    {
        bool registered = _registered is not null && ReferenceEquals(data.Buffer, _registered);
        return Prepare(
            registered ? OperationWriteFixed : OperationWrite, offset, (ulong)data.Address, (uint)data.Length,
            durable ? (uint)WriteDataSync : 0, userData);
    }

    /// <summary>Prepares an fdatasync.</summary>
    public bool PrepareSyncData(ulong userData) => Prepare(OperationSync, 0, 0, 0, SyncDataOnly, userData);

    /// <summary>Prepares an fallocate of the range.</summary>
    public bool PrepareAllocate(AllocateMode mode, long offset, long length, ulong userData) =>
        Prepare(OperationAllocate, offset, (ulong)length, (uint)mode, 0, userData);

    /// <summary>Prepares one completion for the next signal of the event that reaches its descriptor.</summary>
    public bool PreparePoll(WakeEvent wake, ulong userData) => PreparePollDescriptor(wake.Descriptor.Number, userData);

    /// <inheritdoc cref="PreparePoll(WakeEvent, ulong)"/>
    public bool PreparePoll(PollWake wake, ulong userData) => PreparePollDescriptor(wake.Descriptor.Number, userData);

    /// <summary>Prepares one completion for when the descriptor is readable.</summary>
    internal bool PreparePollDescriptor(int descriptor, ulong userData)
    {
        // The mask is 32 bits wide since 5.11, its halves swapped on big-endian machines only.
        if (!Prepare(OperationPollAdd, 0, 0, 0, (uint)PollIn, userData))
            return false;
        SubmissionEntry* entry = EntryAt(_preparedTail - 1);
        entry->Flags = 0;
        entry->Descriptor = descriptor;
        return true;
    }

    /// <summary>
    /// Prepares one completion for the next wake of a doorbell, or at once if it does not hold
    /// <paramref name="expected"/>. Needs Linux 6.7; older kernels complete it with -EINVAL.
    /// </summary>
    internal bool PrepareFutexWait(in MappedMemory memory, long doorbell, uint expected, ulong userData)
    {
        if (!Prepare(OperationFutexWait, expected, (ulong)memory.DoorbellAddress(doorbell), 0, 0, userData))
            return false;
        SubmissionEntry* entry = EntryAt(_preparedTail - 1);
        entry->Flags = 0;
        entry->Descriptor = (int)KernelConstants.Futex2Size32;
        entry->FutexMask = uint.MaxValue;
        return true;
    }

    /// <summary>
    /// Submits everything that is prepared in one system call: a signal that ends the process comes before all of it or behind all of it. What
    /// the kernel had no memory for stays prepared.
    /// </summary>
    public void EnterAtOnce() => EnterKernel(0, EnterGetEvents, null, 0);

    /// <summary>
    /// Hands what was prepared to the kernel, and lets it store what is complete. Does not block. Each request goes with
    /// a call of its own: of several in one call the block layer starts none before it has prepared the last (its plug),
    /// which delayed 4 KiB reads at depth 32 by 40 µs, and cost more of the disk's rate than the calls do.
    /// </summary>
    public void Enter()
    {
        int left = PreparedCount;
        while (left > 1)
        {
            EnterKernel(0, EnterGetEvents, null, 0, 1);
            int now = PreparedCount;
            if (now == left)
                return;
            left = now;
        }

        EnterKernel(0, EnterGetEvents, null, 0);
    }

    /// <summary>Submits, then sleeps until there is a completion or the time is over; may end early.</summary>
    public void EnterAndWait(int timeoutMicroseconds)
    {
        // SAFETY: both structures live on this stack frame for the length of the call.
        var timeout = LibC.TimeSpec.FromMicroseconds(timeoutMicroseconds);
        var argument = new WaitArgument { Timeout = (ulong)&timeout };
        EnterKernel(1, EnterGetEvents | EnterExtendedArgument, &argument, (nuint)sizeof(WaitArgument));
    }

    /// <summary>Takes the oldest completion. <paramref name="result"/> is not negative, or a negative errno.</summary>
    public bool TryReap(out ulong userData, out int result)
    {
        // Acquire: the entry below is loaded after the tail that published it, which the kernel stores with release.
        if (Volatile.Read(ref *_completionTail) == _reapedHead)
        {
            userData = 0;
            result = 0;
            return false;
        }
        CompletionEntry* entry = _completions + (_reapedHead & _completionMask);
        userData = entry->UserData;
        result = entry->Result;
        // Release: the kernel may overwrite the entry when it sees the head, so it was loaded before.
        Volatile.Write(ref *_completionHead, ++_reapedHead);
        return true;
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private int Descriptor => _ring.Number;

    // SAFETY: the mask keeps the index inside the mapping of entries, whatever their size.
    private SubmissionEntry* EntryAt(uint index) => (SubmissionEntry*)(_submissions + ((nuint)(index & _submissionMask) << _entryShift));

    private bool Prepare(byte operation, long offset, ulong address, uint length, uint operationFlags, ulong userData)
    {
        ObjectDisposedException.ThrowIf(_rings == null, this);
        // Acquire: the kernel has copied an entry before it moves the head past it.
        if (_preparedTail - Volatile.Read(ref *_submissionHead) == _submissionCount)
            return false;
        SubmissionEntry* entry = EntryAt(_preparedTail);
        *entry = new SubmissionEntry
        {
            Operation = operation,
            Flags = EntryFixedFile,
            Offset = (ulong)offset,
            Address = address,
            Length = length,
            OperationFlags = operationFlags,
            UserData = userData,
        };
        _preparedTail++;
        return true;
    }

    private void EnterKernel(uint complete, uint flags, void* argument, nuint argumentBytes, uint mostSubmitted = uint.MaxValue)
    {
        ObjectDisposedException.ThrowIf(_rings == null, this);
        // Release: publishes the prepared entries; pairs with the kernel's acquire of the tail.
        Volatile.Write(ref *_submissionTail, _preparedTail);
        int result = IoUringCalls.Enter(Descriptor, Math.Min((uint)PreparedCount, mostSubmitted), complete, flags, argument, argumentBytes);
        if (result >= 0)
            return;
        // Interrupted, out of time, or no memory or room for the moment: the caller polls and comes again.
        int error = LibC.LastErrno;
        if (error is EINTR or EAGAIN or EBUSY or ETIME or ENOMEM)
            return;
        throw new InvalidOperationException($"io_uring_enter failed with errno {error}");
    }

    private void Free()
    {
        byte* rings = _rings;
        _rings = null;
        if (rings == null)
            return;
        // The kernel takes a closed ring apart later, on a thread of its own. What was registered is given back now:
        // the file's reference would keep the disk locked, the buffer's its pages taken.
        if (!_ring.IsClosed)
        {
            _ = IoUringCalls.Register(Descriptor, UnregisterFiles, null, 0);
            _ = IoUringCalls.Register(Descriptor, UnregisterBuffers, null, 0);
        }
        _ = LibC.MUnmap(rings, _ringBytes);
        _ = LibC.MUnmap(_submissions, _entryBytes);
        _ring.Dispose();
    }

    private static byte* Map(FileDescriptor ring, nuint length, long offset) =>
        (byte*)LibC.MMap(null, length, ProtectionRead | ProtectionWrite, MapShared | MapPopulate, ring, offset);

    private static int Check(int result) => result < 0 ? -LibC.LastErrno : 0;
}
