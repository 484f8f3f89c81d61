using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Protocol;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Tests.Host;

/// <summary>A look at a region from the side: its claim words and locks.</summary>
internal sealed class RegionView : IDisposable
{
    private readonly RegionSource _source;
    private readonly RegionMapping _region;

    public RegionView(string path)
    {
        _source = RegionSource.Open(path);
        _region = _source.Map();
        Geometry = TransportInfo.Read(_region.Memory, _region.SizeBytes).Geometry;
    }

    public RegionGeometry Geometry { get; }

    public MappedMemory Memory => _region.Memory;

    /// <summary>Somebody else has locked any byte of it.</summary>
    public bool IsLocked => RegionByteLock.IsAnyHeld(_source.Descriptor);

    /// <summary>The entries that are not free, by name.</summary>
    public IEnumerable<string> Taken =>
        Of("host", Geometry.HostCount, Geometry.HostOffset)
            .Concat(Of("backend", Geometry.BackendCount, Geometry.BackendOffset))
            .Concat(Of("blkdev", Geometry.BlkdevCount, Geometry.BlkdevOffset))
            .Concat(Of("channel", Geometry.ChannelCount, Geometry.ChannelOffset));

    /// <summary>Mappings of the file in this process.</summary>
    public static int MappingsOf(string path) =>
        File.ReadLines("/proc/self/maps").Count(line => line.EndsWith(path, StringComparison.Ordinal));

    public ClaimWord HostWord(int host) => ClaimOperations<MappedMemory, SafePolicy>.Read(Memory, Geometry.HostOffset(host));

    public ClaimWord BackendWord(int backend) => ClaimOperations<MappedMemory, SafePolicy>.Read(Memory, Geometry.BackendOffset(backend));

    /// <summary>Another host takes this one for dead, although it lives, and clears it.</summary>
    public void TakeForDead(int host)
    {
        var self = new HostIdentity
        {
            Name = "onlooker",
            BootId = ProcessIdentity.BootId,
            HostUuid = Guid.NewGuid(),
            Device = _region.Device,
            Inode = _region.Inode,
            Pid = Environment.ProcessId,
            BeatMs = TestNode.BeatMs,
            DeadMs = TestNode.DeadMs,
        };
        FalseDeath.Clear(Memory, Geometry, self, new OfdHostLocks(_region), host);
    }

    public void Dispose()
    {
        _region.Dispose();
        _source.Dispose();
    }

    private IEnumerable<string> Of(string name, int count, Func<int, long> offsetOf)
    {
        for (int i = 0; i < count; i++)
        {
            ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(Memory, offsetOf(i));
            if (word.State != ClaimState.Free)
                yield return $"{name} {i} {word.State}";
        }
    }
}
