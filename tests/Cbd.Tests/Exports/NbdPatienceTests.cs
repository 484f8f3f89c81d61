using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>What ends because its time is over; the tests wait for the end, however long it takes.</summary>
public sealed class NbdPatienceTests
{
    [Fact]
    public void A_client_that_says_nothing_in_its_handshake_is_dropped_and_others_are_not_kept_waiting()
    {
        using var device = TestDevice.OfSize(1 << 20);
        using var server = new NbdTestServer(device);
        using var silent = new NbdTestClient(server.Path);
        using NbdTestClient client = server.Connect();
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
        silent.ReadToEnd();
        NbdTestServer.Until(() => server.Log.Contains("handshake took longer", StringComparison.Ordinal), "the log says why");
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void Stop_does_not_wait_for_ever_for_a_client_that_reads_nothing()
    {
        using var device = TestDevice.OfSize(8 << 20);
        using var server = new NbdTestServer(device);
        using NbdTestClient client = server.Connect();
        for (ulong handle = 0; handle < 8; handle++)
            client.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
        NbdTestServer.Until(() => device.Submitted == 8, "the requests are at the device");
        server.Export.Stop(force: false);
        Assert.Equal(0, device.OpenQueues);
        client.ReadToEnd();
    }
}
