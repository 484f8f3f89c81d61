using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>A file that holds either its old bytes or its new ones, whenever the machine stops.</summary>
internal static class AtomicFile
{
    /// <summary>Writes a new file beside it, syncs it, renames it over the old one and syncs the directory.</summary>
    public static void Write(string path, ReadOnlySpan<byte> bytes)
    {
        var temporary = path + ".new";
        try
        {
            File.Delete(temporary);
            using (var file = new FileStream(temporary, new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.Write,
                BufferSize = 0,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            }))
            {
                file.Write(bytes);
                file.Flush(flushToDisk: true);
            }

            File.Move(temporary, path, overwrite: true);
            ControlSyscalls.SynchronizeDirectory(Path.GetDirectoryName(path)!);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"cannot write '{path}': {e.Message}", e);
        }
    }
}
