using System.Text.Json;
using System.Text.Json.Serialization;

namespace Cbd.Programs.Daemon.State;

/// <summary>The record of what a daemon has started, in the order of starting.</summary>
internal sealed record StateDocument
{
    public const int CurrentVersion = 2;

    public required int Version { get; init; }
    public required IReadOnlyList<StateEntry> Entries { get; init; }
}

/// <summary>What is being done to a thing of the record.</summary>
internal enum StateIntent
{
    /// <summary>It is being started, and nobody was told that it is there.</summary>
    Starting = 0,

    /// <summary>It is being stopped.</summary>
    Stopping = 1,
}

/// <summary>
/// One started thing: exactly one of the three is there. Things name their transport by the region's path, which is
/// registered once per daemon; transport ids change from run to run.
/// </summary>
internal sealed record StateEntry
{
    public TransportEntry? Transport { get; init; }
    public BackendEntry? Backend { get; init; }
    public DeviceEntry? Device { get; init; }

    /// <summary>Left out: it is wanted, and nothing is being done to it.</summary>
    public StateIntent? Intent { get; init; }

    /// <summary>Why it is not started again, until it is stopped and started by hand; left out: it is.</summary>
    public string? Failed { get; init; }

    /// <summary>How often the daemon died while it was started, one time after the other; left out: 0.</summary>
    public int? Deaths { get; init; }

    /// <summary>Read from the file and not started in this run (yet).</summary>
    [JsonIgnore]
    public bool IsPending { get; init; }

    /// <summary>It is pending, and not tried: this run was not told to restore.</summary>
    [JsonIgnore]
    public bool IsHeld { get; init; }

    /// <summary>Why it is pending; null before it was tried.</summary>
    [JsonIgnore]
    public string? Reason { get; init; }

    /// <summary>Tells the entries of one run apart; 0 outside of a record.</summary>
    [JsonIgnore]
    public int Number { get; init; }

    /// <summary>The region that it is on.</summary>
    [JsonIgnore]
    public string Region => Transport?.Region ?? Backend?.Region ?? Device!.Region;
}

/// <summary>Format options are left out on purpose: a restore must never format.</summary>
internal sealed record TransportEntry
{
    public required string Region { get; init; }
    public required string Host { get; init; }
    public string? Coherence { get; init; }
}

internal sealed record BackendEntry
{
    public required string Region { get; init; }
    public required int BackendId { get; init; }
    public required string Path { get; init; }
    public required int Handlers { get; init; }
    public required bool ReadOnly { get; init; }
    public required string Engine { get; init; }
    public int? BlockSize { get; init; }

    /// <summary>Left out: adaptive.</summary>
    public string? Mode { get; init; }
}

internal sealed record DeviceEntry
{
    public required string Region { get; init; }
    public required int BlkdevId { get; init; }

    /// <summary>What the device is called; left out by versions that did not name devices.</summary>
    public string? Name { get; init; }
    public required int BackendId { get; init; }

    /// <summary>The disk behind the backend, so that a restore does not take another one under the same id.</summary>
    public required string BackendPath { get; init; }
    public int? Queues { get; init; }
    public string? Attach { get; init; }
    public string? Nbd { get; init; }

    /// <summary>Left out: no TLS.</summary>
    public TlsEntry? Tls { get; init; }

    /// <summary>Left out: the default.</summary>
    public int? NbdConnections { get; init; }
    public int? NbdHandshakeSeconds { get; init; }
    public required bool Insecure { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>Left out: adaptive.</summary>
    public string? Mode { get; init; }

    /// <summary>Left out: queue.</summary>
    public string? OnBackendLoss { get; init; }

    /// <summary>Seconds; left out: for ever.</summary>
    public int? LossTimeout { get; init; }
}

/// <summary>TLS of a device's socket. The files themselves are read anew.</summary>
internal sealed record TlsEntry
{
    public required bool Require { get; init; }
    public required string Certificates { get; init; }
    public required bool VerifyPeer { get; init; }
    public required IReadOnlyList<string> Allow { get; init; }

    public static TlsEntry? From(TlsOptions? options) => options is null ? null : new()
    {
        Require = options.Require,
        Certificates = options.Certificates,
        VerifyPeer = options.VerifyPeer,
        Allow = options.Allow,
    };

    public TlsOptions ToOptions() => new() { Require = Require, Certificates = Certificates, VerifyPeer = VerifyPeer, Allow = Allow };
}

/// <summary>How the record is written; unknown, repeated and missing keys are refused.</summary>
[JsonSourceGenerationOptions(
    WriteIndented = true,
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    UseStringEnumConverter = true,
    AllowDuplicateProperties = false)]
[JsonSerializable(typeof(StateDocument))]
internal sealed partial class StateJson : JsonSerializerContext;
