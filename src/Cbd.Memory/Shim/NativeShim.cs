using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// The native shim (src/native/cbd.h): linked into NativeAOT programs, loaded as <c>libcbdnative.so</c> under the JIT.
/// </summary>
/// <remarks>
/// Short calls skip the transition that lets the garbage collector run meanwhile: it costs more than they do. A
/// collection waits for them, so longer copies take the transition.
/// </remarks>
internal static unsafe partial class NativeShim
{
    private const string Library = "cbdnative";

    /// <summary>The longest copy, bytes, that may hold up a garbage collection: a few µs.</summary>
    private const int ShortCopyBytes = 64 << 10;

    /// <summary>Copies one line out of shared memory; later loads are performed after it.</summary>
    [LibraryImport(Library, EntryPoint = "cbd_line_load"), SuppressGCTransition]
    internal static partial void ReadLine(byte* destination, byte* line);

    /// <summary>Stores one line into shared memory after all earlier stores.</summary>
    [LibraryImport(Library, EntryPoint = "cbd_line_store"), SuppressGCTransition]
    internal static partial void WriteLine(byte* line, byte* source);

    /// <summary>Copies and returns the CRC32C register continued over what was copied.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static uint CopyWithCrc(byte* destination, byte* source, int length, uint crc) =>
        length <= ShortCopyBytes
            ? CopyWithCrcShort(destination, source, (nuint)length, crc)
            : CopyWithCrcLong(destination, source, (nuint)length, crc);

    [LibraryImport(Library, EntryPoint = "cbd_copy_crc"), SuppressGCTransition]
    private static partial uint CopyWithCrcShort(byte* destination, byte* source, nuint length, uint crc);

    [LibraryImport(Library, EntryPoint = "cbd_copy_crc")]
    private static partial uint CopyWithCrcLong(byte* destination, byte* source, nuint length, uint crc);

    /// <summary>A hint that the bytes will be read, or written over whole, soon.</summary>
    [LibraryImport(Library, EntryPoint = "cbd_prefetch"), SuppressGCTransition]
    internal static partial void Prefetch(byte* start, nuint length, int forWrite);

    [LibraryImport(Library, EntryPoint = "cbd_line_forms")]
    internal static partial int LineFormCount();

    [LibraryImport(Library, EntryPoint = "cbd_line_form_name")]
    internal static partial byte* LineFormName(int index);

    [LibraryImport(Library, EntryPoint = "cbd_line_form_available")]
    internal static partial int LineFormAvailable(int index);

    [LibraryImport(Library, EntryPoint = "cbd_line_form_load")]
    internal static partial void LineFormLoad(int index, byte* destination, byte* line);

    [LibraryImport(Library, EntryPoint = "cbd_line_form_store")]
    internal static partial void LineFormStore(int index, byte* line, byte* source);

    [LibraryImport(Library, EntryPoint = "cbd_crc_forms")]
    internal static partial int CrcFormCount();

    [LibraryImport(Library, EntryPoint = "cbd_crc_form_name")]
    internal static partial byte* CrcFormName(int index);

    [LibraryImport(Library, EntryPoint = "cbd_crc_form_available")]
    internal static partial int CrcFormAvailable(int index);

    [LibraryImport(Library, EntryPoint = "cbd_crc_form_copy")]
    internal static partial uint CrcFormCopy(int index, byte* destination, byte* source, nuint length, uint crc);

    [LibraryImport(Library, EntryPoint = "cbd_signals_open")]
    internal static partial int OpenSignals();

    [LibraryImport(Library, EntryPoint = "cbd_signals_watch")]
    internal static partial int WatchSignal(int number, int unlessIgnored);

    [LibraryImport(Library, EntryPoint = "cbd_signals_end_by")]
    internal static partial int EndBySignal(int number);

    [LibraryImport(Library, EntryPoint = "cbd_call_with_rights")]
    internal static partial nint CallWithRights(Rights* rights, int* taken, nint number, nint a, nint b, nint c, nint d, nint e, nint f);

    [LibraryImport(Library, EntryPoint = "cbd_spawn")]
    internal static partial int Spawn(SpawnRequest* request, int* process);

    [LibraryImport(Library, EntryPoint = "cbd_await_end")]
    internal static partial int AwaitEnd(int processId);

    [LibraryImport(Library, EntryPoint = "cbd_guard_add")]
    internal static partial int GuardAdd(byte* start, nuint length);

    [LibraryImport(Library, EntryPoint = "cbd_guard_remove")]
    internal static partial void GuardRemove(int guard);

    [LibraryImport(Library, EntryPoint = "cbd_guard_poisoned"), SuppressGCTransition]
    internal static partial int GuardPoisoned(int guard);

    /// <summary><c>struct cbd_spawn</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SpawnRequest
    {
        internal byte* Path;
        internal byte** Arguments;
        internal byte** Changes;
        internal byte** Numbers;
        internal int* Descriptors;
        internal uint DescriptorCount;
        internal uint ChangeCount;
        internal uint NumberCount;
        internal int Program;
    }

    /// <summary><c>struct cbd_rights</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Rights
    {
        internal uint User;
        internal uint Group;
        internal uint Count;
        internal uint* Groups;
    }
}
