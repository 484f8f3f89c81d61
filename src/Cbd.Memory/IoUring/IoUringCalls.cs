using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// System calls, structures and constants of io_uring (linux/io_uring.h). A test compiles the numbers against the
/// installed header.
/// </summary>
internal static unsafe class IoUringCalls
{
    public const uint SetupClamp = 1 << 4;
    public const uint SetupSubmitAll = 1 << 7;
    public const uint SetupCooperativeTaskRun = 1 << 8;
    public const uint SetupTaskRunFlag = 1 << 9;

    /// <summary>IORING_SETUP_SQE128 of Linux 5.19: entries of 128 bytes.</summary>
    public const uint SetupWideEntries = 1 << 10;

    public const uint FeatureSingleMap = 1 << 0;
    public const uint FeatureNoDrop = 1 << 1;
    public const uint FeatureExtendedArgument = 1 << 8;

    public const uint EnterGetEvents = 1 << 0;
    public const uint EnterExtendedArgument = 1 << 3;

    public const uint SubmissionOverflow = 1 << 1;
    public const uint SubmissionTaskRun = 1 << 2;

    public const uint RegisterBuffers = 0;
    public const uint UnregisterBuffers = 1;
    public const uint RegisterFiles = 2;
    public const uint UnregisterFiles = 3;

    public const byte EntryFixedFile = 1 << 0;
    public const uint SyncDataOnly = 1;

    public const byte OperationSync = 3;
    public const byte OperationReadFixed = 4;
    public const byte OperationWriteFixed = 5;
    public const byte OperationPollAdd = 6;
    public const byte OperationAllocate = 17;
    public const byte OperationRead = 22;
    public const byte OperationWrite = 23;

    /// <summary>IORING_OP_URING_CMD of Linux 5.19: offset = command, its argument from <see cref="CommandOffset"/> on.</summary>
    public const byte OperationCommand = 46;

    /// <summary>Offset of the argument of a command in an entry, bytes.</summary>
    public const int CommandOffset = 48;

    /// <summary>IORING_OP_FUTEX_WAIT of Linux 6.7: offset = expected value, descriptor = FUTEX2 flags.</summary>
    public const byte OperationFutexWait = 51;

    public const long MapRings = 0;
    public const long MapEntries = 0x10000000;

    public static int Setup(uint entries, Parameters* parameters) =>
        (int)LibC.SystemCall(KernelConstants.SyscallIoUringSetup, (nint)entries, (nint)parameters, 0, 0, 0, 0);

    public static int Enter(int ring, uint submit, uint complete, uint flags, void* argument, nuint argumentBytes) =>
        (int)LibC.SystemCall(KernelConstants.SyscallIoUringEnter, ring, (nint)submit, (nint)complete, (nint)flags, (nint)argument, (nint)argumentBytes);

    public static int Register(int ring, uint operation, void* argument, uint count) =>
        (int)LibC.SystemCall(KernelConstants.SyscallIoUringRegister, ring, (nint)operation, (nint)argument, (nint)count, 0, 0);

    /// <summary>struct io_uring_sqe, 64 bytes, with the members that are used.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct SubmissionEntry
    {
        [FieldOffset(0)] public byte Operation;
        [FieldOffset(1)] public byte Flags;
        [FieldOffset(4)] public int Descriptor;
        [FieldOffset(8)] public ulong Offset;
        [FieldOffset(16)] public ulong Address;
        [FieldOffset(24)] public uint Length;
        [FieldOffset(28)] public uint OperationFlags;
        [FieldOffset(32)] public ulong UserData;
        [FieldOffset(40)] public ushort BufferIndex;
        [FieldOffset(48)] public ulong FutexMask;
    }

    /// <summary>struct io_uring_cqe, 16 bytes.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct CompletionEntry
    {
        public ulong UserData;
        public int Result;
        public uint Flags;
    }

    /// <summary>struct io_uring_params, 120 bytes.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 120)]
    public struct Parameters
    {
        [FieldOffset(0)] public uint SubmissionCount;
        [FieldOffset(4)] public uint CompletionCount;
        [FieldOffset(8)] public uint Flags;
        [FieldOffset(20)] public uint Features;
        [FieldOffset(40)] public SubmissionOffsets Submission;
        [FieldOffset(80)] public CompletionOffsets Completion;
    }

    /// <summary>struct io_sqring_offsets, 40 bytes.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 40)]
    public struct SubmissionOffsets
    {
        public uint Head;
        public uint Tail;
        public uint RingMask;
        public uint RingEntries;
        public uint Flags;
        public uint Dropped;
        public uint Array;
    }

    /// <summary>struct io_cqring_offsets, 40 bytes.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 40)]
    public struct CompletionOffsets
    {
        public uint Head;
        public uint Tail;
        public uint RingMask;
        public uint RingEntries;
        public uint Overflow;
        public uint Entries;
    }

    /// <summary>struct io_uring_getevents_arg, 24 bytes.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct WaitArgument
    {
        public ulong SignalMask;
        public uint SignalMaskBytes;
        public uint Padding;
        public ulong Timeout;
    }
}
