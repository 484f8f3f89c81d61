using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class OperationsOfTheControlApi
{
    [Fact]
    public void Are_all_in_the_table() => Assert.Equal(
        typeof(Operations).GetFields().Select(field => (Operation)field.GetValue(null)!).ToHashSet(), Operations.All.ToHashSet());

    [Fact]
    public void Have_names_and_addresses_of_their_own()
    {
        Assert.Equal(Operations.All.Count, Operations.All.Select(operation => operation.Name).Distinct().Count());
        Assert.Equal(Operations.All.Count, Operations.All.Select(operation => $"{operation.Method} {operation.Path}").Distinct().Count());
    }

    [Fact]
    public void Are_all_done_by_a_node_but_those_about_the_record() => Assert.Equal(
        Operations.All.Except([Operations.ListWanted, Operations.Forget, Operations.GetDaemon, Operations.UpgradeDaemon]), NodeOperations.Of(null!).Operations);

    [Fact]
    public void Have_types_that_can_be_written() => Assert.All(Operations.All, operation =>
    {
        Assert.NotNull(operation.RequestJson);
        if (operation.HasContent)
            Assert.NotNull(operation.AnswerJson);
    });

    [Fact]
    public void Have_the_ids_of_a_request_in_the_path_and_the_rest_in_the_query_where_there_is_no_body()
    {
        Assert.Equal("/v1/transports", Operations.ListTransports.Address(new ControlRequest()));
        Assert.Equal("/v1/transports/3", Operations.UnregisterTransport.Address(new TransportTarget { Transport = 3 }));
        Assert.Equal("/v1/transports/3/hosts/4/clear", Operations.ClearHost.Address(new ClearRequest { Transport = 3, Id = 4, Force = true }));
        Assert.Equal("/v1/transports/3/devices?all=true", Operations.ListDevices.Address(new ListRequest { Transport = 3, All = true }));
        Assert.Equal("/v1/transports/0/flights?device=5&channel=6", Operations.ReadFlights.Address(new FlightFilter { Device = 5, Channel = 6 }));
        Assert.Equal("/v1/transports/0/flights", Operations.ReadFlights.Address(new FlightFilter()));
    }

    [Fact]
    public void Name_the_item_whose_id_is_wrong()
    {
        Assert.Contains("host id -1 is negative", Assert.Throws<CbdException>(() => Operations.ClearHost.Check(new ClearRequest { Id = -1 })).Message);
        Assert.Contains("device id -1 is negative", Assert.Throws<CbdException>(() => Operations.StopDevice.Check(new StopRequest { Id = -1 })).Message);
    }
}
