using System.Buffers.Binary;

namespace Cbd.Exports.Nbd;

/// <summary>What a query for metadata contexts comes to.</summary>
internal enum NbdContextAnswer
{
    /// <summary>Understood; base:allocation is not among what it asks for.</summary>
    Nothing,

    /// <summary>It asks for base:allocation.</summary>
    Allocation,

    /// <summary>Its lengths do not add up, or a query has no namespace.</summary>
    Invalid,

    /// <summary>The export's name or a query is longer than a string may be.</summary>
    TooBig,

    /// <summary>There is no such export.</summary>
    UnknownExport,
}

/// <summary>
/// The data of LIST_META_CONTEXT and SET_META_CONTEXT, and the one context that there is.
/// <code>
/// u32 length of the export's name | name | u32 number of queries | each: u32 length, query
/// </code>
/// Source: doc/proto.md, "NBD_OPT_LIST_META_CONTEXT" and "Metadata querying".
/// </summary>
internal static class NbdMetaContexts
{
    /// <summary>The number of base:allocation in status replies.</summary>
    internal const uint AllocationId = 1;

    internal static ReadOnlySpan<byte> Allocation => "base:allocation"u8;

    /// <summary>
    /// Listing (<paramref name="isList"/>), no query means all contexts, and "base:" all of that namespace; selecting,
    /// both mean none. Unknown namespaces and unknown names are passed over.
    /// </summary>
    internal static NbdContextAnswer Find(ReadOnlySpan<byte> data, bool isList)
    {
        NbdContextAnswer answer = TakeString(ref data, out ReadOnlySpan<byte> name);
        if (answer != NbdContextAnswer.Nothing)
            return answer;
        if (data.Length < 4)
            return NbdContextAnswer.Invalid;
        uint count = BinaryPrimitives.ReadUInt32BigEndian(data);
        data = data[4..];
        bool found = isList && count == 0;
        for (uint i = 0; i < count; i++)
        {
            answer = TakeString(ref data, out ReadOnlySpan<byte> query);
            if (answer != NbdContextAnswer.Nothing)
                return answer;
            if (query.IndexOf((byte)':') < 1)
                return NbdContextAnswer.Invalid;
            found |= query.SequenceEqual(Allocation) || (isList && query.SequenceEqual("base:"u8));
        }

        if (data.Length != 0)
            return NbdContextAnswer.Invalid;
        if (name.Length != 0)
            return NbdContextAnswer.UnknownExport;
        return found ? NbdContextAnswer.Allocation : NbdContextAnswer.Nothing;
    }

    private static NbdContextAnswer TakeString(ref ReadOnlySpan<byte> data, out ReadOnlySpan<byte> text)
    {
        text = default;
        uint length = data.Length >= 4 ? BinaryPrimitives.ReadUInt32BigEndian(data) : 0;
        if (data.Length < 4 || length > (uint)data.Length - 4)
            return NbdContextAnswer.Invalid;
        if (length > NbdProtocol.MaxStringBytes)
            return NbdContextAnswer.TooBig;
        text = data.Slice(4, (int)length);
        data = data[(4 + (int)length)..];
        return NbdContextAnswer.Nothing;
    }
}
