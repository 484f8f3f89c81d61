using System.Text;
using Cbd.Host;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>
/// The name of a device in this machine's <c>/dev</c>: <c>/dev/cbd0</c>, a link to the kernel's node. One daemon of the
/// machine has a name at a time, for as long as it lives.
/// </summary>
/// <remarks>
/// The kernel gives a node's number to the next who asks. So the link is removed before the node is given back; while
/// both are there, the daemon has the name (<see cref="HeldName"/>) and the node.
/// </remarks>
internal sealed class DeviceLink : IDisposable
{
    private readonly AttachPlaces _places;
    private readonly HeldName _held;
    private readonly Guid _region;
    private readonly string _name;

    private DeviceLink(AttachPlaces places, string name, Guid region, HeldName held)
    {
        _places = places;
        _name = name;
        _region = region;
        _held = held;
    }

    /// <summary>The link, e.g. <c>/dev/cbd0</c>.</summary>
    internal string Path => _held.Link;

    /// <summary>
    /// Takes a name. What a killed daemon left of it is removed, unless the device goes on; anything else that is there refuses, by name.
    /// </summary>
    internal static DeviceLink Take(AttachPlaces places, string name, Guid region, bool goesOn = false)
    {
        string path = places.LinkOf(name);
        HeldName held = new NameRegistry(places).TryTake(name, goesOn) ??
            throw Taken(path, $"it belongs to a running cbdd, pid {NameRecord.Read(places.LockOf(name)).Process}");
        try
        {
            string node = goesOn ? held.Node : "";
            if (node.Length == 0 || new FileInfo(path).LinkTarget is not { } target || System.IO.Path.GetFileName(target) != node)
            {
                // The users of what goes on are there already: whatever is at its name now, it is served.
                if (goesOn)
                    held.Forget();
                else
                    RemoveDangling(path);
                node = "";
            }

            held.Record(node);
            return new DeviceLink(places, name, region, held);
        }
        catch (Exception e)
        {
            held.Dispose();
            if (e is IOException or UnauthorizedAccessException)
                throw new CbdException(e is UnauthorizedAccessException ? CbdErrorKind.Denied : AtomicFile.KindOf(e), $"cannot take the name '{path}': {AtomicFile.Describe(e)}", e);
            throw;
        }
    }

    /// <summary>Makes the link. The node is the kernel's.</summary>
    internal void Point(string node)
    {
        string kernelName = System.IO.Path.GetFileName(node);
        try
        {
            _held.Record(kernelName);
            AtomicFile.Write(_places.EntryOf(kernelName), isDurable: false, stream => stream.Write(Encoding.ASCII.GetBytes($"{AttachPlaces.RelativeLinkOf(_name)} {_region:D}\n")), forAll: true);
            if (new FileInfo(Path).LinkTarget is { } there && System.IO.Path.GetFileName(there) == kernelName)
                return;
            _places.MakeLink(_name, node);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(AtomicFile.KindOf(e), $"cannot make the link '{Path}' to {node}: {AtomicFile.Describe(e)}", e);
        }

        // udev looks at the device again, and finds the name that it has now.
        TryWrite($"/sys/class/block/{kernelName}/uevent", "change");
    }

    /// <summary>Takes the link away and keeps the name; before the node is given back. Any number of times.</summary>
    internal void Remove()
    {
        if (_held.IsGivenBack)
            return;
        try
        {
            _held.Forget();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"cannot remove the link '{Path}', which would lead to another device soon: {e.Message}; remove it by hand", e);
        }
    }

    /// <summary>Gives the name back. A link that is still there is removed by the next daemon that cleans up.</summary>
    public void Dispose() => _held.Dispose();

    private static void RemoveDangling(string path)
    {
        var there = new FileInfo(path);
        if (there.LinkTarget is { } target)
        {
            if (there.ResolveLinkTarget(returnFinalTarget: true) is { Exists: true })
                throw Taken(path, $"it is a link to {target} that cbdd did not make");
            File.Delete(path);
        }
        else if (there.Exists || Directory.Exists(path))
        {
            throw Taken(path, "it is there already, and is no link");
        }
    }

    private static CbdException Taken(string path, string why) =>
        new(CbdErrorKind.Busy, $"{path} is taken: {why}; start the device with another --name, or with --attach none");

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
