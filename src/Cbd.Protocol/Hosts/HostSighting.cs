using Cbd.Protocol.Format;

namespace Cbd.Protocol.Hosts;

/// <summary>What an observer knows of one host entry.</summary>
/// <param name="Host">Id of the entry.</param>
/// <param name="Word">Its claim word at the last sample.</param>
/// <param name="Body">The newest body of that claim; null if there is none (yet), or none that is whole.</param>
/// <param name="Liveness">Alive, dead or unknown.</param>
/// <param name="Settled">More waiting changes nothing, unless the host itself moves.</param>
internal readonly record struct HostSighting(int Host, ClaimWord Word, HostBody? Body, Liveness Liveness, bool Settled)
{
    /// <summary>Its name, or its id where no name can be read.</summary>
    public string Name => Body is null ? $"#{Host}" : Body.Name;
}
