using Cbd.Channels;
using Cbd.Memory;
using Cbd.Runtime.Backends;
using Cbd.Runtime.Blkdevs;

namespace Cbd.Runtime.Transports;

/// <summary>The flight recorders of a transport's channels, as far as this host has a side of them.</summary>
internal sealed partial class TransportService
{
    public IReadOnlyList<FlightDescription> ReadFlights(FlightFilter filter)
    {
        lock (_lock)
        {
            CheckOpen();
            if (filter.Device is { } wanted && !_devices.ContainsKey(wanted))
                throw new CbdException(CbdErrorKind.NotFound, $"device {wanted} is not one of this host on transport {Id}: see dev-list, and ask the daemon that has it");
            if (filter.Backend is { } backend && !_backends.ContainsKey(backend) && !_devices.Values.Any(d => d.Backend == backend))
                throw new CbdException(CbdErrorKind.NotFound, $"neither backend {backend} nor a device on it is this host's on transport {Id}: see backend-list and dev-list --all");
            var found = new List<FlightDescription>();
            var channels = new HashSet<int>();
            foreach (DeviceService device in _devices.Values.Where(d => filter.Device is null || d.Device == filter.Device))
            {
                foreach (FlightRecorder flight in device.Flights)
                {
                    channels.Add(flight.Channel);
                    if (Covers(filter, device.Backend, flight))
                        found.Add(FlightText.Describe(flight, Id, "queue", device.Backend, device.Device));
                }
            }

            foreach (BackendService served in _backends.Values)
            {
                foreach (FlightRecorder flight in served.Flights)
                {
                    if (Covers(filter, served.Backend, flight) && (filter.Device is null || channels.Contains(flight.Channel)))
                        found.Add(FlightText.Describe(flight, Id, "handler", served.Backend, -1));
                }
            }

            return [.. found.OrderBy(f => f.ChannelId)];
        }
    }

    private static bool Covers(FlightFilter filter, int backend, FlightRecorder flight) =>
        (filter.Backend is null || filter.Backend == backend) && (filter.Channel is null || filter.Channel == flight.Channel);
}
