using Cbd.Host.Devices;
using Cbd.Protocol.Blkdevs;

namespace Cbd.Host;

/// <summary>
/// A host in one process: transports, the backends it offers and the blkdevs it uses. Every verb of the control API is
/// one method. All methods are thread-safe and synchronous; they throw <see cref="Cbd.Memory.CbdException"/> with a
/// one-line message for the operator and have changed nothing then.
/// </summary>
internal interface INode : IDisposable
{
    /// <summary>Registers this host on a region, formatting it first if asked. Returns the transport id.</summary>
    int RegisterTransport(RegisterTransportOptions options);

    /// <summary>Leaves a transport. Refused while this host has backends or blkdevs on it (they are named).</summary>
    void UnregisterTransport(int transport);

    IReadOnlyList<TransportDescription> ListTransports();

    TransportDescription GetTransport(int transport);

    IReadOnlyList<HostDescription> ListHosts(int transport);

    /// <summary>Clears what a dead host left. Without proof of death: refused, unless forced or fenced.</summary>
    void ClearHost(int transport, int host, bool force, bool fenced);

    /// <summary>Offers a disk. Returns the backend id.</summary>
    int StartBackend(StartBackendOptions options);

    /// <summary>
    /// Stops a backend; refused while blkdevs use it, unless forced: they answer with EIO then until it is started again.
    /// </summary>
    void StopBackend(int transport, int backend, bool force);

    /// <summary>
    /// Gives a backend up because this host ends, not because somebody wants it stopped: blkdevs that use it wait for its
    /// next session.
    /// </summary>
    void LeaveBackend(int transport, int backend) => StopBackend(transport, backend, force: true);

    /// <summary>Clears a backend whose owner is gone, or a latched flush failure of our own.</summary>
    void ClearBackend(int transport, int backend, bool force, bool fenced);

    /// <summary>
    /// Makes a served backend of this host larger: to <paramref name="sizeBytes"/>, growing its disk if that has fewer and
    /// can be made larger from here; null: to what its disk has now. Never smaller. Devices notice by themselves.
    /// </summary>
    ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes);

    /// <summary>
    /// Puts other faults (see <see cref="StartBackendOptions.Faults"/>) in the place of those in force. What they held
    /// back goes on.
    /// </summary>
    void SetFaults(int transport, int backend, IReadOnlyList<string> faults);

    /// <summary>The backends of this host, or of all hosts.</summary>
    IReadOnlyList<BackendDescription> ListBackends(int transport, bool all);

    /// <summary>Starts a device on a backend and its export; answers when all queues are attached.</summary>
    StartedDevice StartDevice(StartDeviceOptions options);

    /// <summary>Stops a device of this host. Refused while clients are connected, unless forced.</summary>
    void StopDevice(int transport, int device, bool force);

    /// <summary>Clears a device whose host is dead.</summary>
    void ClearDevice(int transport, int device, bool force, bool fenced);

    IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all);

    IReadOnlyList<ChannelDescription> ListChannels(int transport);

    /// <summary>The last events of the channels of which this host has a side.</summary>
    IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter);
}

/// <summary>Options of tp-reg. Numbers that are null are computed from the size of the region.</summary>
internal sealed record RegisterTransportOptions
{
    public required string Host { get; init; }
    public required string Path { get; init; }
    public bool Format { get; init; }

    /// <summary>Format over anything but a transport with live hosts.</summary>
    public bool Force { get; init; }

    /// <summary>Size of a region file that is created or grown at format, bytes.</summary>
    public long? SizeBytes { get; init; }
    public int? Hosts { get; init; }
    public int? Backends { get; init; }
    public int? Blkdevs { get; init; }
    public int? Channels { get; init; }
    public long? ChannelSizeBytes { get; init; }
    public int? RingSlots { get; init; }

    /// <summary>Payload carries a CRC32C (format option; default yes).</summary>
    public bool PayloadCrc { get; init; } = true;

    /// <summary>"hardware" or null; required at format for devdax and BARs.</summary>
    public string? Coherence { get; init; }
}

/// <summary>Options of backend-start.</summary>
internal sealed record StartBackendOptions
{
    public int Transport { get; init; }

    /// <summary>A file, a block device, <c>memory:SIZE</c> or <c>null:SIZE</c>.</summary>
    public required string Path { get; init; }

    /// <summary>Handler threads, 1 to 128.</summary>
    public int Handlers { get; init; } = 1;

    /// <summary>Take over this backend id, whose session is gone.</summary>
    public int? Backend { get; init; }
    public bool ReadOnly { get; init; }

    /// <summary>"auto", "io_uring" or "pread".</summary>
    public string Engine { get; init; } = "auto";

    /// <summary>Logical block size to offer: 512, 4096, or null for the disk's own.</summary>
    public int? BlockBytes { get; init; }

    /// <summary>The operator vouches that the machine of the old session is off or cut off.</summary>
    public bool Fenced { get; init; }

    /// <summary>How the handler threads wait.</summary>
    public PollMode Mode { get; init; }

    /// <summary>
    /// Faults that strike its requests: each <c>KIND[,key=value…]</c>, or <c>off</c> alone, to be switched later. Null:
    /// none ever, and nothing on the way of requests.
    /// </summary>
    public IReadOnlyList<string>? Faults { get; init; }
}

/// <summary>Options of dev-start.</summary>
internal sealed record StartDeviceOptions
{
    public int Transport { get; init; }
    public required int Backend { get; init; }

    /// <summary>Queues, 1 to 128; null: min(CPUs, 4).</summary>
    public int? Queues { get; init; }

    /// <summary>
    /// How the device reaches this machine's kernel: "auto" (the best that it has, else NBD over a socket), "ublk",
    /// "nbd", "fuse" or "none" (NBD over a socket). Null: "none" if <see cref="Nbd"/> is given, else "auto".
    /// </summary>
    public string? Attach { get; init; }

    /// <summary>
    /// Address of the socket: <c>unix:PATH</c>, <c>tcp:HOST:PORT</c>, or <c>fd:NAME</c> for one that the service manager
    /// gave to this process; null: <c>&lt;run-dir&gt;/cbdN.nbd</c>. With a kind of attachment by name there is no socket, and
    /// it is refused.
    /// </summary>
    public string? Nbd { get; init; }

    /// <summary>How connections to the socket are encrypted; null: not at all.</summary>
    public TlsOptions? Tls { get; init; }

    /// <summary>Clients at once, those in their handshake included.</summary>
    public int NbdConnections { get; init; } = SocketOptions.DefaultConnections;

    /// <summary>A client whose handshakes, of TLS and of NBD together, take longer is dropped, seconds.</summary>
    public int NbdHandshakeSeconds { get; init; } = SocketOptions.DefaultHandshakeSeconds;

    /// <summary>Allow TCP on an address that is not loopback.</summary>
    public bool Insecure { get; init; }

    /// <summary>Open the device read-only.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>How the export's threads wait.</summary>
    public PollMode Mode { get; init; }

    /// <summary>What is done with requests while the backend is away.</summary>
    public OnBackendLoss OnBackendLoss { get; init; }

    /// <summary>With <see cref="OnBackendLoss.Queue"/>: they wait this many seconds, then fail; 0: for ever.</summary>
    public int LossTimeoutSeconds { get; init; }
}

/// <summary>
/// A backend that has its new size, bytes. <paramref name="Note"/> says, in one line, which devices of this node could not
/// show it to their users, and why; empty if there are none.
/// </summary>
internal sealed record ResizedBackend(long SizeBytes, string Note = "");

/// <summary>
/// A device that was started: its id and the node or NBD URI to use it with. <paramref name="Note"/> says what the user
/// may not expect, in one line; empty if there is nothing.
/// </summary>
internal sealed record StartedDevice(int Device, string Node, string Note = "");

/// <summary>A region, and the host entry that a node holds on it: what its transport info states. Offsets and sizes in bytes.</summary>
public sealed record TransportDescription
{
    /// <summary>Number of the registration within the node.</summary>
    public required int TransportId { get; init; }

    /// <summary>Magic of the format.</summary>
    public required ulong Magic { get; init; }

    /// <summary>Version of the format.</summary>
    public required int Version { get; init; }

    /// <summary>Flags of the transport info, as stored.</summary>
    public required uint Flags { get; init; }

    /// <summary>Where the host area begins.</summary>
    public required long HostAreaOffset { get; init; }

    /// <summary>Size of one host entry.</summary>
    public required int BytesPerHost { get; init; }

    /// <summary>Number of host entries.</summary>
    public required int HostCount { get; init; }

    /// <summary>Where the backend area begins.</summary>
    public required long BackendAreaOffset { get; init; }

    /// <summary>Size of one backend entry.</summary>
    public required int BytesPerBackend { get; init; }

    /// <summary>Number of backend entries.</summary>
    public required int BackendCount { get; init; }

    /// <summary>Where the blkdev area begins.</summary>
    public required long BlkdevAreaOffset { get; init; }

    /// <summary>Size of one blkdev entry.</summary>
    public required int BytesPerBlkdev { get; init; }

    /// <summary>Number of blkdev entries.</summary>
    public required int BlkdevCount { get; init; }

    /// <summary>Where the channel area begins.</summary>
    public required long ChannelAreaOffset { get; init; }

    /// <summary>Size of one channel.</summary>
    public required long BytesPerChannel { get; init; }

    /// <summary>Number of channels.</summary>
    public required int ChannelCount { get; init; }

    /// <summary>The host entry that this node holds there.</summary>
    public required int HostId { get; init; }

    /// <summary>The host's name.</summary>
    public required string HostName { get; init; }

    /// <summary>Path of the region.</summary>
    public required string Path { get; init; }

    /// <summary>How the caches of the hosts agree: "hardware".</summary>
    public required string Coherence { get; init; }

    /// <summary>Payload carries a CRC32C.</summary>
    public required bool PayloadCrc { get; init; }

    /// <summary>Slots of each ring of a channel: commands in flight at most.</summary>
    public required int RingSlots { get; init; }

    /// <summary>Size of the region.</summary>
    public required long SizeBytes { get; init; }

    /// <summary>Random id of the region, made when it was formatted.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>Empty while all is well; else why this transport serves nothing.</summary>
    public string Failure { get; init; } = "";

    /// <summary>Entries of each area that nobody may reuse until a death is proven or vouched for.</summary>
    public QuarantineCounts Quarantined { get; init; }
}

/// <summary>Quarantined entries of a transport, by area.</summary>
/// <param name="Hosts">Host entries.</param>
/// <param name="Backends">Backend entries.</param>
/// <param name="Blkdevs">Blkdev entries.</param>
/// <param name="Channels">Channels.</param>
public readonly record struct QuarantineCounts(int Hosts, int Backends, int Blkdevs, int Channels);

/// <summary>What threads used since they started: CPU time, and managed memory that they allocated.</summary>
/// <param name="CpuMicroseconds">CPU time, µs.</param>
/// <param name="AllocatedBytes">Managed memory, bytes.</param>
public readonly record struct ThreadUsage(long CpuMicroseconds, long AllocatedBytes);

/// <summary>
/// <paramref name="Alive"/> is "alive", "dead" or "unknown"; <paramref name="Quarantined"/> counts the backends, blkdevs and
/// channels that are quarantined under its id.
/// </summary>
internal sealed record HostDescription(int HostId, string HostName, string Alive, string State, bool Mine, int Quarantined = 0);

/// <summary>A backend: a disk that a host of the region offers. Sizes in bytes.</summary>
public sealed record BackendDescription
{
    /// <summary>Its id on the region.</summary>
    public required int BackendId { get; init; }

    /// <summary>Id of its host entry.</summary>
    public required int HostId { get; init; }

    /// <summary>Path of the disk on its host.</summary>
    public required string Path { get; init; }

    /// <summary>"alive", "dead" or "unknown".</summary>
    public required string Alive { get; init; }

    /// <summary>State of its entry: "active", "orphaned" and so on.</summary>
    public required string State { get; init; }

    /// <summary>Ids of the blkdevs on it.</summary>
    public required IReadOnlyList<int> Blkdevs { get; init; }

    /// <summary>Size of the disk.</summary>
    public required long SizeBytes { get; init; }

    /// <summary>Size of its logical blocks.</summary>
    public required int BlockBytes { get; init; }

    /// <summary>No blkdev may write to it.</summary>
    public required bool ReadOnly { get; init; }

    /// <summary>Threads that serve it.</summary>
    public required int Handlers { get; init; }

    /// <summary>How its host does the I/O: "io_uring", "pread", or, without system calls, the kind of its disk; empty if it cannot be read.</summary>
    public required string Engine { get; init; }

    /// <summary>0, or the errno of the flush that failed and latched.</summary>
    public required int FlushError { get; init; }

    /// <summary>Epoch of its claim: the number of this session, or of the last one.</summary>
    public ulong Session { get; init; }

    /// <summary>Its operator stopped it while blkdevs used it: they do not wait for it, but answer with EIO.</summary>
    public bool IsStopped { get; init; }

    /// <summary>What its handler threads used so far; null for backends of other hosts.</summary>
    public ThreadUsage? Usage { get; init; }

    /// <summary>The faults in force; null where there can be none, and for backends of other hosts.</summary>
    public IReadOnlyList<FaultDescription>? Faults { get; init; }
}

/// <summary>A fault in force on a backend, and how many requests it has struck.</summary>
/// <param name="Spec">The fault, as it was given.</param>
/// <param name="Struck">Requests.</param>
public sealed record FaultDescription(string Spec, long Struck);

internal sealed record DeviceDescription
{
    public required int BlkdevId { get; init; }
    public required int HostId { get; init; }
    public required int BackendId { get; init; }

    /// <summary>Node or NBD URI; empty for devices of other hosts.</summary>
    public required string Name { get; init; }

    /// <summary>The kernel's own node behind the name, e.g. <c>/dev/loop0</c>; empty where there is none.</summary>
    public string Node { get; init; } = "";
    public required string Alive { get; init; }

    /// <summary>
    /// For our own: "running", "waiting" (the backend is away, requests wait), "failing" (it is away, requests are answered
    /// with EIO until it is back), "failed: …" (for good); for others the claim's state.
    /// </summary>
    public required string State { get; init; }

    /// <summary>Why a device of ours is not running; empty while it is, and for those of other hosts.</summary>
    public string Loss { get; init; } = "";

    /// <summary>As it was started; null for devices of other hosts.</summary>
    public LossPolicy? LossPolicy { get; init; }
    public required int Queues { get; init; }
    public required long SizeBytes { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>What its user may not expect, in one line, for our own: that its node has not the size it could have.</summary>
    public string Note { get; init; } = "";
}

internal sealed record ChannelDescription
{
    public required int ChannelId { get; init; }

    /// <summary>−1 where it cannot be told.</summary>
    public required int BlkdevId { get; init; }
    public required int BackendId { get; init; }
    public required int HostId { get; init; }
    public required string State { get; init; }
    public required ulong Epoch { get; init; }
    public required long Outstanding { get; init; }
    public required bool Quarantined { get; init; }
}

/// <summary>How a node gives its devices to users; implemented by the exports, called by the node.</summary>
internal interface IExportFactory
{
    /// <summary>
    /// Checks the address and binds it; <paramref name="address"/> as in <see cref="StartDeviceOptions.Nbd"/>, already
    /// defaulted. The export serves nothing until <see cref="IExport.Serve"/>.
    /// </summary>
    IExport Open(string address, SocketOptions options);
}

/// <summary>One export: an address that clients connect to and, once it serves, a device behind it.</summary>
internal interface IExport : IDisposable
{
    /// <summary>What a client connects to, e.g. <c>nbd+unix:///?socket=/run/cbd/cbd0.nbd</c>.</summary>
    string Uri { get; }

    /// <summary>Clients connected now.</summary>
    int ClientCount { get; }

    /// <summary>
    /// Starts serving <paramref name="device"/> on threads of the export's own. <paramref name="queues"/> queues are
    /// opened from it, each driven by one thread, which waits as <paramref name="mode"/> says.
    /// </summary>
    void Serve(Cbd.Blocks.IBlockDevice device, int queues, PollMode mode);

    /// <summary>The kernel's own node, where there is one and it is there.</summary>
    string Node => "";

    /// <summary>What the one who started it may not expect, in one line; empty if there is nothing.</summary>
    string Note => "";

    /// <summary>Who uses it, and what they must do so that it can be stopped, as the rest of "it is in use"; null if nobody does.</summary>
    string? DescribeUse() => ClientCount == 0 ? null : $"by {ClientCount} client(s) of {Uri}: disconnect them";

    /// <summary>
    /// The device has another size, and this says so to those who use it, where they do not see it by themselves.
    /// Throws Unsupported where that cannot be done.
    /// </summary>
    void Resize()
    {
    }

    /// <summary>
    /// Stops accepting, ends the connections after their requests were answered, and closes the queues. Not forced it
    /// may throw Busy, because it is in use after all, and serves on then.
    /// </summary>
    void Stop(bool force);
}
