using Cbd.Protocol.Channels;
using Cbd.Protocol.Records;

namespace Cbd.Host.Devices;

/// <summary>What a device is to be.</summary>
internal sealed record DeviceWish
{
    /// <summary>Id of the backend.</summary>
    public required int Backend { get; init; }

    /// <summary>The disk that the backend must have; null: whichever it has.</summary>
    public string? Identity { get; init; }

    public bool ReadOnly { get; init; }

    /// <summary>Number of queues, each on a channel of its own.</summary>
    public required int Queues { get; init; }

    /// <summary>What is done with requests while the backend is away.</summary>
    public LossPolicy Loss { get; init; }

    /// <summary>It waits no longer than this, milliseconds, before it serves; null: the usual times.</summary>
    public int? WaitMs { get; init; }

    /// <summary>What survives this process; null: the device ends with it.</summary>
    public DeviceRecord? Record { get; init; }

    /// <summary>It goes on with what an earlier process of this host left, as <see cref="Record"/> says: backend and queues are the record's.</summary>
    public bool Adopts { get; init; }

    public QueueOptions QueueOptions { get; init; } = new();
}
