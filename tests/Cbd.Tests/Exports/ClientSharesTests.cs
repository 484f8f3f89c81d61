using Cbd.Exports.Nbd;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>How much each of many clients may hold, without sockets and without a clock.</summary>
public sealed class ClientSharesTests : IDisposable
{
    private const int Clients = 40;
    private const int Mebibyte = 1 << 20;

    private readonly ClientShares _shares = new(Clients);
    private readonly ClientHold[] _holds = new ClientHold[Clients];

    public void Dispose() => _shares.Dispose();

    [Fact]
    public void One_client_alone_gets_half_of_the_memory_and_half_of_the_slots()
    {
        List<Grant> memory = TakeAll(0, Mebibyte);
        Assert.Equal(32, memory.Count);
        Assert.Equal(Admission.AtShare, Take(0, Mebibyte, out _));
        memory.ForEach(Return);
        Assert.Equal(ClientShares.SlotCount / 2, TakeAll(1, 0).Count);
        Assert.Equal(Admission.AtShare, Take(1, 0, out _));
    }

    [Fact]
    public void What_others_hold_never_keeps_a_client_from_its_first_request()
    {
        for (int client = 0; client < Clients - 1; client++)
            TakeAll(client, Mebibyte, 256 << 10, 4096, 0);
        Assert.Equal(Admission.Granted, Take(Clients - 1, ClientShares.ReserveBytes, out Grant only));
        Assert.Equal(ClientShares.ReserveBytes, only.Data.Length);
        Return(only);
        Assert.Equal(Admission.Granted, Take(Clients - 1, 4096, out _));
    }

    [Fact]
    public void A_reserve_is_for_one_request_that_fits_it_and_is_free_again_behind_it()
    {
        Assert.Equal(Admission.NoRoom, _shares.TryTake(ref _holds[0], 0, ClientShares.ReserveBytes + 1, mayShare: false, out _, out _));
        Assert.Equal(Admission.Granted, _shares.TryTake(ref _holds[0], 0, 4096, mayShare: false, out BufferSlice data, out bool isReserve));
        Assert.True(isReserve);
        Assert.True(_holds[0].IsNothing, "a reserve is nothing that others could want");
        Assert.Equal(Admission.NoRoom, _shares.TryTake(ref _holds[0], 0, 0, mayShare: false, out _, out _));
        Return(new Grant(0, data, isReserve));
        Assert.Equal(Admission.Granted, _shares.TryTake(ref _holds[0], 0, 0, mayShare: false, out _, out isReserve));
        Assert.True(isReserve);
    }

    [Fact]
    public void Long_requests_take_nothing_from_the_others()
    {
        Assert.Equal(Admission.Granted, Take(0, 32 * Mebibyte, out Grant all));
        Assert.Equal(Admission.AtShare, Take(0, 32 * Mebibyte, out _));
        Assert.Equal(Admission.NoRoom, Take(1, ClientShares.LargestOrdinaryBytes + 1, out _));
        Assert.Equal(32, TakeAll(1, Mebibyte).Count);
        Return(all);
        Assert.Equal(Admission.Granted, Take(2, 32 * Mebibyte, out _));
    }

    [Fact]
    public void Whatever_is_taken_and_returned_nothing_overlaps_no_share_is_exceeded_and_nothing_is_lost() =>
        Gen.Select(Gen.Int[0, Clients - 1], Gen.Int[0, 3 * Mebibyte], Gen.Bool, Gen.Int[0, 2]).Array[1, 300].Sample(steps =>
        {
            using var shares = new ClientShares(Clients);
            var holds = new ClientHold[Clients];
            var held = new List<Grant>();
            foreach ((int client, int bytes, bool small, int kind) in steps)
            {
                if (kind == 0 && held.Count != 0)
                {
                    Grant returned = held[bytes % held.Count];
                    held.Remove(returned);
                    Return(shares, holds, returned);
                    continue;
                }

                int wanted = small ? bytes % 8192 : bytes;
                long before = holds[client].SharedBytes;
                Admission admission = shares.TryTake(ref holds[client], client, wanted, mayShare: true, out BufferSlice data, out bool isReserve);
                if (admission != Admission.Granted)
                {
                    Assert.True(admission == Admission.AtShare ? !holds[client].IsNothing : holds[client].HasReserve || wanted > ClientShares.ReserveBytes);
                    continue;
                }

                Assert.Equal(wanted, data.Length);
                Assert.True(isReserve ? holds[client].SharedBytes == before : holds[client].SharedBytes - before >= wanted);
                Assert.True(holds[client].SharedBytes <= 64 * Mebibyte && holds[client].Slots <= ClientShares.SlotCount / 2);
                Assert.DoesNotContain(held, other => wanted != 0 && other.Data.Length != 0 &&
                    data.Offset < other.Data.Offset + other.Data.Length && other.Data.Offset < data.Offset + data.Length);
                held.Add(new Grant(client, data, isReserve));
            }

            held.ForEach(grant => Return(shares, holds, grant));
            Assert.All(holds, hold => Assert.Equal(default, hold));
            Assert.Equal(Admission.Granted, shares.TryTake(ref holds[0], 0, 32 * Mebibyte, mayShare: true, out _, out _));
        });

    [Fact]
    public void What_a_burst_has_touched_is_given_back()
    {
        Assert.Equal(Admission.Granted, Take(0, 32 * Mebibyte, out Grant large));
        Assert.Equal(Admission.Granted, _shares.TryTake(ref _holds[7], 7, 4096, mayShare: false, out BufferSlice reserve, out _));
        large.Data.Span.Fill(1);
        reserve.Span.Fill(1);
        Return(large);
        Return(new Grant(7, reserve, IsReserve: true));
        for (int look = 0; look < 3; look++)
            _shares.GiveBackUnused();
        Assert.Equal(0, large.Data.Span[^1]);
        Assert.Equal(0, reserve.Span[0]);
    }

    private Admission Take(int client, int bytes, out Grant grant)
    {
        Admission admission = _shares.TryTake(ref _holds[client], client, bytes, mayShare: true, out BufferSlice data, out bool isReserve);
        grant = new Grant(client, data, isReserve);
        return admission;
    }

    /// <summary>Takes as many of these as the client gets from what is shared.</summary>
    private List<Grant> TakeAll(int client, params int[] sizes)
    {
        var grants = new List<Grant>();
        foreach (int bytes in sizes)
        {
            while (Take(client, bytes, out Grant grant) == Admission.Granted)
                grants.Add(grant);
        }

        return grants;
    }

    private void Return(Grant grant) => Return(_shares, _holds, grant);

    private static void Return(ClientShares shares, ClientHold[] holds, Grant grant)
    {
        if (grant.Data.Length != 0)
            shares.ReturnData(ref holds[grant.Client], grant.Data);
        shares.ReturnSlot(ref holds[grant.Client], grant.Client, grant.IsReserve);
    }

    private readonly record struct Grant(int Client, BufferSlice Data, bool IsReserve);
}
