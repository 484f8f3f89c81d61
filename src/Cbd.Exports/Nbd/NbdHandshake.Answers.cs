using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Cbd.Exports.Nbd;

/// <content>What options are answered with.</content>
internal sealed partial class NbdHandshake
{
    private void AnswerExportName(ReadOnlySpan<byte> name, IBufferWriter<byte> output)
    {
        // This option has no way to say no.
        if (name.Length != 0)
        {
            Fail($"no export is named {Quote(name)}; the only export has the empty name");
            return;
        }

        if (_session.ExtendedHeaders)
        {
            Fail("it negotiated extended headers and then chose the export by EXPORT_NAME instead of GO");
            return;
        }

        NbdExportInfo info = Told = _describe();
        int length = 10 + (_noZeroes ? 0 : NbdProtocol.ExportNamePaddingBytes);
        Span<byte> bytes = output.GetSpan(length)[..length];
        bytes.Clear();
        BinaryPrimitives.WriteUInt64BigEndian(bytes, info.SizeBytes);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[8..], (ushort)(info.Flags | _session.Flags));
        output.Advance(length);
        State = NbdHandshakeState.Transmission;
    }

    private void AnswerList(IBufferWriter<byte> output)
    {
        byte[] description = Encoding.UTF8.GetBytes(_description);
        byte[] data = new byte[4 + description.Length];
        description.CopyTo(data, 4);
        Reply(output, NbdOption.List, NbdOptionReply.Server, data);
        Reply(output, NbdOption.List, NbdOptionReply.Ack, default);
    }

    private void AnswerContexts(NbdOption option, ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        // A selection that fails has replaced the one before it too.
        bool selects = option == NbdOption.SetMetaContext;
        if (selects)
            _session = _session with { HasAllocation = false };
        if (!_session.HasChunks)
        {
            Reject(output, option, NbdOptionReply.ErrorInvalid, "metadata contexts need structured replies or extended headers; negotiate them first");
            return;
        }

        switch (NbdMetaContexts.Find(data, isList: !selects))
        {
            case NbdContextAnswer.Invalid:
                Reject(output, option, NbdOptionReply.ErrorInvalid, $"the lengths in option {(uint)option} do not add up to its {data.Length} bytes, or a query has no namespace");
                return;
            case NbdContextAnswer.TooBig:
                Reject(output, option, NbdOptionReply.ErrorTooBig, $"a string is longer than {NbdProtocol.MaxStringBytes} bytes");
                return;
            case NbdContextAnswer.UnknownExport:
                Reject(output, option, NbdOptionReply.ErrorUnknown, "there is no such export; the only export has the empty name");
                return;
            case NbdContextAnswer.Allocation:
                // The number means nothing in a list.
                byte id = selects ? (byte)NbdMetaContexts.AllocationId : (byte)0;
                Reply(output, option, NbdOptionReply.MetaContext, [0, 0, 0, id, .. NbdMetaContexts.Allocation]);
                _session = _session with { HasAllocation = _session.HasAllocation || selects };
                break;
        }

        Reply(output, option, NbdOptionReply.Ack, default);
    }

    private void AnswerInfo(NbdOption option, ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        // u32 length of the name, the name, u16 number of requests, u16 each.
        uint nameLength = data.Length >= 4 ? BinaryPrimitives.ReadUInt32BigEndian(data) : 0;
        bool valid = data.Length >= 6 && nameLength <= (uint)data.Length - 6;
        ReadOnlySpan<byte> wanted = default;
        if (valid)
        {
            int count = BinaryPrimitives.ReadUInt16BigEndian(data[(4 + (int)nameLength)..]);
            wanted = data[(6 + (int)nameLength)..];
            valid = wanted.Length == 2 * count;
        }

        if (!valid)
        {
            Reject(output, option, NbdOptionReply.ErrorInvalid, $"the lengths in option {(uint)option} do not add up to its {data.Length} bytes");
            return;
        }

        if (nameLength > NbdProtocol.MaxStringBytes)
        {
            Reject(output, option, NbdOptionReply.ErrorTooBig, $"the export name has {nameLength} bytes; at most {NbdProtocol.MaxStringBytes} are allowed");
            return;
        }

        if (nameLength != 0)
        {
            Reject(output, option, NbdOptionReply.ErrorUnknown, $"no export is named {Quote(data.Slice(4, (int)nameLength))}; the only export has the empty name");
            return;
        }

        WriteInfo(option, wanted, output);
        Reply(output, option, NbdOptionReply.Ack, default);
        if (option == NbdOption.Go)
            State = NbdHandshakeState.Transmission;
    }

    private void WriteInfo(NbdOption option, ReadOnlySpan<byte> wanted, IBufferWriter<byte> output)
    {
        NbdExportInfo info = Told = _describe();
        Span<byte> bytes = stackalloc byte[14];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, (ushort)NbdInfo.Export);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[2..], info.SizeBytes);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[10..], (ushort)(info.Flags | _session.Flags));
        Reply(output, option, NbdOptionReply.Info, bytes[..12]);

        // Block sizes are told to everybody: the smallest may be more than the byte that a client would assume.
        BinaryPrimitives.WriteUInt16BigEndian(bytes, (ushort)NbdInfo.BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[2..], info.MinBlockBytes);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[6..], info.PreferredBlockBytes);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[10..], info.MaxBlockBytes);
        Reply(output, option, NbdOptionReply.Info, bytes);

        bool named = false;
        bool described = false;
        for (; wanted.Length >= 2; wanted = wanted[2..])
        {
            switch ((NbdInfo)BinaryPrimitives.ReadUInt16BigEndian(wanted))
            {
                case NbdInfo.Name when !named:
                    named = true;
                    Reply(output, option, NbdOptionReply.Info, [0, (byte)NbdInfo.Name]);
                    break;
                case NbdInfo.Description when !described:
                    described = true;
                    Reply(output, option, NbdOptionReply.Info, [0, (byte)NbdInfo.Description, .. Encoding.UTF8.GetBytes(_description)]);
                    break;
            }
        }
    }

    private static void Reject(IBufferWriter<byte> output, NbdOption option, NbdOptionReply reply, string message) =>
        Reply(output, option, reply, Encoding.UTF8.GetBytes(message));

    private static void Reply(IBufferWriter<byte> output, NbdOption option, NbdOptionReply reply, ReadOnlySpan<byte> data)
    {
        Span<byte> bytes = output.GetSpan(20 + data.Length);
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.OptionReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[12..], (uint)reply);
        BinaryPrimitives.WriteInt32BigEndian(bytes[16..], data.Length);
        data.CopyTo(bytes[20..]);
        output.Advance(20 + data.Length);
    }

    /// <summary>A name as it can stand in a message: short, and without control characters.</summary>
    private static string Quote(ReadOnlySpan<byte> name)
    {
        var text = new StringBuilder("'");
        foreach (Rune rune in Encoding.UTF8.GetString(name[..Math.Min(name.Length, 64)]).EnumerateRunes())
            text.Append(Rune.IsControl(rune) ? "?" : rune.ToString());
        return text.Append(name.Length > 64 ? "…'" : "'").ToString();
    }
}
