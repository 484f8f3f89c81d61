using System.Runtime.CompilerServices;
namespace Cbd.Memory;
internal static unsafe class NativeShim
{
    internal static void ReadLine(byte* destination, byte* line)
    {
        *(Line*)destination = Unsafe.ReadUnaligned<Line>(line);
        Thread.MemoryBarrier();
    }
    internal static void WriteLine(byte* line, byte* source)
    {
        Thread.MemoryBarrier();
        *(Line*)line = *(Line*)source;
    }
    internal static uint CopyWithCrc(byte* destination, byte* source, int length, uint crc)
    {
        Buffer.MemoryCopy(source, destination, length, length);
        return Crc32C.Append(crc, new ReadOnlySpan<byte>(destination, length));
    }
}
