using System.Globalization;
using Cbd.Blocks;
using Cbd.Exports.Nbd.Client;
using Cbd.Host;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>Any NBD server.</summary>
internal sealed class NbdTarget(string uri) : BenchTarget
{
    /// <summary>USER_HZ of every Linux that .NET runs on.</summary>
    private const long MicrosecondsPerTick = 10_000;

    private readonly NbdClientDevice _device = NbdClientDevice.Connect(uri);

    public override string Name => uri;

    public override IBlockDevice Device => _device;

    /// <summary>CPU time of the server's whole process; what it allocates cannot be seen from here.</summary>
    public override ServerUse? Server()
    {
        if (_device.ServerProcess <= 0)
            return null;
        try
        {
            // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in field 2 may have spaces.
            string stat = File.ReadAllText($"/proc/{_device.ServerProcess}/stat");
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            long ticks = long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
            return new ServerUse(ticks * MicrosecondsPerTick, null);
        }
        catch (IOException)
        {
            return null;
        }
    }

    public override void Dispose() => _device.Dispose();
}
