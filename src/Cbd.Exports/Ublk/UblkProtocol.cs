using System.Runtime.CompilerServices;

namespace Cbd.Exports.Ublk;

/// <summary>
/// The numbers of ublk (linux/ublk_cmd.h, Documentation/block/ublk.rst). Commands are in the encoding of ioctls, which
/// Linux 6.4 brought; a test compares them with the installed header as far as that knows them.
/// </summary>
internal static class UblkProtocol
{
    internal const string ControlNode = "/dev/ublk-control";
    internal const string Module = "ublk_drv";

    /// <summary>Where the kernel lists its devices' server sides, as ublkcN.</summary>
    internal const string DevicesDirectory = "/sys/class/ublk-char";

    /// <summary>A command that creates a device leaves its number to the kernel.</summary>
    internal const uint AnyDevice = uint.MaxValue;

    /// <summary>What a command names that is for the whole device.</summary>
    internal const ushort NoQueue = ushort.MaxValue;

    // Commands for /dev/ublk-control.
    internal const uint GetDeviceInfo = (Read << 30) | (ControlBytes << 16) | Magic | 0x02;
    internal const uint AddDevice = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x04;
    internal const uint DeleteDevice = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x05;
    internal const uint StartDevice = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x06;
    internal const uint StopDevice = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x07;
    internal const uint SetParameters = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x08;

    /// <summary>Of a device whose server is gone for sure: EBUSY before. Another server may serve its queues then.</summary>
    internal const uint StartUserRecovery = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x10;

    /// <summary>Waits until all queues have asked for all their requests; then the device goes on.</summary>
    internal const uint EndUserRecovery = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x11;

    /// <summary>Linux 6.5.</summary>
    internal const uint GetFeatures = (Read << 30) | (ControlBytes << 16) | Magic | 0x13;

    /// <summary>Does not wait for those who still hold the device. Linux 6.9.</summary>
    internal const uint DeleteDeviceLater = (Read << 30) | (ControlBytes << 16) | Magic | 0x14;

    /// <summary>Linux 6.16.</summary>
    internal const uint UpdateSize = (ReadWrite << 30) | (ControlBytes << 16) | Magic | 0x15;

    // Commands for /dev/ublkcN.
    internal const uint FetchRequest = (ReadWrite << 30) | (IoCommandBytes << 16) | Magic | 0x20;
    internal const uint CommitAndFetchRequest = (ReadWrite << 30) | (IoCommandBytes << 16) | Magic | 0x21;

    /// <summary>Result of a fetch: there is a request.</summary>
    internal const int ResultOk = 0;

    /// <summary>Result of a fetch: the device ends, there are no more requests.</summary>
    internal const int ResultAbort = -Memory.Errno.ENODEV;

    internal const int MaxQueueDepth = 4096;

    // Features.
    internal const ulong FeatureUserRecovery = 1 << 3;
    internal const ulong FeatureUserRecoveryReissue = 1 << 4;
    internal const ulong FeatureIoctlEncoding = 1 << 6;
    internal const ulong FeatureUpdateSize = 1 << 10;

    // States of a device.
    internal const ushort StateDead = 0;
    internal const ushort StateLive = 1;
    internal const ushort StateQuiesced = 2;
    internal const ushort StateFailIo = 3;

    // Operations, the low byte of a descriptor's first word, and flags, its other bits.
    internal const uint OperationMask = 0xff;
    internal const uint OperationRead = 0;
    internal const uint OperationWrite = 1;
    internal const uint OperationFlush = 2;
    internal const uint OperationDiscard = 3;
    internal const uint OperationWriteZeroes = 5;
    internal const uint FlagForceUnitAccess = 1 << 13;
    internal const uint FlagNoUnmap = 1 << 15;

    // Kinds of parameters, and attributes among the basic ones.
    internal const uint ParametersBasic = 1 << 0;
    internal const uint ParametersDiscard = 1 << 1;
    internal const uint AttributeReadOnly = 1 << 0;
    internal const uint AttributeVolatileCache = 1 << 2;
    internal const uint AttributeForceUnitAccess = 1 << 3;

    /// <summary>Sizes and offsets of requests are in sectors of this many bytes, whatever the logical block is.</summary>
    internal const int SectorBytes = 512;
    internal const int SectorShift = 9;

    private const uint Read = 2;
    private const uint ReadWrite = 3;
    private const uint Magic = 'u' << 8;
    private const uint ControlBytes = 32;
    private const uint IoCommandBytes = 16;

    /// <summary>Where the descriptors of a queue lie in /dev/ublkcN: every queue has whole pages for the deepest one.</summary>
    internal static long DescriptorsOffset(int queue, int pageBytes) =>
        queue * (long)WholePages(MaxQueueDepth * Unsafe.SizeOf<UblkIoDescriptor>(), pageBytes);

    /// <summary>Bytes of the descriptors of a queue, whole pages.</summary>
    internal static int DescriptorsBytes(int depth, int pageBytes) =>
        WholePages(depth * Unsafe.SizeOf<UblkIoDescriptor>(), pageBytes);

    private static int WholePages(int bytes, int pageBytes) => (bytes + pageBytes - 1) / pageBytes * pageBytes;
}
