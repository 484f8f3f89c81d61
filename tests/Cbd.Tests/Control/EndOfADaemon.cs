using Cbd.Programs.Daemon;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class EndOfADaemon
{
    private static ListedNode TwoTransports()
    {
        var node = new ListedNode { HasNodes = true };
        foreach (string region in (string[])["/r", "/s"])
            node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = region });
        return node;
    }

    private static IEnumerable<string> Stops(ListedNode node) => node.Calls.Where(c => c.StartsWith("stop ", StringComparison.Ordinal) || c.StartsWith("leave ", StringComparison.Ordinal));

    [Fact]
    public void Stops_what_lies_on_a_device_of_another_transport_first()
    {
        var node = TwoTransports();
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/disk" });
        node.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "lower" });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Transport = 1, Path = "/dev/cbd/lower" });
        node.Execute(Operations.StartDevice, new StartDeviceOptions { Transport = 1, Backend = 0, Name = "upper" });
        node.Stacked.Add(("/dev/cbd/lower", "/dev/loop-lower"));
        Assert.True(Draining.Drain(node, NullLogger.Instance));
        Assert.Equal(["stop device 1 0 True", "leave backend 1 0", "stop device 0 0 True", "leave backend 0 0", "leave transport 0", "leave transport 1"], Stops(node));
    }

    [Fact]
    public void Ends_also_where_two_things_wait_for_each_other_and_goes_on_after_one_that_does_not_stop()
    {
        var node = TwoTransports();
        for (int transport = 0; transport < 2; transport++)
        {
            node.Execute(Operations.StartBackend, new StartBackendOptions { Transport = transport, Path = $"/disk{transport}" });
            node.Execute(Operations.StartDevice, new StartDeviceOptions { Transport = transport, Backend = 0, Name = $"d{transport}" });
            node.Stacked.Add(($"/disk{transport}", $"/dev/loop-d{1 - transport}"));
        }

        node.Failure = new CbdException(CbdErrorKind.Failed, "it does not stop");
        Assert.False(Draining.Drain(node, NullLogger.Instance));
        Assert.Equal(["stop device 0 0 True", "stop device 1 0 True", "leave backend 0 0", "leave backend 1 0", "leave transport 0", "leave transport 1"], Stops(node));
    }
}
