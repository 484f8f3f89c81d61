using System.Buffers.Binary;
using System.Text;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// One generic netlink request (linux/netlink.h, linux/genetlink.h): a header, and attributes that may be nested. Numbers
/// are in the machine's order, which is little-endian wherever this runs; lengths are padded to 4 bytes.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field
///      0     4  length of the message, bytes
///      4     2  type: the family's id
///      6     2  flags
///      8     4  sequence
///     12     4  port of the sender: 0
///     16     1  command of the family
///     17     1  version of the family
///     18     2  0
///     20        attributes: u16 length with its header, u16 type, value
/// </code>
/// </remarks>
internal sealed class NetlinkMessage
{
    internal const int HeaderBytes = 20;
    internal const int AttributeHeaderBytes = 4;

    // Flags of a request.
    internal const ushort FlagRequest = 1;
    internal const ushort FlagAcknowledge = 4;

    /// <summary>Marks an attribute that holds attributes.</summary>
    internal const ushort NestedAttribute = 1 << 15;

    private readonly List<byte> _bytes = [];

    internal NetlinkMessage(ushort family, byte command, byte version, uint sequence)
    {
        Append32(0);
        Append16(family);
        Append16(FlagRequest | FlagAcknowledge);
        Append32(sequence);
        Append32(0);
        _bytes.Add(command);
        _bytes.Add(version);
        Append16(0);
    }

    internal NetlinkMessage Add32(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return Add(type, bytes);
    }

    internal NetlinkMessage Add64(ushort type, ulong value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        return Add(type, bytes);
    }

    /// <summary>A string with its terminating zero.</summary>
    internal NetlinkMessage AddText(ushort type, string value) => Add(type, Encoding.UTF8.GetBytes(value + '\0'));

    /// <summary>An attribute that holds what <paramref name="content"/> adds.</summary>
    internal NetlinkMessage AddNested(ushort type, Action<NetlinkMessage> content)
    {
        int start = _bytes.Count;
        Append16(0);
        Append16((ushort)(type | NestedAttribute));
        content(this);
        Put16(start, checked((ushort)(_bytes.Count - start)));
        return this;
    }

    /// <summary>The whole message.</summary>
    internal byte[] ToArray()
    {
        byte[] message = [.. _bytes];
        BinaryPrimitives.WriteInt32LittleEndian(message, message.Length);
        return message;
    }

    private NetlinkMessage Add(ushort type, ReadOnlySpan<byte> value)
    {
        Append16(checked((ushort)(AttributeHeaderBytes + value.Length)));
        Append16(type);
        foreach (byte one in value)
            _bytes.Add(one);
        while (_bytes.Count % 4 != 0)
            _bytes.Add(0);
        return this;
    }

    private void Append16(ushort value)
    {
        _bytes.Add((byte)value);
        _bytes.Add((byte)(value >> 8));
    }

    private void Append32(uint value)
    {
        Append16((ushort)value);
        Append16((ushort)(value >> 16));
    }

    private void Put16(int offset, ushort value)
    {
        _bytes[offset] = (byte)value;
        _bytes[offset + 1] = (byte)(value >> 8);
    }
}
