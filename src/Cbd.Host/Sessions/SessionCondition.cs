namespace Cbd.Host.Sessions;

/// <summary>
/// May this host store into the region? One object for one claim of a host entry: whoever holds that of a claim that was
/// cleared stays fenced. Thread-safe.
/// </summary>
internal class SessionCondition
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
