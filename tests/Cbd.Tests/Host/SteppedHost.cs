using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>One host of a region in an array, whose life cycles a test drives step by step, on a clock of its own.</summary>
internal sealed class SteppedHost
{
    /// <param name="isFar">On another machine: nobody here sees its locks, and nothing but its beat says that it lives.</param>
    public SteppedHost(TestRegion region, string name, bool isFar = false, Guid? hostUuid = null)
    {
        Region = region;
        Identity = isFar ? TestRegion.Identity(name) with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() } : TestRegion.Identity(name) with { HostUuid = hostUuid ?? TestRegion.OwnUuid };
        Locks = new TestLocks(isFar ? new LockTable() : region.Locks);
        Membership = new Membership<ArrayMemory, SafePolicy>(
            "transport 0", region.Memory, region.Geometry, Identity, Locks, new HostTimes(Identity.BeatMs, Identity.DeadMs), static () => new SessionCondition(), 0);
    }

    public TestRegion Region { get; }

    public HostIdentity Identity { get; }

    public TestLocks Locks { get; }

    public Membership<ArrayMemory, SafePolicy> Membership { get; }

    public HostSession<ArrayMemory, SafePolicy> Session => Membership.Session;

    public int Id => Session.Claim.Host;

    public long NowMs { get; set; }

    public SteppedHost Register()
    {
        StepUntil(now => Membership.StepRegister(now) == StepResult.Done);
        return this;
    }

    /// <summary>A backend of this host; nothing was done for it yet.</summary>
    public BackendLife<ArrayMemory, SafePolicy> NewBackend(BackendWish? wish = null) => new(Session, wish ?? new BackendWish(null), NowMs);

    /// <summary>A backend whose entry is claimed.</summary>
    public BackendLife<ArrayMemory, SafePolicy> ClaimBackend(BackendWish? wish = null, BackendBody? body = null)
    {
        BackendLife<ArrayMemory, SafePolicy> life = NewBackend(wish);
        life.BeginClaim(body ?? TestRegion.Disk(), NowMs);
        StepUntil(life.TryClaim);
        return life;
    }

    public DeviceLife<ArrayMemory, SafePolicy> NewDevice(int backend, int queues = 1, LossPolicy loss = default, string? identity = null) =>
        new(Session, new DeviceWish { Backend = backend, Queues = queues, Loss = loss, Identity = identity }, NowMs);

    /// <summary>Another host takes this one for dead, although it lives, and clears it. This host does not know yet.</summary>
    /// <param name="meanwhile">What the others do while it is cleared.</param>
    public void TakeForDead(Action? meanwhile = null) =>
        FalseDeath.Clear(Region.Memory, Region.Geometry, TestRegion.Identity("onlooker"), new TestLocks(Region.Locks), Id, meanwhile);

    /// <summary>As <see cref="TakeForDead"/>, as far as one step comes: what its channels wait for is not waited for.</summary>
    public void BeginToTakeForDead() =>
        FalseDeath.Step(Region.Memory, Region.Geometry, TestRegion.Identity("onlooker"), new TestLocks(Region.Locks), Id);

    /// <summary>Its next beat finds that it was cleared.</summary>
    public void FindOutThatItIsCleared()
    {
        Assert.False(Membership.Beat(NowMs));
        Assert.True(Membership.Lose("this host was cleared", cleared: true, NowMs));
    }

    public void StepUntil(Func<long, bool> step)
    {
        for (int turn = 0; turn < 200; turn++)
        {
            if (step(NowMs))
                return;
            NowMs += Identity.BeatMs;
        }

        throw new InvalidOperationException("still 'again' after 200 beats");
    }
}
