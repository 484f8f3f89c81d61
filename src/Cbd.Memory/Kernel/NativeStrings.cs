using System.Runtime.InteropServices;
using System.Text;

namespace Cbd.Memory;

/// <summary>Strings of C in memory that does not move: a list of pointers with a null at its end. One thread at a time.</summary>
internal sealed unsafe class NativeStrings : IDisposable
{
    private readonly int _count;
    private byte** _list;

    /// <param name="texts">Without a zero character.</param>
    public NativeStrings(IReadOnlyList<string> texts)
    {
        _count = texts.Count;
        byte[][] bytes = [.. texts.Select(Encoding.UTF8.GetBytes)];
        nuint listBytes = (nuint)((_count + 1) * sizeof(byte*));
        // SAFETY: one block with the list and, behind it, each string with its zero; the sum of their lengths is its size.
        _list = (byte**)NativeMemory.AllocZeroed(listBytes + (nuint)bytes.Sum(text => text.Length + 1));
        byte* at = (byte*)_list + listBytes;
        for (int i = 0; i < _count; i++)
        {
            _list[i] = at;
            bytes[i].CopyTo(new Span<byte>(at, bytes[i].Length));
            at += bytes[i].Length + 1;
        }
    }

    ~NativeStrings() => Free();

    /// <summary>The list.</summary>
    public byte** Start => _list;

    /// <summary>One of the strings.</summary>
    public byte* this[int index] => (uint)index < (uint)_count ? _list[index] : throw new ArgumentOutOfRangeException(nameof(index));

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        byte** list = _list;
        _list = null;
        NativeMemory.Free(list);
    }
}
