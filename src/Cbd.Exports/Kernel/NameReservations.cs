using System.Text;
using Cbd.Memory;
using Cbd.Host;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Exports.Kernel;

/// <summary>
/// Names of devices that a daemon wants although it does not run, or has not attached them yet: <c>NAME.wanted</c> in the registry,
/// with the host uuid and the state directory of that daemon, "UUID DIRECTORY". No other daemon of the machine gets such a name. A state
/// directory that is not there, as this daemon sees it, wants nothing. Where this daemon may not write to the registry, nothing is reserved;
/// where something has run out, a start is refused. Thread-safe.
/// </summary>
/// <param name="places">Where the registry is.</param>
/// <param name="owner">Who this daemon is, in that form.</param>
internal sealed class NameReservations(AttachPlaces places, string owner)
{
    private const string Suffix = ".wanted";

    /// <summary>Longest path of a state directory that is believed, bytes.</summary>
    private const int MaxBytes = 4096;

    /// <summary>The state directory of another daemon that wants the name; null if none does.</summary>
    public string? OtherOwnerOf(string name) =>
        OwnerIn(PathOf(name)) is { } found && found != owner && DirectoryIn(found) is { } directory && Directory.Exists(directory) ? directory : null;

    private static string? DirectoryIn(string owner) => owner.IndexOf(' ', StringComparison.Ordinal) is >= 0 and var end ? owner[(end + 1)..] : null;

    /// <summary>Wants a name. Throws Busy if another daemon does, Exhausted if there is no room or no descriptor for it.</summary>
    public void Reserve(string name)
    {
        Locked(() =>
        {
            if (OtherOwnerOf(name) is { } other)
                throw new CbdException(CbdErrorKind.Busy, $"device name '{name}' is wanted by another cbdd of this machine, with the state directory '{other}': give another --name, or stop it there with dev-stop -d {name}");
            Write(name);
        });
    }

    /// <summary>Wants these names and no others.</summary>
    public void Keep(IReadOnlyCollection<string> names)
    {
        if (names.Count == 0 && !Directory.Exists(places.Registry))
            return;
        try
        {
            Locked(() => KeepLocked(names));
        }
        catch (CbdException)
        {
            // Somebody keeps the registry locked, or something has run out; the next verb does this again.
        }
    }

    private void KeepLocked(IReadOnlyCollection<string> names)
    {
        foreach (string file in KernelFiles.Entries(places.Registry).Where(file => file.EndsWith(Suffix, StringComparison.Ordinal)))
        {
            if (!names.Contains(file[..^Suffix.Length]) && OwnerIn(Path.Combine(places.Registry, file)) == owner)
                Try(() => File.Delete(Path.Combine(places.Registry, file)));
        }

        foreach (string name in names.Where(name => OtherOwnerOf(name) is null))
            Write(name);
    }

    /// <summary>With the registry locked against the other daemons; not at all where this daemon cannot have it.</summary>
    private void Locked(Action action)
    {
        SafeFileHandle? entered = null;
        Try(() => entered = new NameRegistry(places).Enter());
        using (entered)
        {
            if (entered is not null)
                action();
        }
    }

    private void Write(string name)
    {
        if (OwnerIn(PathOf(name)) == owner)
            return;
        Try(() =>
        {
            Directory.CreateDirectory(places.Entries);
            AtomicFile.Write(PathOf(name), isDurable: false, stream => stream.Write(Encoding.UTF8.GetBytes(owner + "\n")), forAll: true);
        });
    }

    private string PathOf(string name) => Path.Combine(places.Registry, name + Suffix);

    private static string? OwnerIn(string path)
    {
        // A FIFO or a link that somebody put there is no reservation.
        if (FileStatus.TryGet(path, out FileStatus status, followLinks: false) != 0 || status.Type != FileType.Regular || status.SizeBytes > MaxBytes)
            return null;
        string? found = null;
        Try(() =>
        {
            using FileStream? file = ControlSyscalls.TryOpenOwnFile(path, "a reservation of a name");
            var bytes = new byte[MaxBytes];
            found = file is null ? null : Encoding.UTF8.GetString(bytes, 0, file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false)).TrimEnd('\n');
        });
        return string.IsNullOrEmpty(found) ? null : found;
    }

    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (IOException e) when (Exhaustion.RemedyOf(e.HResult) is { } remedy)
        {
            throw new CbdException(CbdErrorKind.Exhausted, $"names of devices cannot be reserved: {e.Message}{remedy}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException || (e is CbdException { Kind: CbdErrorKind.Denied or CbdErrorKind.Failed }))
        {
            // A daemon that may not write there attaches nothing either.
        }
    }
}
