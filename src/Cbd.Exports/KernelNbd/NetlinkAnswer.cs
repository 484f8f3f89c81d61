using System.Buffers.Binary;
using System.Text;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// What the kernel answered to one request: an error or success, and the attributes of the message before that, if there
/// was one. Bytes that are not what they must be are ignored, and leave the answer incomplete.
/// </summary>
internal sealed class NetlinkAnswer
{
    private const int MessageHeaderBytes = 16;
    private const int ErrorBytes = 4;
    private const ushort TypeError = 2;
    private const ushort TypeDone = 3;

    /// <summary>Behind the error stand attributes with more about it.</summary>
    private const ushort FlagExtended = 0x200;

    /// <summary>The error repeats no more of the request than its header.</summary>
    private const ushort FlagShort = 0x100;
    private const ushort ErrorText = 1;
    private const ushort TypeMask = 0x3fff;

    private readonly Dictionary<ushort, byte[]> _attributes = [];

    /// <summary>The kernel has said how it ended.</summary>
    internal bool IsComplete { get; private set; }

    /// <summary>0 or a positive errno.</summary>
    internal int Errno { get; private set; }

    /// <summary>What the kernel says of the error; often empty.</summary>
    internal string Text { get; private set; } = "";

    internal ushort? Get16(ushort type) =>
        _attributes.TryGetValue(type, out byte[]? value) && value.Length == sizeof(ushort) ? BinaryPrimitives.ReadUInt16LittleEndian(value) : null;

    internal uint? Get32(ushort type) =>
        _attributes.TryGetValue(type, out byte[]? value) && value.Length == sizeof(uint) ? BinaryPrimitives.ReadUInt32LittleEndian(value) : null;

    /// <summary>Takes a datagram, which may hold several messages; those of other requests are skipped.</summary>
    internal void Take(ReadOnlySpan<byte> datagram, uint sequence)
    {
        while (datagram.Length >= MessageHeaderBytes)
        {
            long length = BinaryPrimitives.ReadUInt32LittleEndian(datagram);
            if (length < MessageHeaderBytes || length > datagram.Length)
                return;
            ReadOnlySpan<byte> message = datagram[..(int)length];
            if (BinaryPrimitives.ReadUInt32LittleEndian(message[8..]) == sequence)
                TakeMessage(message);
            datagram = datagram[Math.Min(datagram.Length, Aligned((int)length))..];
        }
    }

    private void TakeMessage(ReadOnlySpan<byte> message)
    {
        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(message[4..]);
        ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(message[6..]);
        ReadOnlySpan<byte> body = message[MessageHeaderBytes..];
        if (type is not (TypeError or TypeDone))
        {
            // Behind the header of the family.
            TakeAttributes(body.Length < 4 ? default : body[4..], (kind, value) => _attributes[kind] = value);
            return;
        }

        if (body.Length < ErrorBytes)
            return;
        IsComplete = true;
        Errno = -BinaryPrimitives.ReadInt32LittleEndian(body);
        ReadOnlySpan<byte> request = body[ErrorBytes..];
        if ((flags & FlagExtended) == 0 || request.Length < MessageHeaderBytes)
            return;
        long repeated = (flags & FlagShort) != 0 ? MessageHeaderBytes : BinaryPrimitives.ReadUInt32LittleEndian(request);
        if (repeated is < MessageHeaderBytes or > int.MaxValue - 4 || Aligned((int)repeated) > request.Length)
            return;
        TakeAttributes(request[Aligned((int)repeated)..], (kind, value) =>
        {
            if (kind == ErrorText)
                Text = Encoding.UTF8.GetString(value).TrimEnd('\0');
        });
    }

    private static void TakeAttributes(ReadOnlySpan<byte> bytes, Action<ushort, byte[]> take)
    {
        while (bytes.Length >= NetlinkMessage.AttributeHeaderBytes)
        {
            int length = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
            if (length < NetlinkMessage.AttributeHeaderBytes || length > bytes.Length)
                return;
            ushort type = (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]) & TypeMask);
            take(type, bytes[NetlinkMessage.AttributeHeaderBytes..length].ToArray());
            bytes = bytes[Math.Min(bytes.Length, Aligned(length))..];
        }
    }

    private static int Aligned(int length) => (length + 3) & ~3;
}
