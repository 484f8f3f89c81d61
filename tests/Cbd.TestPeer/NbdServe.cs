using Cbd.Exports.Pumping;
using Cbd.Disks;
using Cbd.Exports.Nbd;
using Cbd.Host;

namespace Cbd.TestPeer;

/// <summary>
/// <c>nbd-serve ADDRESS DISK QUEUES [BLOCK_BYTES]</c>: serves a disk (memory:SIZE) until its standard input ends. Prints the URI when
/// clients can connect, and at the end one line per pump of what it did.
/// </summary>
internal static class NbdServe
{
    internal static int Run(string[] arguments)
    {
        var factory = new NbdExportFactory(Console.Error.WriteLine);
        using Disk disk = Disk.Open(new DiskOptions { Path = arguments[1], LogicalBlockBytes = arguments.Length > 3 ? int.Parse(arguments[3]) : null });
        using NbdExport export = factory.OpenNbd(arguments[0], insecure: false);
        export.Serve(disk, int.Parse(arguments[2]), PollMode.Adaptive);
        Console.WriteLine(export.Uri);
        while (Console.ReadLine() is not null)
        {
        }

        export.Stop(force: false);
        foreach (PumpStatistics pump in export.GetStatistics())
            Console.WriteLine(pump);
        return 0;
    }
}
