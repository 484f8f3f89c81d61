using Cbd.Memory;

namespace Cbd.Host;

/// <summary>
/// Files that are there as a whole or not at all: each is written beside its place and renamed into it. What a process that
/// died left beside it has the suffix <see cref="TemporarySuffix"/>, and nobody reads it.
/// </summary>
internal static class AtomicFile
{
    public const string TemporarySuffix = ".new";

    private const UnixFileMode ForAllToRead = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;

    /// <summary>
    /// Puts a file with these bytes at <paramref name="path"/>, in the place of an older one. It is on the medium when this
    /// returns, so that after a power failure the old bytes or the new ones are there. One writer of a path at a time.
    /// </summary>
    /// <exception cref="CbdException">
    /// It cannot be written, and the older one is still there; unless the medium failed when all was written, which the message says.
    /// </exception>
    public static void Write(string path, ReadOnlySpan<byte> bytes)
    {
        byte[] copy = bytes.ToArray();
        Write(path, isDurable: true, stream => stream.Write(copy));
    }

    /// <summary>As above, with what <paramref name="write"/> stores into the stream.</summary>
    /// <param name="path">Where it goes. A link that is there is replaced, and never followed.</param>
    /// <param name="write">Stores what the file shall have.</param>
    /// <param name="forAll">Every user may read it; else the own user alone.</param>
    /// <param name="isDurable">
    /// Wait for the medium. If not, a power failure may leave an empty file; other processes never see one.
    /// </param>
    public static void Write(string path, bool isDurable, Action<Stream> write, bool forAll = false)
    {
        string temporary = path + TemporarySuffix;
        try
        {
            // Before the new file is in its place: for want of a descriptor nothing may fail afterwards.
            using FileDescriptor? directory = isDurable ? ControlSyscalls.OpenDirectory(Path.GetDirectoryName(path)!) : null;
            File.Delete(temporary);
            try
            {
                using (var file = new FileStream(temporary, new FileStreamOptions
                {
                    Mode = FileMode.CreateNew,
                    Access = FileAccess.Write,
                    BufferSize = 0,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                }))
                {
                    // The umask has no say in it.
                    if (forAll)
                        File.SetUnixFileMode(file.SafeFileHandle, ForAllToRead);
                    write(file);
                    file.Flush(flushToDisk: isDurable);
                }

                File.Move(temporary, path, overwrite: true);
            }
            catch
            {
                TryDelete(temporary);
                throw;
            }

            if (directory is not null)
                ControlSyscalls.SynchronizeDirectory(directory, Path.GetDirectoryName(path)!);
        }
        catch (Exception e) when (IsOfSystem(e))
        {
            throw new CbdException(KindOf(e), $"cannot write '{path}': {Describe(e)}", e);
        }
    }

    /// <summary>What .NET throws where a file cannot be made or written.</summary>
    public static bool IsOfSystem(Exception e) => e is IOException or UnauthorizedAccessException or ArgumentOutOfRangeException;

    /// <summary>The kind of such an error. .NET keeps the errno in HResult when it has no exception class for it.</summary>
    public static CbdErrorKind KindOf(Exception e) =>
        e is ArgumentOutOfRangeException || Exhaustion.RemedyOf(e.HResult) is not null ? CbdErrorKind.Exhausted : CbdErrorKind.Failed;

    /// <summary>Such an error in words, with what to do if something has run out. One of an argument is .NET's word for EFBIG.</summary>
    public static string Describe(Exception e) => e is ArgumentOutOfRangeException
        ? "the file would be larger than a file may be here: raise the limit (LimitFSIZE= of the unit, ulimit -f)"
        : e.Message + Exhaustion.RemedyOf(e.HResult);

    private static void TryDelete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The error that led here is the one to tell.
        }
    }
}
