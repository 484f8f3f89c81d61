using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using static Cbd.Memory.Fuse.FuseProtocol;

namespace Cbd.Exports.Fuse;

/// <summary>What becomes of a request of the kernel.</summary>
internal enum FuseTask : byte
{
    /// <summary>It is refused with <see cref="FuseRequest.Errno"/>.</summary>
    Refuse,

    /// <summary>Nothing is done, and nobody waits for an answer.</summary>
    Ignore,

    /// <summary>Confirmed as <see cref="Confirm"/>: who had the file open has closed it.</summary>
    Close,

    /// <summary>Nothing is done, and that is the answer.</summary>
    Confirm,

    /// <summary>The device does it.</summary>
    Device,
    Init,
    Lookup,
    GetAttributes,
    Open,
    OpenDirectory,
    StatFs,

    /// <summary>A read that begins at the end of the file or behind it: no bytes.</summary>
    ReadNothing,
}

/// <summary>
/// One request of the kernel, checked: the one gate that everything from <c>/dev/fuse</c> passes. The file system has
/// two nodes, its root and one file as large as the device.
/// </summary>
internal readonly struct FuseRequest
{
    /// <summary>The file; the root is node 1.</summary>
    internal const ulong FileNode = 2;

    /// <summary>What every message begins with, bytes.</summary>
    internal static readonly int HeaderBytes = Marshal.SizeOf<RequestHeader>();

    /// <summary>The payload of a write lies so far behind its beginning, bytes.</summary>
    internal static readonly int WritePayloadOffset = HeaderBytes + Marshal.SizeOf<WriteRequest>();

    /// <summary>The part of struct fuse_init_in that every kernel sends, bytes.</summary>
    private const int ShortestInitBytes = 16;

    private const uint FileDataSync = 0x1000;

    internal FuseTask Task { get; private init; }

    internal ulong Unique { get; private init; }

    internal ulong Node { get; private init; }

    /// <summary>Positive errno of <see cref="FuseTask.Refuse"/>.</summary>
    internal int Errno { get; private init; }

    /// <summary>What the device is to do. A range is inside the device and whole blocks.</summary>
    internal BlockOperation Operation { get; private init; }

    internal BlockFlags Flags { get; private init; }

    internal long Offset { get; private init; }

    /// <summary>Bytes; 0 for a flush.</summary>
    internal long Length { get; private init; }

    internal InitRequest Init { get; private init; }

    /// <inheritdoc cref="TryParse(ReadOnlySpan{byte}, int, BlockDeviceInfo, int, ReadOnlySpan{byte}, out FuseRequest)"/>
    internal static bool TryParse(
        ReadOnlySpan<byte> message, BlockDeviceInfo device, int maxTransferBytes, ReadOnlySpan<byte> fileName, out FuseRequest request) =>
        TryParse(message, message.Length, device, maxTransferBytes, fileName, out request);

    /// <summary>
    /// Reads a message of the kernel. False if it is none: what follows it on the channel cannot be trusted either.
    /// </summary>
    /// <param name="message">All of it; of a write, at least what precedes the payload.</param>
    /// <param name="messageBytes">Bytes of the whole message.</param>
    /// <param name="device">What ranges must be inside of.</param>
    /// <param name="maxTransferBytes">Longest payload that was agreed upon.</param>
    /// <param name="fileName">Name of the file in the root, UTF-8.</param>
    /// <param name="request">The request, checked.</param>
    internal static bool TryParse(
        ReadOnlySpan<byte> message, int messageBytes, BlockDeviceInfo device, int maxTransferBytes, ReadOnlySpan<byte> fileName, out FuseRequest request)
    {
        request = default;
        if (message.Length < HeaderBytes)
            return false;
        RequestHeader header = MemoryMarshal.Read<RequestHeader>(message);
        if (header.Length != (uint)messageBytes)
            return false;
        ReadOnlySpan<byte> body = message[HeaderBytes..];
        request = header.Operation switch
        {
            FuseOperation.Read => Read(header, body, device, maxTransferBytes),
            FuseOperation.Write => Write(header, body, messageBytes - WritePayloadOffset, device, maxTransferBytes),
            FuseOperation.Synchronize => Synchronize(header, body),
            FuseOperation.Allocate => Allocate(header, body, device),
            FuseOperation.Init => ReadInit(header, body),
            FuseOperation.Lookup => Lookup(header, body, fileName),
            FuseOperation.GetAttributes => OnNode(header, FuseTask.GetAttributes),
            FuseOperation.Open => header.Node == FileNode ? New(header, FuseTask.Open) : Refused(header, Memory.Errno.EISDIR),
            FuseOperation.OpenDirectory => header.Node == RootNode ? New(header, FuseTask.OpenDirectory) : Refused(header, Memory.Errno.ENOTDIR),
            FuseOperation.ReadDirectory => New(header, FuseTask.Confirm),
            FuseOperation.StatFs => New(header, FuseTask.StatFs),
            FuseOperation.Release => New(header, FuseTask.Close),
            FuseOperation.ReleaseDirectory or FuseOperation.Destroy => New(header, FuseTask.Confirm),
            FuseOperation.Forget or FuseOperation.BatchForget or FuseOperation.Interrupt => New(header, FuseTask.Ignore),
            FuseOperation.SetAttributes => Refused(header, Memory.Errno.EPERM),
            // What is not there is not asked for again.
            _ => Refused(header, Memory.Errno.ENOSYS),
        };
        return true;
    }

    private static FuseRequest Read(in RequestHeader header, ReadOnlySpan<byte> body, BlockDeviceInfo device, int maxTransferBytes)
    {
        if (header.Node != FileNode || !MemoryMarshal.TryRead(body, out ReadRequest read) || read.Size == 0 || read.Size > (uint)maxTransferBytes)
            return Refused(header, Memory.Errno.EINVAL);
        if (read.Offset >= (ulong)device.SizeBytes)
            return New(header, FuseTask.ReadNothing);
        // As of any file: what lies behind the end is not read.
        ulong length = Math.Min(read.Size, (ulong)device.SizeBytes - read.Offset);
        return OnDevice(header, BlockOperation.Read, BlockFlags.None, read.Offset, length, device);
    }

    private static FuseRequest Write(in RequestHeader header, ReadOnlySpan<byte> body, int payloadBytes, BlockDeviceInfo device, int maxTransferBytes)
    {
        if (header.Node != FileNode || !MemoryMarshal.TryRead(body, out WriteRequest write) || write.Size == 0 ||
            write.Size > (uint)maxTransferBytes || write.Size != (uint)payloadBytes)
            return Refused(header, Memory.Errno.EINVAL);
        BlockFlags flags = (write.FileFlags & FileDataSync) != 0 ? BlockFlags.ForceUnitAccess : BlockFlags.None;
        return OnDevice(header, BlockOperation.Write, flags, write.Offset, write.Size, device);
    }

    private static FuseRequest Synchronize(in RequestHeader header, ReadOnlySpan<byte> body)
    {
        if (body.Length < Marshal.SizeOf<SynchronizeRequest>())
            return Refused(header, Memory.Errno.EINVAL);
        return header.Node == FileNode
            ? new FuseRequest { Task = FuseTask.Device, Unique = header.Unique, Node = header.Node, Operation = BlockOperation.Flush }
            : New(header, FuseTask.Confirm);
    }

    /// <summary>
    /// fallocate(2). A loop device asks for holes both to discard and to write zeroes, so a hole reads as zeroes. Where
    /// that means writing them, it is refused: the kernel writes the zeroes that it needs, and discards nothing. To
    /// reserve space is confirmed, and nothing is done.
    /// </summary>
    private static FuseRequest Allocate(in RequestHeader header, ReadOnlySpan<byte> body, BlockDeviceInfo device)
    {
        if (header.Node != FileNode || !MemoryMarshal.TryRead(body, out AllocateRequest allocate))
            return Refused(header, Memory.Errno.EINVAL);
        if (allocate.Mode == (uint)AllocateMode.Reserve)
        {
            FuseRequest range = OnDevice(header, BlockOperation.Read, BlockFlags.None, allocate.Offset, allocate.Length, device);
            return range.Task == FuseTask.Device ? New(header, FuseTask.Confirm) : range;
        }

        if (!device.CanZeroFast && !device.ReadOnly)
            return Refused(header, Memory.Errno.EOPNOTSUPP);
        return allocate.Mode switch
        {
            (uint)AllocateMode.PunchHole => OnDevice(header, BlockOperation.WriteZeroes, BlockFlags.None, allocate.Offset, allocate.Length, device),
            (uint)AllocateMode.ZeroRange => OnDevice(header, BlockOperation.WriteZeroes, BlockFlags.NoUnmap, allocate.Offset, allocate.Length, device),
            _ => Refused(header, Memory.Errno.EOPNOTSUPP),
        };
    }

    private static FuseRequest ReadInit(in RequestHeader header, ReadOnlySpan<byte> body)
    {
        if (body.Length < ShortestInitBytes)
            return Refused(header, Memory.Errno.EINVAL);
        Span<byte> whole = stackalloc byte[Marshal.SizeOf<InitRequest>()];
        whole.Clear();
        body[..Math.Min(body.Length, whole.Length)].CopyTo(whole);
        return new FuseRequest { Task = FuseTask.Init, Unique = header.Unique, Node = header.Node, Init = MemoryMarshal.Read<InitRequest>(whole) };
    }

    private static FuseRequest Lookup(in RequestHeader header, ReadOnlySpan<byte> body, ReadOnlySpan<byte> fileName)
    {
        int end = body.IndexOf((byte)0);
        if (end < 0)
            return Refused(header, Memory.Errno.EINVAL);
        return header.Node == RootNode && body[..end].SequenceEqual(fileName) ? New(header, FuseTask.Lookup) : Refused(header, Memory.Errno.ENOENT);
    }

    private static FuseRequest OnNode(in RequestHeader header, FuseTask task) =>
        header.Node is RootNode or FileNode ? New(header, task) : Refused(header, Memory.Errno.ENOENT);

    private static FuseRequest OnDevice(
        in RequestHeader header, BlockOperation operation, BlockFlags flags, ulong offset, ulong length, BlockDeviceInfo device)
    {
        ulong size = (ulong)device.SizeBytes;
        if (length == 0)
            return Refused(header, Memory.Errno.EINVAL);
        if (offset > size || length > size - offset)
            return Refused(header, Memory.Errno.EFBIG);
        if (((offset | length) & ((ulong)device.LogicalBlockBytes - 1)) != 0)
            return Refused(header, Memory.Errno.EINVAL);
        if (device.ReadOnly && operation != BlockOperation.Read)
            return Refused(header, Memory.Errno.EROFS);
        return new FuseRequest
        {
            Task = FuseTask.Device,
            Unique = header.Unique,
            Node = header.Node,
            Operation = operation,
            Flags = flags,
            Offset = (long)offset,
            Length = (long)length,
        };
    }

    private static FuseRequest New(in RequestHeader header, FuseTask task) =>
        new() { Task = task, Unique = header.Unique, Node = header.Node };

    private static FuseRequest Refused(in RequestHeader header, int errno) =>
        new() { Task = FuseTask.Refuse, Unique = header.Unique, Node = header.Node, Errno = errno };
}
