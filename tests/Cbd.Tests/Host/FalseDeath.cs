using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Tests.Host;

/// <summary>
/// A host that takes another for dead although it lives, as hosts of another machine do with one that was suspended and whose
/// operator vouched for its death.
/// </summary>
internal static class FalseDeath
{
    public static void Clear<TMemory>(TMemory memory, RegionGeometry geometry, HostIdentity self, IHostLocks locks, int host, Action? meanwhile = null)
        where TMemory : struct, ISharedMemory
    {
        var tracker = new LivenessTracker<TMemory, SafePolicy>(memory, geometry, self, new LocksButOne(locks, host));
        var clearing = new Clearing<TMemory, SafePolicy>(memory, geometry, tracker);
        long nowMs = 0;
        Eventually.True(() =>
        {
            meanwhile?.Invoke();
            return clearing.Step(host, ClearAuthority.Proof, nowMs += self.BeatMs) == ClearResult.Cleared;
        });
    }

    public static ClearResult Step<TMemory>(TMemory memory, RegionGeometry geometry, HostIdentity self, IHostLocks locks, int host)
        where TMemory : struct, ISharedMemory
    {
        var tracker = new LivenessTracker<TMemory, SafePolicy>(memory, geometry, self, new LocksButOne(locks, host));
        return new Clearing<TMemory, SafePolicy>(memory, geometry, tracker).Step(host, ClearAuthority.Proof, 0);
    }

    /// <summary>Sees all locks but that of one host.</summary>
    private sealed class LocksButOne(IHostLocks locks, int unseen) : IHostLocks
    {
        public bool TryLock(int host) => locks.TryLock(host);

        public void Unlock(int host) => locks.Unlock(host);

        public bool IsHeld(int host, ulong device, ulong inode) => host != unseen && locks.IsHeld(host, device, inode);
    }
}
