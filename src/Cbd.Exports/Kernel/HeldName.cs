using System.Globalization;
using System.Text;
using Cbd.Memory;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Exports.Kernel;

/// <summary>
/// The name of a device on this machine, held by this process: nobody else has it until this object is disposed or the
/// process ends. The kernel gives the lock back then, so a name that can be held belongs to no living daemon.
/// </summary>
internal sealed class HeldName : IDisposable
{
    private readonly AttachPlaces _places;
    private readonly string _name;
    private readonly SafeFileHandle _lock;

    private HeldName(AttachPlaces places, string name, SafeFileHandle taken)
    {
        _places = places;
        _name = name;
        _lock = taken;
    }

    /// <summary>The link, e.g. <c>/dev/cbd0</c>.</summary>
    internal string Link => _places.LinkOf(_name);

    internal bool IsGivenBack => _lock.IsClosed;

    /// <summary>The process that wrote the record last; empty if it gave the name back.</summary>
    internal string Process => NameRecord.Read(_lock).Process;

    /// <summary>The kernel's node that the name led to last; empty if there is none.</summary>
    internal string Node => NameRecord.Read(_lock).Node;

    /// <summary>Null if a living daemon has the name. Throws <see cref="IOException"/> or UnauthorizedAccessException.</summary>
    internal static HeldName? TryHold(AttachPlaces places, string name)
    {
        string path = places.LockOf(name);
        SafeFileHandle file = ControlSyscalls.OpenLockFile(path);
        try
        {
            if (ControlSyscalls.TryLockExclusive(file, path))
                return new HeldName(places, name, file);
        }
        catch
        {
            file.Dispose();
            throw;
        }

        file.Dispose();
        return null;
    }

    /// <summary>Writes down that the name is in use, before anything that leads to the node is made.</summary>
    /// <param name="kernelName">The node's name, e.g. <c>loop0</c>; empty as long as there is none.</param>
    internal void Record(string kernelName)
    {
        byte[] text = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId} {kernelName}\n"));
        // A process that dies between the two leaves a whole first line.
        RandomAccess.Write(_lock, text, 0);
        RandomAccess.SetLength(_lock, text.Length);
    }

    /// <summary>
    /// Removes everything that leads from this name to a node: the entries for udev, then the link, then the record. A link
    /// that leads elsewhere is not ours and stays. The record stays if an exception ends this, so that the next tries again.
    /// </summary>
    /// <returns>There was something.</returns>
    internal bool Forget()
    {
        bool found = false;
        NameRecord record = NameRecord.Read(_lock);
        HashSet<string> nodes = [.. _places.NodesOf(_name)];
        if (record.Node.Length > 0)
            nodes.Add(record.Node);
        foreach (string node in nodes)
            found |= Forget(node);
        if (record.Process.Length > 0)
            RandomAccess.SetLength(_lock, 0);
        return found;
    }

    /// <summary><see cref="Forget()"/> for one node alone; the record is left.</summary>
    internal bool Forget(string kernelName)
    {
        bool found = false;
        // The entry goes first: as long as it is there, udev makes the link again.
        if (_places.NameAt(kernelName) == _name)
        {
            File.Delete(_places.EntryOf(kernelName));
            found = true;
        }

        if (new FileInfo(Link).LinkTarget is { } target && Path.GetFileName(target) == kernelName)
        {
            File.Delete(Link);
            _places.RemoveEmpty();
            found = true;
        }

        return found;
    }

    public void Dispose() => _lock.Dispose();
}

/// <summary>What <c>NAME.lock</c> says, "PROCESS NODE"; untrusted, and empty if the name is not in use.</summary>
internal readonly record struct NameRecord(string Process, string Node)
{
    internal static NameRecord Read(SafeFileHandle file)
    {
        Span<byte> bytes = stackalloc byte[256];
        int length = RandomAccess.Read(file, bytes, 0);
        string[] words = Encoding.ASCII.GetString(bytes[..length]).Split('\n')[0].Split(' ');
        string node = words.Length > 1 && words[1].All(char.IsAsciiLetterOrDigit) ? words[1] : "";
        return new NameRecord(words[0], node);
    }

    /// <summary>Of a name that another daemon may have; empty if there is none.</summary>
    internal static NameRecord Read(string path)
    {
        try
        {
            using FileStream? file = ControlSyscalls.TryOpenOwnFile(path, "the lock file of a name");
            return file is null ? new NameRecord("", "") : Read(file.SafeFileHandle);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new NameRecord("", "");
        }
    }
}
