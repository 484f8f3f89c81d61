using Cbd.Host.Wanted;

namespace Cbd.Programs.Daemon.State;

/// <summary>Where each thing of a record stands, by the lists of the host.</summary>
internal sealed class WantedList(IControl control, StateRecord record)
{
    public IReadOnlyList<WantedThing> Describe()
    {
        var transports = control.Execute(Operations.ListTransports, new ControlRequest()).ToDictionary(t => t.Path);
        var backends = new Dictionary<int, IReadOnlyList<BackendDescription>>();
        var devices = new Dictionary<int, IReadOnlyList<DeviceDescription>>();
        foreach (var transport in transports.Values.ToList())
        {
            var own = new ListRequest { Transport = transport.TransportId };
            try
            {
                backends[transport.TransportId] = control.Execute(Operations.ListBackends, own);
                devices[transport.TransportId] = control.Execute(Operations.ListDevices, own);
            }
            catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound)
            {
                // It was left in this moment.
                transports.Remove(transport.Path);
            }
        }

        // A stop that is to be finished is of what nobody wants.
        return [.. record.Entries.Where(e => e is not { IsPending: true, Intent: StateIntent.Stopping, Failed: null }).Select(entry =>
        {
            var transport = transports.GetValueOrDefault(entry.Region);
            return entry.Failed is { } failure ? Thing(entry, transport, null, WantedThing.Failed, failure)
                : entry.Held is { } held ? Thing(entry, transport, null, WantedThing.Held, held)
                : entry.Intent == StateIntent.Starting ? Thing(entry, transport, null, WantedThing.Waiting, record.WaitsOf(entry.Number) is { Length: > 0 } waits ? $"it is being started: {waits}" : "it is being started")
                : entry.IsPending || transport is null ? Pending(entry, transport)
                : entry.Transport is not null ? Thing(entry, transport, null, transport.State, transport.Failure)
                : entry.Backend is { } b ? Backend(entry, b, transport, backends[transport.TransportId])
                : Device(entry, entry.Device!, transport, devices[transport.TransportId]);
        })];
    }

    private static WantedThing Backend(StateEntry entry, BackendEntry wanted, TransportDescription transport, IReadOnlyList<BackendDescription> own) =>
        own.FirstOrDefault(b => b.BackendId == wanted.BackendId) is { } backend
            ? Thing(entry, transport, backend.BackendId, string.Equals(backend.State, "active", StringComparison.OrdinalIgnoreCase) ? WantedThing.Running : backend.State, backend.Reason)
            : Thing(entry, transport, null, WantedThing.Waiting, transport.Failure.Length > 0 ? transport.Failure : "this host does not serve it now");

    private static WantedThing Device(StateEntry entry, DeviceEntry wanted, TransportDescription transport, IReadOnlyList<DeviceDescription> own)
    {
        if (own.FirstOrDefault(d => d.Name == wanted.Name && d.BlkdevId == wanted.BlkdevId) is not { } device)
            return Thing(entry, transport, null, WantedThing.Waiting, "it is not there now");
        var failed = device.State.StartsWith("failed", StringComparison.Ordinal);
        return Thing(entry, transport, device.BlkdevId,
            failed ? WantedThing.Failed : device.State == WantedThing.Running ? WantedThing.Running : WantedThing.Waiting,
            device.Reason ?? device.Loss);
    }

    private static WantedThing Pending(StateEntry entry, TransportDescription? transport) =>
        Thing(entry, transport, null, StateOf(entry), ReasonOf(entry));

    /// <summary>How something stands that is wanted and not there.</summary>
    public static string StateOf(StateEntry entry) =>
        entry.Failed is not null || (entry.IsBlocked && entry.Held is null) ? WantedThing.Failed
        : entry.Held is not null ? WantedThing.Held
        : WantedThing.Waiting;

    /// <summary>Why it is not there.</summary>
    public static string ReasonOf(StateEntry entry) => entry.Failed ?? entry.Held ?? entry.Reason ?? "it has not been tried yet";

    public static string KindOf(StateEntry entry) =>
        entry.Transport is not null ? WantedThing.Transport : entry.Backend is not null ? WantedThing.Backend : WantedThing.Device;

    public static string NameOf(StateEntry entry) => entry.Transport?.Region ?? entry.Backend?.Path ?? entry.Device!.Name ?? $"{entry.Device!.BlkdevId}";

    private static WantedThing Thing(StateEntry entry, TransportDescription? transport, int? id, string state, string? reason) => new()
    {
        Kind = KindOf(entry),
        Name = NameOf(entry),
        State = state,
        Reason = state == WantedThing.Running ? null : reason,
        TransportId = transport?.TransportId,
        Id = id,
    };
}
