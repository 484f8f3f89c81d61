using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>Copies of files in memory that nobody can change any more (memfd_create(2)).</summary>
public static unsafe class MemoryFile
{
    /// <summary>
    /// A copy of a program, to be started from: neither its start nor its pages wait for a disk. Null if the kernel makes none, or allows
    /// none to be a program.
    /// </summary>
    /// <param name="path">The program.</param>
    /// <param name="name">What the copy is called in /proc.</param>
    public static FileDescriptor? TryCopyProgram(string path, string name)
    {
        using FileDescriptor source = FileDescriptor.Open(path, OpenFlags.ReadOnly);
        int number = LibC.CreateMemoryFile(name, MemoryFileCloseOnExec | MemoryFileAllowSealing | MemoryFileExecutable);
        if (number < 0 && LibC.LastErrno == EINVAL)
            // Before Linux 6.3 each of them may be a program.
            number = LibC.CreateMemoryFile(name, MemoryFileCloseOnExec | MemoryFileAllowSealing);
        if (number < 0)
            return null;
        var copy = FileDescriptor.Own(number, name);
        try
        {
            var buffer = new byte[1 << 20];
            for (int count; (count = source.Read(buffer)) > 0;)
            {
                if (!TryWrite(copy, buffer.AsSpan(0, count)))
                    throw SystemCallException.Last("write", name);
            }

            if (LibC.FCntl(copy, FcntlAddSeals, SealSeals | SealShrink | SealGrow | SealWrite) < 0)
                throw SystemCallException.Last("fcntl F_ADD_SEALS", name);
            return copy;
        }
        catch (SystemCallException)
        {
            copy.Dispose();
            return null;
        }
    }

    private static bool TryWrite(FileDescriptor file, ReadOnlySpan<byte> bytes)
    {
        // SAFETY: the bytes are pinned for the calls, each of which reads what is left of them.
        fixed (byte* start = bytes)
        {
            for (int at = 0; at < bytes.Length;)
            {
                nint count = LibC.Write(file, start + at, (nuint)(bytes.Length - at));
                if (count > 0)
                    at += (int)count;
                else if (count == 0 || LibC.LastErrno != EINTR)
                    return false;
            }
        }

        return true;
    }
}
