using System.Text.Json;
using System.Text.Json.Serialization;
using Cbd.Host.Wanted;

namespace Cbd.Programs.Daemon.State;

/// <summary>The record of what a daemon has started, in the order of starting.</summary>
internal sealed record StateDocument
{
    public const int CurrentVersion = 2;

    public required int Version { get; init; }

    /// <summary>The machine that wrote it; left out by versions that did not look.</summary>
    public MachineIdentity? Machine { get; init; }
    public required IReadOnlyList<StateEntry> Entries { get; init; }
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
