using Cbd.Memory;

namespace Cbd.Protocol.Backends;

/// <summary>Another host began with the same disk at the same moment. The claim was given up.</summary>
/// <param name="backend">The entry that it has.</param>
/// <param name="path">The disk, as this host calls it.</param>
internal sealed class RivalClaimException(int backend, string path)
    : CbdException(CbdErrorKind.Busy, $"'{path}' is being started by another host as backend {backend} right now: see backend-list --all, and try again");
