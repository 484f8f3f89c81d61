using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// Numbers of the interface of Linux and its C library, for x86-64 and arm64. A test compiles every one of them as a
/// static assertion against the installed headers, and fails on one that is not in its list.
/// </summary>
internal static class KernelConstants
{
    // Files.
    internal const int AtFdCwd = -100;
    internal const int AtEmptyPath = 0x1000;
    internal const int AtSymlinkNoFollow = 0x100;
    internal const int AtStatxDontSync = 0x4000;
    internal const ulong ResolveNoMagicLinks = 2;
    internal const ulong ResolveNoSymlinks = 4;
    internal const uint StatxBasicStats = 0x7ff;
    internal const uint StatxBirthTime = 0x800;
    internal const uint StatxDirectAlignment = 0x2000;
    internal const uint StatxSubvolume = 0x8000;
    internal const ulong StatxAttributeDax = 0x00200000;
    internal const int FcntlGetDescriptorFlags = 1;
    internal const int FcntlSetDescriptorFlags = 2;
    internal const int DescriptorCloseOnExec = 1;
    internal const int FcntlGetFlags = 3;
    internal const int FcntlSetFlags = 4;
    internal const int FcntlDuplicateCloseOnExec = 1030;
    internal const int FcntlAddSeals = 1033;
    internal const int SealSeals = 1;
    internal const int SealShrink = 2;
    internal const int SealGrow = 4;
    internal const int SealWrite = 8;
    internal const uint MemoryFileCloseOnExec = 1;
    internal const uint MemoryFileAllowSealing = 2;
    internal const uint MemoryFileExecutable = 16;
    internal const int FcntlGetSeals = 1034;
    internal const int FcntlOfdGetLock = 36;
    internal const int FcntlOfdSetLock = 37;
    internal const short LockRead = 0;
    internal const short LockWrite = 1;
    internal const short LockNone = 2;
    internal const int FlockExclusive = 2;
    internal const int FlockNonBlocking = 4;
    internal const int FlockUnlock = 8;
    internal const int SeekEnd = 2;
    internal const int SeekData = 3;
    internal const int SeekHole = 4;
    internal const int WriteDataSync = 2;
    internal const int FileAdviseWillNeed = 3;
    internal const nuint IoctlBlockReadOnly = 0x125e;
    internal const nuint IoctlLogicalBlock = 0x1268;
    internal const nuint IoctlPhysicalBlock = 0x127b;
    internal const nuint IoctlDiscard = 0x1277;
    internal const nuint IoctlZeroOut = 0x127f;
    internal const nuint IoctlSizeBytes = 0x80081272;
    internal const nuint IoctlDiskSequence = 0x80081280;
    internal const nuint IoctlGeneration = 0x80087601;
    internal const nuint IoctlFileSystemUuid = 0x80111500;
    internal const nuint IoctlExt4Uuid = 0x8008662c;
    internal const nuint IoctlBtrfsInfo = 0x8400941f;
    internal const nuint IoctlBtrfsLookUp = 0xd0009412;
    internal const ulong BtrfsFirstFreeObject = 256;

    // Mounts.
    internal const int FsOpenCloseOnExec = 1;
    internal const int FsConfigSetString = 1;
    internal const int FsConfigCreate = 6;
    internal const int FsMountCloseOnExec = 1;

    // Loop devices.
    internal const nuint IoctlLoopConfigure = 0x4c0a;
    internal const nuint IoctlLoopClear = 0x4c01;
    internal const nuint IoctlLoopSetCapacity = 0x4c07;
    internal const nuint IoctlLoopGetFree = 0x4c82;
    internal const nuint IoctlLoopGetStatus = 0x4c05;
    internal const uint LoopReadOnly = 1;
    internal const uint LoopPartitions = 8;
    internal const uint LoopDirectIo = 16;

    // File systems, by statfs.
    internal const long TmpFsMagic = 0x01021994;
    internal const long RamFsMagic = 0x858458f6;
    internal const long HugeTlbFsMagic = 0x958458f6;
    internal const long ProcFsMagic = 0x9fa0;
    internal const long SysFsMagic = 0x62656572;

    // Memory.
    internal const int ProtectionRead = 1;
    internal const int ProtectionWrite = 2;
    internal const int MapShared = 1;
    internal const int MapPrivate = 2;
    internal const int MapSharedValidate = 3;
    internal const int MapAnonymous = 0x20;
    internal const int MapNoReserve = 0x4000;
    internal const int MapPopulate = 0x8000;
    internal const int MapSync = 0x80000;
    internal const int MemoryAdviseDontNeed = 4;
    internal const int MemoryAdviseNoHugePage = 15;
    internal const int MemoryAdvisePopulateWrite = 23;
    internal const int MemoryAdviseDontNeedLocked = 24;
    internal const int LockCurrent = 1;
    internal const int LockFuture = 2;
    internal const int LockOnFault = 4;

    // Waiting.
    internal const int FutexWakeShared = 1;
    internal const uint Futex2Size32 = 2;
    internal const int FutexWaitvMaximum = 128;
    internal const int EventFdCloseOnExec = 0x80000;
    internal const int EventFdNonBlocking = 0x800;
    internal const int EpollCloseOnExec = 0x80000;
    internal const int EpollAdd = 1;
    internal const int EpollDelete = 2;
    internal const int EpollModify = 3;
    internal const short PollIn = 1;
    internal const short PollOut = 4;
    internal const short PollError = 8;
    internal const short PollHangUp = 16;
    internal const int ClockMonotonic = 1;
    internal const int ClockBootTime = 7;

    // Sockets.
    internal const int FamilyUnix = 1;
    internal const int FamilyInet = 2;
    internal const int FamilyInet6 = 10;
    internal const int FamilyNetlink = 16;
    internal const int NetlinkGeneric = 16;
    internal const int LevelNetlink = 270;
    internal const int NetlinkShortAcknowledge = 10;
    internal const int NetlinkExtendedAcknowledge = 11;
    internal const int SocketRaw = 3;
    internal const int SocketStream = 1;
    internal const int SocketDatagram = 2;
    internal const int SocketNonBlocking = 0x800;
    internal const int SocketCloseOnExec = 0x80000;
    internal const int LevelSocket = 1;
    internal const int ReuseAddress = 2;
    internal const int SocketTypeOption = 3;
    internal const int KeepAlive = 9;
    internal const int PassCredentials = 16;
    internal const int AcceptsConnections = 30;
    internal const int LevelTcp = 6;
    internal const int TcpNoDelay = 1;
    internal const int TcpKeepIdle = 4;
    internal const int TcpKeepInterval = 5;
    internal const int TcpKeepCount = 6;
    internal const int LevelIpv6 = 41;
    internal const int Ipv6Only = 26;
    internal const int ControlRights = 1;
    internal const int ControlCredentials = 2;
    internal const nuint IoctlSocketFile = 0x89e0;
    internal const int MessagePeek = 2;
    internal const int MessageControlTruncated = 8;
    internal const int MessageTruncated = 0x20;
    internal const int MessageDontWait = 0x40;
    internal const int MessageCloseOnExec = 0x40000000;
    internal const int MessageNoSignal = 0x4000;
    internal const int ShutdownSend = 1;
    internal const int ShutdownBoth = 2;

    // Processes and threads.
    internal const int PrctlSetName = 15;
    internal const int PrctlSetTimerSlack = 29;
    internal const int PrctlSetIoFlusher = 57;
    internal const int PrctlGetIoFlusher = 58;
    internal const int LimitAddressSpace = 9;
    internal const int LimitOpenFiles = 7;
    internal const int LimitLockedMemory = 8;
    internal const int SignalHangUp = 1;
    internal const int SignalInterrupt = 2;
    internal const int SignalQuit = 3;
    internal const int SignalKill = 9;
    internal const int SignalTerminate = 15;
    internal const int SignalUser1 = 10;

    // Calls that go through syscall(2).
    internal const nint SyscallPidfdSendSignal = 424;
    internal const nint SyscallIoUringSetup = 425;
    internal const nint SyscallIoUringEnter = 426;
    internal const nint SyscallIoUringRegister = 427;
    internal const nint SyscallFsOpen = 430;
    internal const nint SyscallFsConfig = 431;
    internal const nint SyscallFsMount = 432;
    internal const nint SyscallPidfdOpen = 434;
    internal const nint SyscallOpenAt2 = 437;
    internal const nint SyscallFutexWaitV = 449;

    /// <summary><c>futex</c> is older than the numbering that all architectures share.</summary>
    internal static nint SyscallFutex => SyscallFutexOn(RuntimeInformation.ProcessArchitecture);

    /// <summary>Bytes of <c>struct epoll_event</c>: packed on x86-64 alone, for the sake of 32-bit programs there.</summary>
    internal static int EpollEventBytes => EpollEventBytesOn(RuntimeInformation.ProcessArchitecture);

    /// <summary>These are older, too.</summary>
    internal static nint SyscallUnlinkAt => SyscallUnlinkAtOn(RuntimeInformation.ProcessArchitecture);
    internal static nint SyscallBind => SyscallBindOn(RuntimeInformation.ProcessArchitecture);
    internal static nint SyscallConnect => SyscallConnectOn(RuntimeInformation.ProcessArchitecture);
    internal static nint SyscallChangeModeAt => SyscallChangeModeAtOn(RuntimeInformation.ProcessArchitecture);

    internal static nint SyscallUnlinkAtOn(Architecture architecture) => architecture == Architecture.X64 ? 263 : 35;

    internal static nint SyscallBindOn(Architecture architecture) => architecture == Architecture.X64 ? 49 : 200;

    internal static nint SyscallConnectOn(Architecture architecture) => architecture == Architecture.X64 ? 42 : 203;

    internal static nint SyscallChangeModeAtOn(Architecture architecture) => architecture == Architecture.X64 ? 268 : 53;

    internal static nint SyscallFutexOn(Architecture architecture) => architecture == Architecture.X64 ? 202 : 98;

    internal static int EpollEventBytesOn(Architecture architecture) => architecture == Architecture.X64 ? 12 : 16;
}
