using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>
/// Growth: a backend of this host gets another size, and devices of this host, whoever serves their backend, show theirs
/// to their users.
/// </summary>
internal sealed partial class TransportService
{
    /// <summary>Makes a backend larger; answers when this host's own devices on it have been told, too.</summary>
    public ResizedBackend ResizeBackend(int backend, long? sizeBytes)
    {
        lock (_verbs)
        {
            CheckUsable();
            long before;
            BackendService service;
            lock (_lock)
            {
                if (!_backends.TryGetValue(backend, out service!))
                    throw NotOurs(backend);
                before = service.Claim.Body.SizeBytes;
            }

            long size = service.Resize(sizeBytes);
            if (size != before)
                _logger.LogInformation("backend {Backend}: size {Before} -> {Size} bytes", backend, before, size);
            AnnounceChange();
            return new ResizedBackend(size, string.Join("; ", ShowSizes(backend)));
        }
    }

    private CbdException NotOurs(int backend)
    {
        int owner = FindListing(backend).Word.Host;
        return new CbdException(CbdErrorKind.Denied, $"backend {backend} belongs to host {owner}, not to this one: resize it there");
    }

    /// <summary>Own devices on the backend see its size at once; what they could not show is returned, in words.</summary>
    private List<string> ShowSizes(int backend)
    {
        var notes = new List<string>();
        foreach (DeviceService device in Devices())
        {
            if (device.Backend != backend)
                continue;
            lock (_lock)
                device.WatchBackend(Tracker);
            device.ShowSize();
            if (device.Note.Length > 0)
                notes.Add($"device {device.Device}: {device.Note}");
        }

        return notes;
    }

    /// <summary>
    /// A device whose backend has another size now tells its users. They may have to be waited for, which housekeeping
    /// must not do.
    /// </summary>
    private void ShowSizeSoon(DeviceService device)
    {
        if (!device.TryBeginShowing())
            return;
        ThreadPool.UnsafeQueueUserWorkItem(
            _ =>
            {
                lock (_verbs)
                {
                    device.EndShowing();
                    if (!_closed && Devices().Contains(device))
                        device.ShowSize();
                }
            },
            null);
    }
}
