namespace Cbd.Runtime.Transports;

/// <summary>What every thread that works on a transport must know of it. Written by its housekeeping, read by all.</summary>
internal sealed class TransportCondition
{
    private volatile string? _failure;
    private volatile bool _hasRemoteHosts;

    /// <summary>Why nothing may be stored into the region any more; null while all is well.</summary>
    public string? Failure => _failure;

    /// <summary>Nothing may be stored into the region any more.</summary>
    public bool IsFenced => _failure is not null;

    /// <summary>Some host runs on another kernel: no doorbell of ours reaches it, and none of its reaches us.</summary>
    public bool HasRemoteHosts
    {
        get => _hasRemoteHosts;
        set => _hasRemoteHosts = value;
    }

    /// <summary>False if it had failed before; the first reason stays.</summary>
    public bool TryFail(string why) => Interlocked.CompareExchange(ref _failure, why, null) is null;
}
