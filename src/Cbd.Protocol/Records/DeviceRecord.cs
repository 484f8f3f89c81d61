using System.Buffers.Binary;
using Cbd.Memory;
using Cbd.Protocol.Format;

namespace Cbd.Protocol.Records;

/// <summary>
/// What of a device survives the process that serves it: claims, negotiated values, failure, and which writes no flush has covered. It
/// lies in memory that somebody else keeps over a death. A death at any store leaves what was there before, or what was to be there.
/// Thread-safe.
/// </summary>
/// <remarks>
/// <para>The body is two copies with CRC and generation: the older one is stored over, and counts when it is whole. The counts are single
/// words, each changed by one store.</para>
/// <para>The order is that of its users: a claim is in here before the first command under it, a failure before anybody is told, and a new
/// durability id only when no write of the old one is uncovered.</para>
/// </remarks>
internal sealed class DeviceRecord : IDisposable
{
    /// <summary>Of the layout. Another one is a new reader; the layout of the release before stays readable.</summary>
    public const uint Version = 2;

    /// <summary>The first that says what gives the device to its kernel. One of the version before stays what it is while it lasts.</summary>
    internal const uint FirstVersionWithKinds = 2;

    private const uint OldestVersion = 1;

    /// <summary>Versions that this program reads.</summary>
    public static IReadOnlyList<uint> ReadableVersions { get; } = [OldestVersion, Version];

    public const ulong Magic = 0x4452_4543_4456_4243;

    /// <summary>Bytes before the counts.</summary>
    public const int CountsOffset = 4096;

    /// <summary>Bytes of the counts of one queue: two lines, so that neighbours do not share one.</summary>
    public const int CountsBytes = 128;

    private const int MagicOffset = 0, VersionOffset = 8, SizeOffset = 16, CopyOffset = 1024;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("magic", MagicOffset, 8), new("version", VersionOffset, 4), new("size", SizeOffset, 8),
        new("copy_0", CopyOffset, DeviceRecordBody.SizeBytes), new("copy_1", CopyOffset + DeviceRecordBody.SizeBytes, DeviceRecordBody.SizeBytes),
        new("counts", CountsOffset, CountsBytes),
    ];

    /// <summary>Of the counts of one queue.</summary>
    public static IReadOnlyList<FieldLayout> CountsLayout { get; } =
    [
        new("acknowledged", 0, 8), new("generation", 8, 8), new("covered", 16, 8),
    ];

    private readonly Lock _lock = new();
    private readonly NativeBuffer _memory;
    private readonly uint _version;
    private DeviceRecordBody _body;
    private ulong _generation;
    private int _nextCopy;
    private bool _isDisposed;

    private DeviceRecord(NativeBuffer memory, DeviceRecordBody body, uint version = Version)
    {
        ObjectDisposedException.ThrowIf(!memory.TryAddReference(), memory);
        _memory = memory;
        _version = version;
        _body = body;
        Counts = new BufferWords(memory, CountsOffset, body.Queues * (CountsBytes / sizeof(long)));
    }

    /// <summary>What is stored.</summary>
    public DeviceRecordBody Body
    {
        get
        {
            lock (_lock)
                return _body;
        }
    }

    /// <summary>The counts of all queues, 16 words each; see <see cref="CountsLayout"/>.</summary>
    public BufferWords Counts { get; }

    /// <summary>Called after each change of the body, for the simulator: a place where a process may die.</summary>
    internal Action? Stored { get; set; }

    /// <summary>How much memory the record of a device needs, bytes: whole pages.</summary>
    public static long SizeFor(int queues) =>
        (CountsOffset + (long)queues * CountsBytes + NativeBuffer.AlignmentBytes - 1) / NativeBuffer.AlignmentBytes * NativeBuffer.AlignmentBytes;

    /// <summary>Makes the record of a new device.</summary>
    /// <param name="memory">Zeroes, of at least <see cref="SizeFor"/> bytes. The record holds a reference to it.</param>
    /// <param name="body">What is known so far.</param>
    public static DeviceRecord Create(NativeBuffer memory, DeviceRecordBody body)
    {
        if (body.FindError() is { Length: > 0 } error)
            throw new CbdException(CbdErrorKind.Invalid, $"record of device '{body.Name}': {error}");
        if (memory.SizeBytes < SizeFor(body.Queues))
            throw new ArgumentOutOfRangeException(nameof(memory), $"{memory.SizeBytes} bytes are fewer than {SizeFor(body.Queues)}");
        var record = new DeviceRecord(memory, body);
        record.Store(body);
        Span<byte> head = memory.GetSpan(0, CopyOffset);
        BinaryPrimitives.WriteUInt32LittleEndian(head[VersionOffset..], Version);
        BinaryPrimitives.WriteInt64LittleEndian(head[SizeOffset..], memory.SizeBytes);
        // Last: without it nothing was begun.
        Volatile.Write(ref new BufferWords(memory, MagicOffset, 1)[0], unchecked((long)Magic));
        return record;
    }

    /// <summary>Nothing was stored there: the process died before it had begun with the device.</summary>
    public static bool IsEmpty(NativeBuffer memory) =>
        memory.SizeBytes >= CountsOffset && BinaryPrimitives.ReadUInt64LittleEndian(memory.GetSpan(MagicOffset, 8)) == 0;

    /// <summary>
    /// Reads a record that another process left. Every field is checked; a record that cannot be fails its device alone.
    /// </summary>
    /// <param name="memory">As it was kept. The record holds a reference to it.</param>
    /// <exception cref="CbdException">Corrupt: with the field and its value.</exception>
    public static DeviceRecord Open(NativeBuffer memory)
    {
        if (memory.SizeBytes < CountsOffset)
            throw Damaged($"it has {memory.SizeBytes} bytes, fewer than {CountsOffset}");
        Span<byte> head = memory.GetSpan(0, CopyOffset);
        ulong magic = BinaryPrimitives.ReadUInt64LittleEndian(head);
        if (magic != Magic)
            throw Damaged($"magic is 0x{magic:x16}");
        uint version = BinaryPrimitives.ReadUInt32LittleEndian(head[VersionOffset..]);
        if (version is < OldestVersion or > Version)
            throw Damaged($"version is {version}, and this program knows {OldestVersion} to {Version}");
        long size = BinaryPrimitives.ReadInt64LittleEndian(head[SizeOffset..]);
        if (size != memory.SizeBytes)
            throw Damaged($"size is {size}, of {memory.SizeBytes} bytes");
        DeviceRecordBody? newest = null;
        string? error = null;
        ulong generation = 0;
        int copy = 0;
        Span<byte> bytes = stackalloc byte[DeviceRecordBody.SizeBytes];
        for (int i = 0; i < 2; i++)
        {
            // What is checked is this private copy, and that is what is used.
            memory.GetSpan(CopyOffset + i * DeviceRecordBody.SizeBytes, DeviceRecordBody.SizeBytes).CopyTo(bytes);
            ulong found = BinaryPrimitives.ReadUInt64LittleEndian(bytes[DeviceRecordBody.GenerationOffset..]);
            if (found <= generation || BinaryPrimitives.ReadUInt32LittleEndian(bytes) != CrcOf(bytes, version))
                continue;
            // The newest whole copy is the record. An older one is none.
            (generation, copy) = (found, i);
            newest = DeviceRecordBody.TryDecode(bytes, version, out DeviceRecordBody read, out string wrong) ? read : null;
            error = wrong;
        }

        if (newest is null)
            throw Damaged(error ?? "neither copy is whole");
        if (memory.SizeBytes < SizeFor(newest.Queues))
            throw Damaged($"queues is {newest.Queues}, more than {memory.SizeBytes} bytes have room for");
        var record = new DeviceRecord(memory, newest, version) { _generation = generation, _nextCopy = copy ^ 1 };
        try
        {
            record.CheckCounts();
        }
        catch
        {
            record.Dispose();
            throw;
        }

        return record;
    }

    /// <summary>Changes the body. The change is whole, or not there.</summary>
    public void Change(Func<DeviceRecordBody, DeviceRecordBody> change)
    {
        lock (_lock)
        {
            DeviceRecordBody next = change(_body);
            if (next == _body)
                return;
            if (next.FindError() is { Length: > 0 } error)
                throw new InvalidOperationException($"record of device '{next.Name}': {error}");
            if (next.Queues != _body.Queues || next.Life != _body.Life)
                throw new InvalidOperationException($"record of device '{next.Name}': its queues and its life stay");
            Store(next);
        }

        Stored?.Invoke();
    }

    /// <summary>The device has failed for good. The first reason stays.</summary>
    public void StoreFailure(string reason) =>
        Change(body => body.Failure.Length > 0 ? body : body with { Failure = DeviceRecordBody.ToFailure(reason) });

    /// <summary>Lets go of the memory. What is stored stays.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_isDisposed)
                return;
            _isDisposed = true;
        }

        _memory.ReleaseReference();
    }

    private void Store(DeviceRecordBody body)
    {
        Span<byte> bytes = stackalloc byte[DeviceRecordBody.SizeBytes];
        body.Encode(bytes, _version);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[DeviceRecordBody.GenerationOffset..], checked(_generation + 1));
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, CrcOf(bytes, _version));
        // Counts and the other copy, stored before, must be there before this one stops being whole; and this one before what is stored next.
        Interlocked.MemoryBarrier();
        bytes.CopyTo(_memory.GetSpan(CopyOffset + _nextCopy * DeviceRecordBody.SizeBytes, DeviceRecordBody.SizeBytes));
        Interlocked.MemoryBarrier();
        _generation++;
        _nextCopy ^= 1;
        _body = body;
    }

    private void CheckCounts()
    {
        for (int queue = 0; queue < _body.Queues; queue++)
        {
            int first = queue * (CountsBytes / sizeof(long));
            (long acknowledged, long generation, long covered) = (Counts[first], Counts[first + 1], Counts[first + 2]);
            if (acknowledged is < 0 or > long.MaxValue / 2 || covered < 0 || covered > acknowledged || generation is < 0 or > int.MaxValue)
                throw Damaged($"counts of queue {queue} are {acknowledged} acknowledged, {covered} covered, generation {generation}");
        }
    }

    private static uint CrcOf(ReadOnlySpan<byte> copy, uint version) => ~Crc32C.Append(Crc32C.Append(uint.MaxValue, version), copy[sizeof(uint)..DeviceRecordBody.SizeBytes]);

    private static CbdException Damaged(string what) =>
        new(CbdErrorKind.Corrupt, $"the record of a device is damaged: {what}: the device has failed; dev-stop, check the data, dev-start");
}
