using System.Buffers.Binary;
using System.Reflection;
using System.Runtime.InteropServices;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>The state of a connection that is handed over: what other versions of the program read, and what is no state.</summary>
public sealed class NbdConnectionStateTests
{
    private const string Version1 =
        """
        header 152 of 4096, checksum at 4092, then input, at most 65568 in pages of 4096
        Magic 0, Version 8, Session 12, SocketCookie 16, Client 24, SizeBytes 32, MinBlockBytes 40, PreferredBlockBytes 44, MaxBlockBytes 48, TransmissionFlags 52, ClientFlags 54, InputBytes 56, InputChecksum 60, DeviceNameBytes 64, ExportNameBytes 66, Reserved 68, DeviceName 72, DurabilityId 136
        None 0, StructuredReplies 1, ExtendedHeaders 2, Allocation 4
        """;

    private static readonly NbdConnectionState s_state = new()
    {
        Device = "vm-1",
        Client = 3,
        SocketCookie = 0x1234,
        Session = new NbdSession(StructuredReplies: true, ExtendedHeaders: false, HasAllocation: true),
        Told = new NbdExportInfo(1 << 20, NbdTransmissionFlags.HasFlags | NbdTransmissionFlags.SendFlush, 512, 4096, 32 << 20),
        ClientFlags = NbdClientFlags.FixedNewstyle,
        DurabilityId = new Guid("11111111-2222-3333-4444-555555555555"),
        Input = new byte[] { 1, 2, 3 },
    };

    [Fact]
    public void Has_the_layout_of_its_version()
    {
        string now =
            $"""
            header {Marshal.SizeOf<NbdStateHeader>()} of {NbdStateLayout.HeaderBytes}, checksum at {NbdStateLayout.ChecksumOffset}, then input, at most {NbdConnection.MaxUntakenBytes} in pages of {NbdStateLayout.TotalBytes(1) - NbdStateLayout.TotalBytes(0)}
            {string.Join(", ", typeof(NbdStateHeader).GetFields(BindingFlags.Instance | BindingFlags.NonPublic)
                .Select(field => (field.Name, Offset: field.GetCustomAttribute<FieldOffsetAttribute>()!.Value)).OrderBy(field => field.Offset).Select(field => $"{field.Name} {field.Offset}"))}
            {string.Join(", ", Enum.GetValues<NbdStateSession>().Select(value => $"{value} {(uint)value}"))}
            """;
        Assert.Equal((1u, Version1), (NbdStateLayout.Version, now));
        Assert.Equal("CBDNBDCO", System.Text.Encoding.ASCII.GetString(BitConverter.GetBytes(NbdStateLayout.Magic)));
    }

    [Fact]
    public void Is_read_as_it_was_stored()
    {
        NbdConnectionState read = NbdConnectionState.Decode(Encoded());
        Assert.Equal(s_state.Input.ToArray(), read.Input.ToArray());
        Assert.Equal(s_state, read with { Input = s_state.Input });
    }

    [Fact]
    public void Is_damaged_when_any_byte_is()
    {
        byte[] bytes = Encoded();
        for (int at = 0; at < bytes.Length; at++)
        {
            bytes[at] ^= 0x40;
            var error = Assert.Throws<CbdException>(() => NbdConnectionState.Decode(bytes));
            Assert.Equal(CbdErrorKind.Corrupt, error.Kind);
            bytes[at] ^= 0x40;
        }

        Assert.Equal(s_state.Client, NbdConnectionState.Decode(bytes).Client);
    }

    /// <summary>Whoever wrote it knows how to compute a checksum.</summary>
    [Theory]
    [InlineData(0, 8, 1, "begins with")]
    [InlineData(8, 4, 0, "version 0")]
    [InlineData(8, 4, 2, "version 2")]
    [InlineData(12, 4, 8, "session 0x8")]
    [InlineData(12, 4, 4, "session 0x4")]
    [InlineData(24, 8, 0, "client number 0")]
    [InlineData(24, 8, long.MaxValue, "client number")]
    [InlineData(32, 8, -1, "the size")]
    [InlineData(40, 4, 0, "has blocks of 0")]
    [InlineData(40, 4, 513, "has blocks of 513")]
    [InlineData(44, 4, 256, "has blocks of 512, 256")]
    [InlineData(44, 4, 4097, "has blocks of 512, 4097")]
    [InlineData(48, 4, 2048, "has blocks of 512, 4096 and 2048")]
    [InlineData(48, 4, -1, "has blocks of")]
    [InlineData(52, 2, 4, "flags 0x4")]
    [InlineData(54, 2, 4, "handshake flags 0x4")]
    [InlineData(56, 4, 4097, "4097 bytes read ahead")]
    [InlineData(56, 4, -1, "4294967295 bytes read ahead")]
    [InlineData(56, 4, 0, "0 bytes read ahead")]
    [InlineData(56, 4, 2, "not zero where nothing is")]
    [InlineData(56, 4, 4, "checksum is wrong")]
    [InlineData(60, 4, 0, "checksum is wrong")]
    [InlineData(64, 2, 0, "name of 0 bytes")]
    [InlineData(64, 2, 65, "name of 65 bytes")]
    [InlineData(64, 2, 3, "no device's")]
    [InlineData(64, 2, 5, "no device's")]
    [InlineData(66, 2, 1, "whose name has 1 bytes")]
    [InlineData(68, 4, 1, "not zero where nothing is")]
    [InlineData(72, 1, ' ', "no device's")]
    [InlineData(152, 1, 1, "not zero where nothing is")]
    [InlineData(4091, 1, 1, "not zero where nothing is")]
    [InlineData(4099, 1, 1, "not zero where nothing is")]
    [InlineData(4096, 1, 9, "checksum is wrong")]
    public void Is_refused_when_a_field_cannot_be(int offset, int width, long value, string why)
    {
        byte[] bytes = Encoded();
        byte[] number = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(number, value);
        number.AsSpan(0, width).CopyTo(bytes.AsSpan(offset));
        NbdConnectionState.Seal(bytes);
        Assert.Contains(why, Assert.Throws<CbdException>(() => NbdConnectionState.Decode(bytes)).Message, StringComparison.Ordinal);
    }

    /// <summary>A request of 28 bytes was put back before 64 KiB at most, one of 32 bytes only with extended headers.</summary>
    [Theory]
    [InlineData(false, 65564, true)]
    [InlineData(false, 65565, false)]
    [InlineData(true, 65568, true)]
    [InlineData(true, 65569, false)]
    public void Has_at_most_what_a_connection_can_take(bool extended, int length, bool fits)
    {
        var state = s_state with { Session = new NbdSession(false, extended, false), Input = new byte[length] };
        byte[] bytes = new byte[NbdStateLayout.TotalBytes(length)];
        state.Encode(bytes);
        if (fits)
            Assert.Equal(length, NbdConnectionState.Decode(bytes).Input.Length);
        else
            Assert.Contains("bytes read ahead", Assert.Throws<CbdException>(() => NbdConnectionState.Decode(bytes)).Message, StringComparison.Ordinal);
    }

    private static byte[] Encoded()
    {
        byte[] bytes = new byte[NbdStateLayout.TotalBytes(s_state.Input.Length)];
        s_state.Encode(bytes);
        return bytes;
    }
}
