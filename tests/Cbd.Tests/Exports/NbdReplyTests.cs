using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>The bytes of every kind of reply and request, as doc/proto.md draws them.</summary>
public sealed class NbdReplyTests
{
    private const ulong Handle = 0x1122334455667788;
    private const ulong Offset = 0x0000_0100_0000_2000;
    private const string Structured = "668e33ef0001";
    private const string Extended = "6e8a278c0001";
    private const string HandleHex = "1122334455667788";
    private const string OffsetHex = "0000010000002000";

    private delegate int Writer(Span<byte> to, in NbdReplies.Origin origin);

    private static string Write(Writer write, bool extended)
    {
        byte[] room = new byte[NbdReplies.MaxHeaderBytes];
        int count = write(room, new NbdReplies.Origin(extended, Handle, Offset));
        return Convert.ToHexStringLower(room.AsSpan(0, count));
    }

    [Fact]
    public void A_simple_reply_has_magic_error_and_handle()
    {
        byte[] room = new byte[16];
        Assert.Equal(16, NbdReplies.WriteSimple(room, NbdError.NoSpace, Handle));
        Assert.Equal("674466980000001c" + HandleHex, Convert.ToHexStringLower(room));
    }

    [Fact]
    public void A_chunk_without_data()
    {
        static int WriteNone(Span<byte> to, in NbdReplies.Origin origin) => NbdReplies.WriteNone(to, origin);
        Assert.Equal(Structured + "0000" + HandleHex + "00000000", Write(WriteNone, extended: false));
        Assert.Equal(Extended + "0000" + HandleHex + OffsetHex + "0000000000000000", Write(WriteNone, extended: true));
    }

    [Fact]
    public void A_chunk_of_data_counts_its_offset_in()
    {
        static int WriteData(Span<byte> to, in NbdReplies.Origin origin) => NbdReplies.WriteData(to, origin, 4096);
        Assert.Equal(Structured + "0001" + HandleHex + "00001008" + OffsetHex, Write(WriteData, extended: false));
        Assert.Equal(Extended + "0001" + HandleHex + OffsetHex + "0000000000001008" + OffsetHex, Write(WriteData, extended: true));
    }

    [Fact]
    public void A_hole_has_offset_and_length()
    {
        static int WriteHole(Span<byte> to, in NbdReplies.Origin origin) => NbdReplies.WriteHole(to, origin, 65536);
        Assert.Equal(Structured + "0002" + HandleHex + "0000000c" + OffsetHex + "00010000", Write(WriteHole, extended: false));
        Assert.Equal(
            Extended + "0002" + HandleHex + OffsetHex + "000000000000000c" + OffsetHex + "00010000", Write(WriteHole, extended: true));
    }

    [Fact]
    public void A_status_has_the_context_and_where_it_is_extended_the_number_of_extents()
    {
        static int WriteTwo(Span<byte> to, in NbdReplies.Origin origin) => NbdReplies.WriteStatus(to, origin, origin.Extended ? 32 : 16);
        Assert.Equal(Structured + "0005" + HandleHex + "00000014" + "00000001", Write(WriteTwo, extended: false));
        Assert.Equal(Extended + "0006" + HandleHex + OffsetHex + "0000000000000028" + "0000000100000002", Write(WriteTwo, extended: true));
    }

    [Fact]
    public void An_error_comes_with_words()
    {
        static int WriteError(Span<byte> to, in NbdReplies.Origin origin) => NbdReplies.WriteError(to, origin, NbdError.Overflow, "no"u8);
        Assert.Equal(Structured + "8001" + HandleHex + "00000008" + "0000004b00026e6f", Write(WriteError, extended: false));
        Assert.Equal(
            Extended + "8001" + HandleHex + OffsetHex + "0000000000000008" + "0000004b00026e6f", Write(WriteError, extended: true));
    }

    [Fact]
    public void The_words_of_every_refusal_fit_the_room()
    {
        foreach (NbdRefusal refusal in Enum.GetValues<NbdRefusal>())
            Assert.InRange(NbdRefusals.Text(refusal).Length, 1, NbdRefusals.MaxTextBytes);
        Assert.True(NbdProtocol.ExtendedReplyBytes + 6 + NbdRefusals.MaxTextBytes <= NbdReplies.MaxHeaderBytes);
        Assert.Equal(
            Enum.GetValues<NbdRefusal>().Length,
            Enum.GetValues<NbdRefusal>().Select(refusal => System.Text.Encoding.UTF8.GetString(NbdRefusals.Text(refusal))).Distinct().Count());
    }

    private static byte[] Stored(params (long Length, BlockExtentState State)[] extents)
    {
        byte[] bytes = new byte[extents.Length * BlockExtent.EncodedSizeBytes];
        for (int i = 0; i < extents.Length; i++)
            new BlockExtent(extents[i].Length, extents[i].State).Encode(bytes.AsSpan(i * BlockExtent.EncodedSizeBytes));
        return bytes;
    }

    private const BlockExtentState Hole = BlockExtentState.Hole | BlockExtentState.Zero;

    [Theory]
    [InlineData(false, "00003000" + "00000000" + "00001000" + "00000003" + "00000200" + "00000000")]
    [InlineData(true, "0000000000003000" + "0000000000000000" + "0000000000001000" + "0000000000000003" + "0000000000000200" + "0000000000000000")]
    public void Extents_are_encoded_in_place_and_neighbours_of_one_state_are_one(bool extended, string expected)
    {
        byte[] bytes = Stored((0x1000, 0), (0x2000, 0), (0x800, Hole), (0x800, Hole), (0x200, 0));
        int count = NbdExtents.Encode(bytes, extended);
        Assert.Equal(expected, Convert.ToHexStringLower(bytes.AsSpan(0, count)));
    }

    [Fact]
    public void An_extent_of_more_than_4_GiB_keeps_its_length()
    {
        byte[] bytes = Stored((3L << 40, Hole), (1L << 40, Hole));
        Assert.Equal(16, NbdExtents.Encode(bytes, extended: true));
        Assert.Equal("0000040000000000" + "0000000000000003", Convert.ToHexStringLower(bytes.AsSpan(0, 16)));
    }

    [Fact]
    public void What_a_device_may_not_answer_is_noticed()
    {
        byte[] good = Stored((4096, 0), (4096, Hole));
        Assert.True(NbdExtents.AreValid(good, 32, 8192));
        Assert.True(NbdExtents.AreValid(good, 32, 9000));
        Assert.False(NbdExtents.AreValid(good, 32, 8191));
        Assert.False(NbdExtents.AreValid(good, 0, 8192));
        Assert.False(NbdExtents.AreValid(good, 24, 8192));
        Assert.False(NbdExtents.AreValid(good, 48, 8192));
        Assert.False(NbdExtents.AreValid(Stored((0, 0)), 16, 8192));
        Assert.False(NbdExtents.AreValid(Stored((-4096, 0)), 16, 8192));
        Assert.False(NbdExtents.AreValid(Stored((long.MaxValue, 0), (long.MaxValue, 0)), 32, long.MaxValue));
    }

    [Fact]
    public void A_request_is_read_in_both_sizes()
    {
        byte[] compact = Convert.FromHexString("25609513" + "0001" + "0001" + HandleHex + OffsetHex + "00001000");
        Assert.Equal(0, NbdRequestHeader.Take(compact.AsSpan(0, 27), extended: false, out _));
        Assert.Equal(28, NbdRequestHeader.Take(compact, extended: false, out NbdRequestHeader header));
        Assert.Equal(
            new NbdRequestHeader(NbdProtocol.RequestMagic, NbdCommandFlags.ForceUnitAccess, NbdCommand.Write, Handle, Offset, 4096, 4096), header);

        byte[] extended = Convert.FromHexString("21e41c71" + "0002" + "0006" + HandleHex + OffsetHex + "0000008000000000");
        Assert.Equal(0, NbdRequestHeader.Take(extended.AsSpan(0, 31), extended: true, out _));
        Assert.Equal(32, NbdRequestHeader.Take(extended, extended: true, out header));
        Assert.Equal(
            new NbdRequestHeader(NbdProtocol.ExtendedRequestMagic, NbdCommandFlags.NoHole, NbdCommand.WriteZeroes, Handle, Offset, 1UL << 39), header);

        byte[] encoded = new byte[32];
        header.Encode(encoded);
        Assert.Equal(extended, encoded);
    }

    [Fact]
    public void The_payload_of_a_status_request_is_read_with_its_header()
    {
        const string Header = "21e41c71" + "0028" + "0007" + HandleHex + OffsetHex + "000000000000000c";
        byte[] known = Convert.FromHexString(Header + "0000010000000000" + "00000001");
        Assert.Equal(0, NbdRequestHeader.Take(known.AsSpan(0, 43), extended: true, out _));
        Assert.Equal(44, NbdRequestHeader.Take(known, extended: true, out NbdRequestHeader header));
        Assert.Equal(
            new NbdRequestHeader(NbdProtocol.ExtendedRequestMagic, NbdCommandFlags.OneExtent, NbdCommand.BlockStatus, Handle, Offset, 1UL << 40), header);
        byte[] unknown = Convert.FromHexString(Header + "0000010000000000" + "00000002");
        Assert.Equal(32, NbdRequestHeader.Take(unknown, extended: true, out header));
        Assert.Equal(12UL, header.PayloadBytes);
        Assert.NotEqual(0, (int)(header.Flags & NbdCommandFlags.PayloadLength));
    }
}
