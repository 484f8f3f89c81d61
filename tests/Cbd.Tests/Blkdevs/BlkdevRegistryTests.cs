using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Blkdevs;

public sealed class Claiming_a_blkdev
{
    private readonly TestRegion _region = new();

    private static string Refusal(Action act) => Assert.Throws<CbdException>(act).Message;

    private static bool IsEntitled(TestRegion region, BlkdevClaim<ArrayMemory, SafePolicy> blkdev, bool readOnly = false) =>
        BlkdevRegistry<ArrayMemory, SafePolicy>.IsEntitled(region.Memory, region.Geometry, blkdev.Body.BackendId, readOnly, blkdev.Blkdev, blkdev.Epoch);

    [Fact]
    public void Is_seen_by_others_when_it_is_active()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = b.Blkdevs.Claim(0, readOnly: false);
        Assert.False(IsEntitled(_region, blkdev));
        blkdev.Activate([2, 0], "nbd+unix:///?socket=/run/x");
        Assert.True(IsEntitled(_region, blkdev));
        a.Tracker.Sample(0);
        BlkdevListing seen = a.Blkdevs.List().Single();
        Assert.Equal("nbd+unix:///?socket=/run/x", seen.Body!.Name);
        Assert.Equal([2, 0], seen.Body.Channels);
        Assert.Equal((b.Id, b.Claim.Epoch, 0, 1UL, false), (seen.Body.HostId, seen.Body.HostEpoch, seen.Body.BackendId, seen.Body.SessionEpoch, seen.Body.ReadOnly));
        blkdev.BeginClose();
        Assert.False(IsEntitled(_region, blkdev));
        blkdev.End();
        Assert.Equal(new ClaimWord(ClaimState.Free, 0, 1), _region.BlkdevWord(0));
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Only_one_may_use_a_writable_backend_and_the_error_names_it()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> first = a.StartBlkdev(0);
        Assert.Contains("in use by blkdev 0", Refusal(() => b.Blkdevs.Claim(0, readOnly: false)), StringComparison.Ordinal);
        Assert.Contains("in use by blkdev 0", Refusal(() => b.Blkdevs.Claim(0, readOnly: true)), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(1).State);
        first.End();
        b.StartBlkdev(0);
    }

    [Fact]
    public void Any_number_may_use_a_read_only_backend()
    {
        TestHost a = _region.Host("a").Register();
        a.Backends.Start(TestRegion.Disk(readOnly: true));
        for (int i = 0; i < 3; i++)
        {
            BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
            Assert.True(blkdev.Body.ReadOnly);
            Assert.True(IsEntitled(_region, blkdev, readOnly: true));
        }

        Assert.Contains("all 3 are taken: stop one with dev-stop, or format with more --blkdevs", Refusal(() => a.Blkdevs.Claim(0, true)), StringComparison.Ordinal);
        Assert.Equal([0, 1, 2], a.Backends.List().Single().Blkdevs);
    }

    [Fact]
    public void Is_refused_on_a_backend_that_nobody_serves()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        Assert.Contains("backend 0 does not exist", Refusal(() => b.Blkdevs.Claim(0, false)), StringComparison.Ordinal);
        Assert.Contains("backend 7 does not exist: ids go from 0 to 2", Refusal(() => b.Blkdevs.Claim(7, false)), StringComparison.Ordinal);
        a.Backends.Start(TestRegion.Disk());
        b.StartBlkdev(0);
        a.Kill();
        b.ClearDead();
        Assert.Contains("backend-start -b 0", Refusal(() => b.Blkdevs.Claim(0, false)), StringComparison.Ordinal);
    }

    [Fact]
    public void A_backend_that_ends_before_it_is_active_is_noticed()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        BackendClaim<ArrayMemory, SafePolicy> backend = a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = b.Blkdevs.Claim(0, false);
        backend.BeginClose(force: false);
        backend.EndClose();
        Assert.Contains("stopped or restarted meanwhile", Refusal(() => blkdev.Activate([], "")), StringComparison.Ordinal);
        blkdev.End();
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(0).State);
        Assert.Equal(WriterWord.None, _region.Writer(0));
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void A_writer_word_that_a_stale_claim_took_too_late_is_taken_over()
    {
        TestHost a = _region.Host("a").Register();
        a.Backends.Start(TestRegion.Disk());
        _region.Memory.WriteRelease(_region.Geometry.BackendOffset(0) + BackendEntry.WriterOffset, new WriterWord(2, 7).Raw);
        _region.Store(_region.Geometry.BlkdevOffset(2), new ClaimWord(ClaimState.Active, 1, 7));
        Assert.Contains("in use by blkdev 2", Refusal(() => a.Blkdevs.Claim(0, false)), StringComparison.Ordinal);
        _region.Store(_region.Geometry.BlkdevOffset(2), new ClaimWord(ClaimState.Free, 0, 7));
        a.StartBlkdev(0);
    }

    [Fact]
    public void A_claim_that_stands_still_ends_with_its_host_and_cannot_become_active_then()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        b.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.Blkdevs.Claim(0, false);
        for (int beat = 0; beat <= 12; beat++)
            b.Clearing.Sweep(beat * 1000);
        Assert.Equal(ClaimState.Claiming, _region.BlkdevWord(0).State);
        a.Kill();
        b.ClearDead();
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(0).State);
        Assert.Equal(WriterWord.None, _region.Writer(0));
        BlkdevClaim<ArrayMemory, SafePolicy> other = b.StartBlkdev(0);
        Assert.Throws<CbdException>(() => blkdev.Activate([], ""));
        blkdev.End();
        Assert.True(other.IsMine());
        Assert.True(IsEntitled(_region, other));
    }

    [Fact]
    public void Nothing_is_believed_of_a_damaged_entry()
    {
        TestHost a = _region.Host("a").Register();
        a.Backends.Start(TestRegion.Disk(readOnly: true));
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        _region.Memory.Bytes.Slice((int)_region.Geometry.BlkdevOffset(0) + BlkdevEntry.BodyOffset, 2 * BodyFrame.SizeBytes).Fill(0xA5);
        Assert.Null(a.Blkdevs.List().Single().Body);
        Assert.False(IsEntitled(_region, blkdev, readOnly: true));
        Assert.False(BlkdevRegistry<ArrayMemory, SafePolicy>.IsEntitled(_region.Memory, _region.Geometry, 0, true, 40000, 1));
        Assert.True(blkdev.Beat());
        Assert.True(IsEntitled(_region, blkdev, readOnly: true));
    }
}
