using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>What ends because its time is over; the tests wait for the end, however long it takes.</summary>
public sealed class NbdPatienceTests
{
    [Fact]
    public void A_client_that_says_nothing_in_its_handshake_is_dropped_and_one_that_has_ended_it_is_not()
    {
        using var device = TestDevice.OfSize(1 << 20);
        using var server = new NbdTestServer(device, handshakeSeconds: 1);
        NbdTestClient? connected = null;
        // On a busy machine its own handshake may take too long, too.
        NbdTestServer.Until(() => (connected = TryConnect(server)) is not null, "a client ends its handshake in time");
        using NbdTestClient client = connected!;
        int late = Late(server);
        using var silent = new NbdTestClient(server.Path);
        silent.ReadToEnd();
        NbdTestServer.Until(() => Late(server) > late, "the log says why");
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void A_client_that_says_nothing_in_its_handshake_does_not_keep_another_waiting()
    {
        using var device = TestDevice.OfSize(1 << 20);
        // It is not dropped before the other gives up.
        using var server = new NbdTestServer(device, handshakeSeconds: 300);
        using var silent = new NbdTestClient(server.Path);
        using NbdTestClient client = server.Connect();
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void Stop_does_not_wait_for_ever_for_a_client_that_reads_nothing()
    {
        using var device = TestDevice.OfSize(8 << 20);
        using var server = new NbdTestServer(device, patience: ClientPatience.Default);
        using NbdTestClient client = server.Connect();
        for (ulong handle = 0; handle < 8; handle++)
            client.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
        NbdTestServer.Until(() => device.Submitted == 8, "the requests are at the device");
        server.Export.Stop(force: false);
        Assert.Equal(0, device.OpenQueues);
        client.ReadToEnd();
    }

    private static int Late(NbdTestServer server) => server.Log.Split("its handshake took longer than 1 s").Length - 1;

    private static NbdTestClient? TryConnect(NbdTestServer server)
    {
        int late = Late(server);
        try
        {
            return server.Connect();
        }
        catch (Exception) when (Late(server) > late)
        {
            return null;
        }
    }
}
