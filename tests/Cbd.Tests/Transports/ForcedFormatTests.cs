using Cbd.Host;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Tests.Library;
using Xunit;

namespace Cbd.Tests.Transports;

/// <summary>With the byte locks of a real file.</summary>
public sealed class Formatting_by_force
{
    /// <summary>Short: formatting waits for what a live host does meanwhile.</summary>
    private const int DeadMs = 4000;

    [Theory]
    [InlineData(TransportInfo.VersionOffset)]
    [InlineData(TransportInfo.IncompatOffset)]
    [InlineData(TransportInfo.RegionIdOffset)]
    [InlineData(TransportInfo.HostAreaOffset + 13)]
    [InlineData(0)]
    public void Is_refused_over_a_live_daemon_whatever_the_transport_info_says_and_allowed_when_it_has_left(int damagedByte)
    {
        using var region = new LocalRegion(DeadMs);
        using (var file = new FileStream(region.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
        {
            file.Position = damagedByte;
            int there = file.ReadByte();
            file.Position = damagedByte;
            file.WriteByte((byte)(there ^ 5));
        }

        using Node other = LocalRegion.Serve(DeadMs);
        var format = new RegisterTransportOptions { Host = "other", Path = region.Path, Format = true, Force = true };
        CbdException refused = Assert.Throws<CbdException>(() => other.RegisterTransport(format));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("this machine", refused.Message, StringComparison.Ordinal);
        region.Leave();
        Assert.Equal(TransportInfo.SupportedVersion, other.GetTransport(other.RegisterTransport(format)).Version);
    }
}
