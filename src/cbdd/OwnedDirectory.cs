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
    private readonly OwnerTrust _trust;

    private OwnedDirectory(string path, SafeFileHandle lockFile, string what, string option, OwnerTrust trust)
    {
        _trust = trust;
        Path = path;
        _lock = lockFile;
        _what = what;
        _option = option;
    }

    public string Path { get; }

    /// <summary>
    /// Takes the directory. <paramref name="option"/> is the option that names another one, for the refusal. With a
    /// <paramref name="group"/> its members may pass through, and <paramref name="forAll"/> everybody.
    /// </summary>
    /// <exception cref="CbdException">It cannot be had, another cbdd has it, or strangers could change what is in it.</exception>
    public static OwnedDirectory Take(string path, string what, string option, SocketGroup? group = null, bool forAll = false, OwnerTrust? trust = null)
    {
        trust ??= OwnerTrust.Default;
        var remedy = Prepare(path, what, option, trust);
        var file = ControlSyscalls.OpenLockFile(System.IO.Path.Combine(path, "lock"), remedy, trust);
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

            if (forAll)
                File.SetUnixFileMode(path, File.GetUnixFileMode(path) | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
            return new OwnedDirectory(path, file, what, option, trust);
        }
        catch (Exception e)
        {
            file.Dispose();
            if (AtomicFile.IsOfSystem(e))
                throw new CbdException(AtomicFile.KindOf(e), $"cannot use the {what} '{path}': {AtomicFile.Describe(e)}", e);
            throw;
        }
    }

    /// <summary>
    /// Makes the directory if it is not there, and takes nothing of it. Returns how another one is named. The parameters are those of <see cref="Take"/>.
    /// </summary>
    /// <exception cref="CbdException">It cannot be had, or strangers could change what is in it.</exception>
    public static string Prepare(string path, string what, string option, OwnerTrust trust)
    {
        var remedy = $"give another {what} with {option}";
        trust.CheckDirectory(path, what, remedy);
        Make(path, what, option);
        // With what was made just now.
        trust.CheckDirectory(path, what, remedy);
        return remedy;
    }

    /// <summary>
    /// Refuses what is no regular file of ours under one of these names; it need not be there. To read a fifo would wait for ever, and a
    /// link leads to a file of somebody else.
    /// </summary>
    public void CheckFiles(params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
        {
            var path = System.IO.Path.Combine(Path, name);
            if (FileStatus.TryGet(path, out var status, followLinks: false) == 0 && status.Type != FileType.Regular)
                throw new CbdException(CbdErrorKind.Corrupt, $"'{path}' is no regular file: move it away, or give another {_what} with {_option}");
            ControlSyscalls.TryOpenOwnFile(path, "a file of cbdd", $"give another {_what} with {_option}", _trust)?.Dispose();
        }
    }

    public void Dispose()
    {
        if (_lock.IsClosed)
            return;
        ControlSyscalls.Unlock(_lock);
        _lock.Dispose();
    }

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
