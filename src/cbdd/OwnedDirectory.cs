using System.Globalization;
using System.Text;
using Cbd.Control.Server;
using Cbd.Host;
using Cbd.Memory;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Programs.Daemon;

/// <summary>
/// A directory that one daemon has for itself: made if it is not there (0700), its file <c>lock</c> locked with
/// flock(2) for as long as this lives, the process id in it. The kernel lets the lock go with the process.
/// </summary>
internal sealed class OwnedDirectory : IDisposable
{
    private readonly SafeFileHandle _lock;

    private readonly string _what;
    private readonly string _option;

    private OwnedDirectory(string path, SafeFileHandle lockFile, string what, string option)
    {
        Path = path;
        _lock = lockFile;
        _what = what;
        _option = option;
    }

    public string Path { get; }

    /// <summary>
    /// Takes the directory. <paramref name="option"/> is the option that names another one, for the refusal. With a
    /// <paramref name="group"/> its members may pass through.
    /// </summary>
    public static OwnedDirectory Take(string path, string what, string option, SocketGroup? group = null)
    {
        Make(path, what, option);
        var file = ControlSyscalls.OpenLockFile(System.IO.Path.Combine(path, "lock"), $"give another {what} with {option}");
        try
        {
            if (!ControlSyscalls.TryLockExclusive(file, path))
            {
                throw new CbdException(CbdErrorKind.Busy,
                    $"the {what} '{path}' belongs to a running cbdd, pid {ReadProcessId(file)}; stop that one, or give this one a {what} of its own with {option}");
            }

            RandomAccess.SetLength(file, 0);
            RandomAccess.Write(file, Encoding.ASCII.GetBytes($"{Environment.ProcessId}\n"), 0);
            if (group is not null)
            {
                ControlSyscalls.ChangeGroup(path, group.Id);
                File.SetUnixFileMode(path, File.GetUnixFileMode(path) | UnixFileMode.GroupExecute);
            }

            return new OwnedDirectory(path, file, what, option);
        }
        catch (Exception e)
        {
            file.Dispose();
            if (AtomicFile.IsOfSystem(e))
                throw new CbdException(CbdErrorKind.Failed, $"cannot use the {what} '{path}': {AtomicFile.Describe(e)}", e);
            throw;
        }
    }

    /// <summary>
    /// Refuses what is no regular file under one of these names; it need not be there. To read a fifo would wait for ever.
    /// </summary>
    public void CheckFiles(params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
        {
            var path = System.IO.Path.Combine(Path, name);
            if (FileStatus.TryGet(path, out var status) == 0 && status.Type != FileType.Regular)
                throw new CbdException(CbdErrorKind.Corrupt, $"'{path}' is no regular file: move it away, or give another {_what} with {_option}");
        }
    }

    public void Dispose() => _lock.Dispose();

    private static void Make(string path, string what, string option)
    {
        try
        {
            Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(
                e is UnauthorizedAccessException ? CbdErrorKind.Denied : CbdErrorKind.Failed,
                $"cannot make the {what} '{path}': {e.Message} Give another one with {option}", e);
        }
    }

    private static string ReadProcessId(SafeFileHandle file)
    {
        Span<byte> text = stackalloc byte[16];
        var length = RandomAccess.Read(file, text, 0);
        return int.TryParse(text[..length].TrimEnd((byte)'\n'), NumberStyles.None, CultureInfo.InvariantCulture, out var processId)
            ? processId.ToString(CultureInfo.InvariantCulture)
            : "unknown";
    }
}
