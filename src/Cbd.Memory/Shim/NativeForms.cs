using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>One way in which the native shim can do a thing; <paramref name="Available"/>: this CPU can.</summary>
public readonly record struct NativeForm(int Index, string Name, bool Available);

/// <summary>
/// What the native shim can do and what it chose at start, for <c>--version</c>, logs, tests and measurements.
/// </summary>
public static unsafe class NativeForms
{
    /// <summary>Forms of the 64-byte line load and store, best last.</summary>
    public static IReadOnlyList<NativeForm> Lines { get; } =
        [.. Enumerable.Range(0, NativeShim.LineFormCount()).Select(i => Form(i, NativeShim.LineFormName(i), NativeShim.LineFormAvailable(i)))];

    /// <summary>Forms of copy + CRC32C, best last.</summary>
    public static IReadOnlyList<NativeForm> CopiesWithCrc { get; } =
        [.. Enumerable.Range(0, NativeShim.CrcFormCount()).Select(i => Form(i, NativeShim.CrcFormName(i), NativeShim.CrcFormAvailable(i)))];

    /// <summary>The chosen forms, e.g. <c>lines: avx512, 64 bytes; copy + CRC32C: vpclmul 512-bit fold</c>.</summary>
    public static string Summary =>
        $"lines: {Lines.Last(f => f.Available).Name}; copy + CRC32C: {CopiesWithCrc.Last(f => f.Available).Name}";

    /// <summary>
    /// Copies by one form, which must be available, and returns the running CRC32C register continued over the bytes.
    /// </summary>
    public static uint CopyWithCrc(NativeForm form, ReadOnlySpan<byte> source, Span<byte> destination, uint crc)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(destination.Length, source.Length, nameof(destination));
        CheckIndex(form, CopiesWithCrc);
        fixed (byte* from = source, to = destination)
            return NativeShim.CrcFormCopy(form.Index, to, from, (nuint)source.Length, crc);
    }

    /// <summary>Stores a line by one form, which must be available, and loads it back by another.</summary>
    public static Line StoreAndLoadLine(NativeForm store, NativeForm load, in Line line)
    {
        CheckIndex(store, Lines);
        CheckIndex(load, Lines);
        byte* room = stackalloc byte[2 * Line.SizeBytes];
        byte* aligned = (byte*)(((nuint)room + Line.SizeBytes - 1) & ~(nuint)(Line.SizeBytes - 1));
        Line source = line, result;
        NativeShim.LineFormStore(store.Index, aligned, (byte*)&source);
        NativeShim.LineFormLoad(load.Index, (byte*)&result, aligned);
        return result;
    }

    private static void CheckIndex(NativeForm form, IReadOnlyList<NativeForm> forms)
    {
        if ((uint)form.Index >= (uint)forms.Count || !forms[form.Index].Available)
            throw new ArgumentException($"'{form.Name}' is not a form that this CPU has", nameof(form));
    }

    private static NativeForm Form(int index, byte* name, int available) =>
        new(index, Marshal.PtrToStringUTF8((nint)name) ?? "", available != 0);
}
