using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Clients that give back too slowly what they hold; the tests wait for their end, however long it takes.</summary>
public sealed class NbdSlowClientTests
{
    [Fact]
    public void A_client_that_holds_memory_which_others_wait_for_and_sends_too_little_is_ended()
    {
        using var device = TestDevice.OfSize(32 << 20);
        using var server = new NbdTestServer(device, patience: ClientPatience.Default);
        using NbdTestClient alone = server.Connect();
        alone.SendRequest(NbdCommand.Write, 1, 0, 32 << 20, payload: new byte[NbdConnection.InputBytes]);
        NbdTestServer.Until(() => server.Export.GetStatistics()[0].Requests == 1, "it holds the memory of long requests");
        using NbdTestClient waiting = server.Connect();
        Assert.Equal(NbdError.None, waiting.Write(0, new byte[4 << 20]));
        NbdTestServer.Until(() => server.Log.Contains("client 1 was disconnected: it held 1 requests and 33554432 bytes that others waited for", StringComparison.Ordinal), "its end is said");
        alone.ReadToEnd();
    }

    [Fact]
    public void A_client_that_ended_its_sending_and_reads_nothing_is_ended()
    {
        using var device = TestDevice.OfSize(32 << 20);
        using var server = new NbdTestServer(device, patience: ClientPatience.Default);
        using NbdTestClient half = server.Connect();
        for (ulong handle = 0; handle < 8; handle++)
            half.SendRequest(NbdCommand.Read, handle, 0, 4 << 20);
        half.ShutdownSend();
        // Not of the count alone: it is 0, too, before the client is taken over.
        NbdTestServer.Until(() => server.Log.Contains("sends nothing more, and has read nothing", StringComparison.Ordinal), "its end is said");
        NbdTestServer.Until(() => server.Export.ClientCount == 0, "it is gone");
    }
}
