using System.Globalization;
using System.Text;
using Cbd.Memory;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Host.Attachments;

/// <summary>
/// The name of a device in this machine's <c>/dev</c>: <c>/dev/cbd0</c>, a link to the kernel's node. One daemon of the
/// machine has a name at a time, for as long as it lives: a lock in the registry, which the kernel gives back.
/// </summary>
/// <remarks>
/// The registry has <c>NAME.lock</c>, empty unless the name is in use: process and node; and <c>by-node/NODE</c> with
/// the name and the region of the device that is this node, for udev's rule and for <see cref="StackedDisk"/>.
/// </remarks>
internal sealed class DeviceLink : IDisposable
{
    private readonly AttachPlaces _places;
    private readonly SafeFileHandle _lock;
    private readonly Guid _region;
    private readonly string _name;
    private string _node = "";

    private DeviceLink(AttachPlaces places, string name, Guid region, SafeFileHandle taken)
    {
        _places = places;
        _name = name;
        _region = region;
        _lock = taken;
    }

    /// <summary>The link, e.g. <c>/dev/cbd0</c>.</summary>
    internal string Path => System.IO.Path.Combine(_places.Nodes, _name);

    /// <summary>
    /// Takes a name. What a killed daemon left of it is removed; anything else that is there refuses, by name.
    /// </summary>
    internal static DeviceLink Take(AttachPlaces places, string name, Guid region)
    {
        SafeFileHandle file;
        string lockPath = System.IO.Path.Combine(places.Registry, $"{name}.lock");
        try
        {
            Directory.CreateDirectory(System.IO.Path.Combine(places.Registry, "by-node"));
            file = ControlSyscalls.OpenLockFile(lockPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Denied, $"cannot use '{places.Registry}', where the names of devices are kept: {e.Message}", e);
        }

        var link = new DeviceLink(places, name, region, file);
        try
        {
            if (!ControlSyscalls.TryLockExclusive(file, lockPath))
                throw link.Taken($"it belongs to a running cbdd, pid {ReadRecord(file).Process}");
            (string process, string node) = ReadRecord(file);
            if (node.Length > 0)
                link.ForgetNode(node);
            link.RemoveLeftover(isOurs: process.Length > 0);
            link.WriteRecord("");
            return link;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Makes the link. The node is the kernel's.</summary>
    internal void Point(string node)
    {
        string kernelName = System.IO.Path.GetFileName(node);
        try
        {
            WriteRecord(kernelName);
            _node = kernelName;
            File.WriteAllText(ByNode(kernelName), $"{_name} {_region:D}\n");
            if (new FileInfo(Path).LinkTarget is { } there && System.IO.Path.GetFileName(there) == kernelName)
                return;
            File.CreateSymbolicLink(Path, node);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"cannot make the link '{Path}' to {node}: {e.Message}", e);
        }

        // udev looks at the device again, and finds the name that it has now.
        TryWrite($"/sys/class/block/{kernelName}/uevent", "change");
    }

    /// <summary>Takes the link away and keeps the name.</summary>
    internal void Remove()
    {
        if (_node.Length > 0)
            ForgetNode(_node);
        _node = "";
        try
        {
            if (new FileInfo(Path).LinkTarget is not null)
                File.Delete(Path);
            RandomAccess.SetLength(_lock, 0);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A link to nothing is taken for a leftover by the next who wants the name.
        }
    }

    public void Dispose()
    {
        if (!_lock.IsClosed)
            Remove();
        _lock.Dispose();
    }

    private void RemoveLeftover(bool isOurs)
    {
        var there = new FileInfo(Path);
        if (there.LinkTarget is { } target)
        {
            if (!isOurs && there.ResolveLinkTarget(returnFinalTarget: true) is { Exists: true })
                throw Taken($"it is a link to {target} that cbdd did not make");
            File.Delete(Path);
        }
        else if (there.Exists || Directory.Exists(Path))
        {
            throw Taken("it is there already, and is no link");
        }
    }

    private CbdException Taken(string why) =>
        new(CbdErrorKind.Busy, $"{Path} is taken: {why}; remove that, or start the device with --attach none");

    /// <summary>The entry of a node, unless it is another device's by now.</summary>
    private void ForgetNode(string kernelName)
    {
        try
        {
            if (File.ReadAllText(ByNode(kernelName)).Split(' ')[0] == _name)
                File.Delete(ByNode(kernelName));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It is gone, or tells udev a name that is not given any more.
        }
    }

    private string ByNode(string kernelName) => System.IO.Path.Combine(_places.Registry, "by-node", kernelName);

    private void WriteRecord(string kernelName)
    {
        byte[] text = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId} {kernelName}\n"));
        RandomAccess.SetLength(_lock, 0);
        RandomAccess.Write(_lock, text, 0);
    }

    private static (string Process, string Node) ReadRecord(SafeFileHandle file)
    {
        Span<byte> bytes = stackalloc byte[256];
        int length = RandomAccess.Read(file, bytes, 0);
        string[] words = Encoding.ASCII.GetString(bytes[..length]).TrimEnd('\n').Split(' ');
        string node = words.Length > 1 && words[1].All(char.IsAsciiLetterOrDigit) ? words[1] : "";
        return (words[0], node);
    }

    private static void TryWrite(string path, string text)
    {
        try
        {
            File.WriteAllText(path, text);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without it, udev's own names for the device come with its next event.
        }
    }
}
