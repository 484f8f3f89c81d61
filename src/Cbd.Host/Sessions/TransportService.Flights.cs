using Cbd.Protocol.Channels;
using Cbd.Memory;
using Cbd.Host.Backends;
using Cbd.Host.Devices;

namespace Cbd.Host.Sessions;

/// <summary>The flight recorders of a transport's channels, as far as this host has a side of them.</summary>
internal sealed partial class TransportService
{
    public IReadOnlyList<FlightDescription> ReadFlights(FlightFilter filter)
    {
        var found = new List<(FlightRecorder Flight, string Side, int Backend, int Blkdev)>();
        lock (_lock)
        {
            CheckOpen();
            CheckThere(filter);
            var channels = new HashSet<int>();
            foreach (DeviceService device in _devices.Values.Where(d => filter.Device is null || d.Device == filter.Device))
            {
                channels.UnionWith(device.Flights.Select(f => f.Channel));
                found.AddRange(device.Flights.Where(f => Covers(filter, device.Backend, f)).Select(f => (f, "queue", device.Backend, device.Device)));
            }

            foreach (BackendService served in _backends.Values)
            {
                found.AddRange(served.Flights
                    .Where(f => Covers(filter, served.Backend, f) && (filter.Device is null || channels.Contains(f.Channel)))
                    .Select(f => (f, "handler", served.Backend, -1)));
            }
        }

        // Housekeeping must not wait while all this is copied and put into words.
        return [.. found.OrderBy(f => f.Flight.Channel).Select(f => FlightText.Describe(f.Flight, Id, f.Side, f.Backend, f.Blkdev))];
    }

    private void CheckThere(FlightFilter filter)
    {
        if (filter.Device is { } device && !_devices.ContainsKey(device))
            throw new CbdException(CbdErrorKind.NotFound, $"device {device} is not one of this host on transport {Id}: see dev-list, and ask the daemon that has it");
        if (filter.Backend is { } backend && !_backends.ContainsKey(backend) && !_devices.Values.Any(d => d.Backend == backend))
            throw new CbdException(CbdErrorKind.NotFound, $"neither backend {backend} nor a device on it is this host's on transport {Id}: see backend-list and dev-list --all");
    }

    private static bool Covers(FlightFilter filter, int backend, FlightRecorder flight) =>
        (filter.Backend is null || filter.Backend == backend) && (filter.Channel is null || filter.Channel == flight.Channel);
}
