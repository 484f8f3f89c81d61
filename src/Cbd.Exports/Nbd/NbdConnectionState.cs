using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>
/// A connection between two requests: what a process has to know to go on with it. All requests that were begun are answered, so the client holds
/// nothing that others could want. Immutable.
/// </summary>
internal sealed record NbdConnectionState
{
    /// <summary>Numbers of clients are far below it.</summary>
    internal const long MaxClient = 1L << 48;

    private const int MaxBlockBytes = 1 << 30;
    private const NbdClientFlags KnownClientFlags = NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes;

    internal required string Device { get; init; }

    /// <summary>Number of the client in its export.</summary>
    internal long Client { get; init; }

    /// <summary>The kernel's number of the socket; 0 if it told none.</summary>
    internal ulong SocketCookie { get; init; }

    internal NbdSession Session { get; init; }

    /// <summary>What the client was told of the device.</summary>
    internal NbdExportInfo Told { get; init; }

    internal NbdClientFlags ClientFlags { get; init; }

    /// <summary>The device's when its last request had ended (<see cref="BlockDeviceInfo.DurabilityId"/>).</summary>
    internal Guid DurabilityId { get; init; }

    /// <summary>What was received and not begun.</summary>
    internal ReadOnlyMemory<byte> Input { get; init; }

    /// <summary>Stores it into memory that outlives this process.</summary>
    /// <exception cref="CbdException">There is no memory, or no descriptor.</exception>
    internal SealedMemory Store()
    {
        int length = NbdStateLayout.TotalBytes(Input.Length);
        var memory = SealedMemory.Create("cbd-nbdstate", length);
        Encode(memory.Buffer.GetSpan(0, length));
        return memory;
    }

    /// <param name="bytes">Zeroes; as many as the state has.</param>
    internal void Encode(Span<byte> bytes)
    {
        byte[] name = Encoding.ASCII.GetBytes(Device);
        var header = new NbdStateHeader
        {
            Magic = NbdStateLayout.Magic,
            Version = NbdStateLayout.Version,
            Session = (Session.StructuredReplies ? NbdStateSession.StructuredReplies : 0) |
                (Session.ExtendedHeaders ? NbdStateSession.ExtendedHeaders : 0) | (Session.HasAllocation ? NbdStateSession.Allocation : 0),
            SocketCookie = SocketCookie,
            Client = (ulong)Client,
            SizeBytes = Told.SizeBytes,
            MinBlockBytes = Told.MinBlockBytes,
            PreferredBlockBytes = Told.PreferredBlockBytes,
            MaxBlockBytes = Told.MaxBlockBytes,
            TransmissionFlags = (ushort)Told.Flags,
            ClientFlags = (ushort)ClientFlags,
            InputBytes = (uint)Input.Length,
            InputChecksum = Crc32C.Compute(Input.Span),
            DeviceNameBytes = (ushort)name.Length,
            DurabilityId = DurabilityId,
        };
        name.CopyTo((Span<byte>)header.DeviceName);
        MemoryMarshal.Write(bytes, in header);
        Seal(bytes);
        Input.Span.CopyTo(bytes[NbdStateLayout.HeaderBytes..]);
    }

    /// <summary>Stores the checksum of the header.</summary>
    internal static void Seal(Span<byte> bytes) =>
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[NbdStateLayout.ChecksumOffset..], Crc32C.Compute(bytes[..NbdStateLayout.ChecksumOffset]));

    /// <summary>Reads what a process before this one stored; the descriptor stays the caller's.</summary>
    /// <exception cref="CbdException">It is no state of a connection.</exception>
    internal static NbdConnectionState Load(FileDescriptor descriptor)
    {
        byte[] bytes;
        using (var memory = SealedMemory.Open(descriptor, "state of a connection", NbdStateLayout.HeaderBytes, NbdStateLayout.MaxTotalBytes))
            bytes = memory.Buffer.GetSpan(0, checked((int)memory.Buffer.SizeBytes)).ToArray();
        return Decode(bytes);
    }

    /// <exception cref="CbdException">Corrupt: it is no state of a connection, with the reason as the rest of "its state".</exception>
    internal static NbdConnectionState Decode(byte[] bytes)
    {
        if (bytes.Length < NbdStateLayout.HeaderBytes)
            throw Corrupt($"has {bytes.Length} bytes, less than its header");
        NbdStateHeader header = MemoryMarshal.Read<NbdStateHeader>(bytes);
        if (header.Magic != NbdStateLayout.Magic)
            throw Corrupt($"begins with 0x{header.Magic:x16}");
        if (header.Version != NbdStateLayout.Version)
            throw Corrupt($"has version {header.Version}, and this program reads version {NbdStateLayout.Version}");
        if (BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(NbdStateLayout.ChecksumOffset)) != Crc32C.Compute(bytes.AsSpan(0, NbdStateLayout.ChecksumOffset)))
            throw Corrupt("has a header whose checksum is wrong");
        if (FindFault(header, bytes) is { } fault)
            throw Corrupt(fault);
        ReadOnlyMemory<byte> input = bytes.AsMemory(NbdStateLayout.HeaderBytes, (int)header.InputBytes);
        if (Crc32C.Compute(input.Span) != header.InputChecksum)
            throw Corrupt("has bytes read ahead whose checksum is wrong");
        return new NbdConnectionState
        {
            Device = Encoding.ASCII.GetString(((ReadOnlySpan<byte>)header.DeviceName)[..header.DeviceNameBytes]),
            Client = (long)header.Client,
            SocketCookie = header.SocketCookie,
            Session = SessionOf(header.Session),
            Told = new NbdExportInfo(
                header.SizeBytes, (NbdTransmissionFlags)header.TransmissionFlags, header.MinBlockBytes, header.PreferredBlockBytes, header.MaxBlockBytes),
            ClientFlags = (NbdClientFlags)header.ClientFlags,
            DurabilityId = header.DurabilityId,
            Input = input,
        };
    }

    /// <summary>Why the connection cannot go on with that device, as the rest of a sentence that begins with it; null if it can.</summary>
    /// <param name="device">Name of the device.</param>
    /// <param name="now">What a client would be told of it now.</param>
    /// <param name="durabilityId">Of the device now.</param>
    internal string? FindMisfit(string device, NbdExportInfo now, Guid durabilityId)
    {
        if (Device != device)
            return $"its state is of device {Device}";
        // A flush of this client would succeed, and not cover what is lost.
        if (durabilityId != DurabilityId)
            return "what it wrote and did not flush may be lost: the device's disk began anew, or its machine did";
        if (now.SizeBytes < Told.SizeBytes)
            return $"the device has {now.SizeBytes} bytes now, and its client was told {Told.SizeBytes}";
        NbdTransmissionFlags mine = Told.Flags;
        // What is new the client does not know, and need not. That nothing can be written, or can after all, it must know.
        if ((mine & ~now.Flags) != 0 || ((mine ^ now.Flags) & NbdTransmissionFlags.ReadOnly) != 0)
            return $"the device has the flags 0x{(ushort)now.Flags:x} now ({now.Flags}), and its client was told 0x{(ushort)mine:x} ({mine})";
        if (now.MinBlockBytes > Told.MinBlockBytes || now.MaxBlockBytes < Told.MaxBlockBytes)
            return $"the device takes {now.MinBlockBytes} to {now.MaxBlockBytes} bytes at once now, and its client was told {Told.MinBlockBytes} to {Told.MaxBlockBytes}";
        return null;
    }

    private static string? FindFault(in NbdStateHeader header, ReadOnlySpan<byte> bytes)
    {
        NbdSession session = SessionOf(header.Session);
        NbdStateSession all = NbdStateSession.StructuredReplies | NbdStateSession.ExtendedHeaders | NbdStateSession.Allocation;
        if ((header.Session & ~all) != 0 || (session.HasAllocation && !session.HasChunks))
            return $"has a session 0x{(uint)header.Session:x} that cannot be negotiated";
        if (header.Client is 0 or > MaxClient)
            return $"has the client number {header.Client}";
        if (header.SizeBytes > long.MaxValue)
            return $"has the size {header.SizeBytes}";
        if (!IsBlock(header.MinBlockBytes, 1) || !IsBlock(header.PreferredBlockBytes, header.MinBlockBytes) || !IsBlock(header.MaxBlockBytes, header.PreferredBlockBytes))
            return $"has blocks of {header.MinBlockBytes}, {header.PreferredBlockBytes} and {header.MaxBlockBytes} bytes";
        if (((NbdTransmissionFlags)header.TransmissionFlags & NbdTransmissionFlags.HasFlags) == 0)
            return $"has the flags 0x{header.TransmissionFlags:x}";
        if (((NbdClientFlags)header.ClientFlags & ~KnownClientFlags) != 0)
            return $"has the handshake flags 0x{header.ClientFlags:x}";
        int longest = NbdConnection.InputBytes + (session.ExtendedHeaders ? NbdProtocol.ExtendedRequestBytes : NbdProtocol.RequestBytes);
        if (header.InputBytes > (uint)longest || NbdStateLayout.TotalBytes((int)header.InputBytes) != bytes.Length)
            return $"has {header.InputBytes} bytes read ahead, in {bytes.Length} bytes";
        if (header.DeviceNameBytes is 0 or > NbdStateLayout.MaxNameBytes)
            return $"has a name of {header.DeviceNameBytes} bytes";
        ReadOnlySpan<byte> name = header.DeviceName;
        if (name[..header.DeviceNameBytes].ContainsAnyExceptInRange((byte)'!', (byte)'~') || name[header.DeviceNameBytes..].ContainsAnyExcept((byte)0))
            return "has a name that is no device's";
        if (header.ExportNameBytes != 0)
            return $"is of an export whose name has {header.ExportNameBytes} bytes";
        bool isPadded = header.Reserved == 0 &&
            !bytes[Marshal.SizeOf<NbdStateHeader>()..NbdStateLayout.ChecksumOffset].ContainsAnyExcept((byte)0) &&
            !bytes[(NbdStateLayout.HeaderBytes + (int)header.InputBytes)..].ContainsAnyExcept((byte)0);
        return isPadded ? null : "has bytes that are not zero where nothing is";
    }

    private static bool IsBlock(uint bytes, uint least) => bytes >= least && bytes <= MaxBlockBytes && (bytes & (bytes - 1)) == 0;

    private static NbdSession SessionOf(NbdStateSession session) => new(
        session.HasFlag(NbdStateSession.StructuredReplies), session.HasFlag(NbdStateSession.ExtendedHeaders), session.HasFlag(NbdStateSession.Allocation));

    private static CbdException Corrupt(string what) => new(CbdErrorKind.Corrupt, $"its state {what}");
}
