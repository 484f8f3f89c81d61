using Cbd.Memory;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// What workers are started from. The program of an upgrade is on trial from its first start until it is ready, and is taken back if it ends
/// before. One thread at a time.
/// </summary>
/// <param name="own">The program of the supervisor; stays the caller's.</param>
/// <param name="path">Where that was, for upgrades.</param>
internal sealed class WorkerProgram(FileDescriptor own, string path) : IDisposable
{
    private FileDescriptor? _now;
    private FileDescriptor? _next;

    public string Path => path;

    /// <summary>What the next worker is started from.</summary>
    public FileDescriptor Descriptor => _next ?? _now ?? own;

    /// <summary>The worker is of the program of an upgrade, and is not ready yet.</summary>
    public bool IsOnTrial { get; private set; }

    /// <summary>Why the last upgrade was taken back; null if it was not.</summary>
    public string? Failure { get; private set; }

    /// <summary>The next worker is to be of another program, which is owned from here on.</summary>
    public void Offer(FileDescriptor program)
    {
        _next?.Dispose();
        _next = program;
        Failure = null;
    }

    /// <summary>A worker was started.</summary>
    public void Started() => IsOnTrial = _next is not null;

    /// <summary>The worker is ready. True if that ends an upgrade.</summary>
    public bool TryCommit()
    {
        if (!IsOnTrial)
            return false;
        _now?.Dispose();
        (_now, _next, IsOnTrial) = (_next, null, false);
        return true;
    }

    /// <summary>The worker has ended. True if the program before this one is to go on.</summary>
    public bool TryTakeBack(string why) => IsOnTrial && TryRefuse(why);

    /// <summary>A worker could not be started. True if the program before this one is to go on.</summary>
    public bool TryRefuse(string why)
    {
        if (_next is null)
            return false;
        _next.Dispose();
        (_next, IsOnTrial, Failure) = (null, false, why);
        return true;
    }

    public void Dispose()
    {
        _now?.Dispose();
        _next?.Dispose();
    }
}
